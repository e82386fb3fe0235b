//! Feeds the parser every way a stream can be cut; tables of bodies, limits and places.

mod head;
mod response;
mod streams;

use bytes::BytesMut;

use super::*;

/// Where a stream is, which says what a pause or an end there means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Between messages: to pause is idling, to end is a clean close.
    Between,
    /// Within a head: not all of it has come.
    Head,
    /// After a head: an end here cuts a message short.
    Body,
    /// After a refusal.
    Refused,
}

/// What became of a stream, however it was cut: neighbouring pieces of a body are one, and what came of a body
/// that was refused doesn't count.
#[derive(Debug, Eq, PartialEq)]
enum Step {
    Head(usize, Head),
    Body(usize),
    End,
    Refused(Refusal),
}

/// Reads a stream's requests.
#[derive(Default)]
struct Feed {
    reader: RequestReader,
    body: Option<Decoder>,
    input: BytesMut,
    steps: Vec<Step>,
}

impl Feed {
    fn add(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.input.extend_from_slice(piece);
        loop {
            let before = self.input.len();
            let Some(body) = &mut self.body else {
                let Some(request) = self.reader.read(&mut self.input)? else { return Ok(()) };
                self.steps.push(Step::Head(before - self.input.len(), request.head));
                self.body = Some(request.body);
                continue;
            };
            let part = if body.is_done() { None } else { body.next(&mut self.input)? };
            match (before - self.input.len(), self.steps.last_mut()) {
                (0, _) => {}
                (used, Some(Step::Body(body))) => *body += used,
                (used, _) => self.steps.push(Step::Body(used)),
            }
            if body.is_done() {
                self.steps.push(Step::End);
                self.body = None;
            } else if part.is_none() {
                return Ok(());
            }
        }
    }

    fn place(&self) -> Place {
        match self.steps.last() {
            Some(Step::Refused(_)) => Place::Refused,
            _ if self.body.is_some() => Place::Body,
            _ if self.reader.is_fresh() => Place::Between,
            _ => Place::Head,
        }
    }
}

/// Feeds the pieces, and says what came of them and where they end.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Step>, Place) {
    let mut feed = Feed::default();
    for piece in pieces {
        if let Err(refusal) = feed.add(piece) {
            feed.steps.pop_if(|step| matches!(step, Step::Body(_)));
            feed.steps.push(Step::Refused(refusal));
            break;
        }
    }
    let place = feed.place();
    (feed.steps, place)
}

/// Feeds `raw` whole, byte by byte, and cut in two at every place (of a long one: near its ends).
fn feed_every_way(raw: &[u8]) -> (Vec<Step>, Place) {
    let whole = feed([raw]);
    assert_eq!(whole, feed(raw.chunks(1)), "byte by byte: {}", raw.escape_ascii());
    for at in 0..raw.len() {
        if raw.len() < 2048 || at < 40 || at + 40 > raw.len() {
            let (left, right) = raw.split_at(at);
            assert_eq!(whole, feed([left, right]), "cut at {at}: {}", raw.escape_ascii());
        }
    }
    whole
}

fn refusal(raw: &[u8]) -> Option<Refusal> {
    match feed_every_way(raw).0.last() {
        Some(Step::Refused(refusal)) => Some(*refusal),
        _ => None,
    }
}

/// The sole head of `raw`, which is that and nothing more.
fn head(raw: &str) -> Head {
    match *feed_every_way(raw.as_bytes()).0 {
        [Step::Head(len, head)] | [Step::Head(len, head), Step::End] if len == raw.len() => head,
        ref other => panic!("{}: {other:?}", raw.escape_debug()),
    }
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn target(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn host(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[track_caller]
fn assert_refused(status: u16, cases: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for raw in cases {
        let raw = raw.as_ref();
        let was = refusal(raw).map(|refusal| refusal.status.as_u16());
        assert_eq!(was, Some(status), "{}", raw.escape_ascii());
    }
}

#[test]
fn chunks_have_one_spelling() {
    #[rustfmt::skip]
    let unsound = [
        "\r\n", " 5\r\n", "5 \r\n", "5\t\r\n", "5 ;a\r\n", "+5\r\n", "-5\r\n", "0x5\r\n",
        "1_0\r\n", "g\r\n", "5\n", "5\rhello", "8000000000000000\r\n", "ffffffffffffffff\r\n",
        "10000000000000000\r\n", "00000000000000005\r\n", "5;\r\n", "5;;a\r\n", "5; a\r\n",
        "5;a \r\n", "5;a =b\r\n", "5;a= b\r\n", "5;a=\r\n", "5;=b\r\n", "5;a=b=c\r\n",
        "5;a=\"b\r\n", "5;a=\"b\\\"\r\n", "5;a=\"b\"c\r\n", "5;a\n", "5;a\0\r\n",
        "5;a=\"\n\"\r\n", "5;a\rb\r\n", "5,a\r\n", "5a;\r\n", "5;a=\"\x7f\"\r\n", ";a\r\n",
        "5\r\nhellox", "5\r\nhello\n", "5\r\nhello\rx", "5\r\nhello0\r\n", "5\r\nhello\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n", "0\r\n\n", "0\r\n\rx", "0\r\n \r\n", "5\r\nhell\r\n0\r\n\r\n",
    ];
    assert_refused(400, unsound.map(chunked));
}

#[test]
fn trailers_are_fields_that_change_nothing() {
    #[rustfmt::skip]
    let unsound = [
        "X : a", "X", " X: a", "X: a\r\n b", "X: \0", ": a", "X: a\nY: b", "Content-Length: 5",
        "Transfer-Encoding: chunked", "host: b", "Connection: close", "Upgrade: a",
        "TE: trailers", "Trailer: X", "Authorization: a", "Cookie: a", "Content-Encoding: gzip",
        "Content-Type: a", "Content-Range: a", "Expect: 100-continue", "Max-Forwards: 1",
        "Cache-Control: a", "Proxy-Authorization: a", "Proxy-X: a", "Forwarded: for=a",
        "X-Forwarded-For: a", "x-forwarded-: a", "2ptth-Id: a", "If-Match: a", "X-Real-IP: a",
        "Keep-Alive: a",
    ];
    assert_refused(400, unsound.map(|field| chunked(&format!("0\r\n{field}\r\n\r\n"))));
}

#[test]
fn sizes_are_bounded() {
    let fits = |raw: &str| refusal(raw.as_bytes()).is_none();
    let long = |len: usize| "a".repeat(len);

    // "GET /", " HTTP/1.1"
    assert!(fits(&target(&format!("/{}", long(8192 - 14)))));
    assert_refused(414, [target(&format!("/{}", long(8192 - 13)))]);
    assert_refused(501, ["a".repeat(8193), format!("{} / HTTP/1.1\r\n", "a".repeat(100_000))]);
    let digits = |count: usize| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {:0>count$}\r\n\r\n", 5)
    };
    assert_refused(400, [digits(20), digits(30)]);
    assert!(fits(&digits(19)));

    let head = |len: usize| get(&format!("X: {}\r\n", long(len - get("X: \r\n").len())));
    assert!(fits(&head(32 << 10)));
    assert_refused(431, [head((32 << 10) + 1), head((32 << 10) + 2), head((32 << 10) + 3)]);
    // No room is left for the last empty line, and none even for half of it.
    for left in [1, 2] {
        let full = head((32 << 10) + left);
        assert_refused(431, [full.strip_suffix("\r\n").unwrap_or_default()]);
    }
    // One line without an end.
    assert_refused(431, [format!("GET / HTTP/1.1\r\nX: {}", long(32 << 10))]);

    assert!(fits(&get(&"X: a\r\n".repeat(99))));
    assert_refused(431, [get(&"X: a\r\n".repeat(100))]);

    let extension = |len: usize| format!("1;{}\r\na\r\n", long(len - 1));
    assert!(fits(&chunked(&format!("0000000000000001;{}\r\n", long(255)))));
    assert_refused(
        400,
        [chunked(&format!("0000000000000001;{}\r\n", long(256))), chunked(&long(300))],
    );
    assert!(fits(&chunked(&extension(256).repeat(32))));
    assert_refused(400, [chunked(&(extension(256).repeat(32) + "1;a\r\n"))]);

    let trailers = |len: usize| chunked(&format!("0\r\nX: {}\r\n\r\n", long(len - 7)));
    assert!(fits(&trailers(8 << 10)));
    assert_refused(431, [trailers((8 << 10) + 1), trailers((8 << 10) + 2)]);
    assert!(fits(&chunked(&format!("0\r\n{}\r\n", "X: a\r\n".repeat(100)))));
    assert_refused(431, [chunked(&format!("0\r\n{}", "X: a\r\n".repeat(101)))]);
}

#[test]
fn the_place_tells_a_clean_end_from_a_cut() {
    for (raw, place) in [
        ("", Place::Between),
        ("\r\n", Place::Between),
        ("G", Place::Head),
        ("GET / HTTP/1.1\r\n", Place::Head),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Place::Between),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nG", Place::Head),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", Place::Body),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na", Place::Body),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", Place::Between),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", Place::Body),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Place::Between,
        ),
        ("\n", Place::Refused),
    ] {
        assert_eq!(feed_every_way(raw.as_bytes()).1, place, "{}", raw.escape_debug());
    }
}

/// What was looked at is overwritten with NULs, which a second look would refuse.
#[test]
fn bytes_that_drip_in_are_looked_at_once() {
    let mut reader = RequestReader::default();
    let mut raw = BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for _ in 0..30_000 {
        assert!(reader.read(&mut raw).unwrap().is_none());
        raw.fill(0);
        raw.extend_from_slice(b"a");
    }

    let mut reader = RequestReader::default();
    let mut raw = BytesMut::from("GET / HTTP/1.1\r\nHost: a\r\n");
    for _ in 0..99 {
        assert!(reader.read(&mut raw).unwrap().is_none());
        raw.fill(0);
        raw.extend_from_slice(b"X: a\r\n");
    }

    let mut reader = RequestReader::default();
    let mut raw = BytesMut::new();
    for _ in 0..8192 {
        raw.fill(0);
        raw.extend_from_slice(b"a");
        assert!(reader.read(&mut raw).unwrap().is_none());
    }
    for (start, len) in [("1;", 254), ("0\r\n", 8000)] {
        let mut body = Decoder::chunked(&STRICT);
        let mut raw = BytesMut::from(start);
        while body.next(&mut raw).unwrap().is_some() {}
        for _ in 0..len {
            raw.fill(0);
            raw.extend_from_slice(b"a");
            assert!(body.next(&mut raw).unwrap().is_none());
        }
    }
}
