//! Feeds the checker every way a stream can be cut; tables of bodies, limits and places.

mod head;
mod streams;

use super::*;

/// What became of a stream, however it was cut: neighbouring pieces of a body are one.
#[derive(Debug, Eq, PartialEq)]
enum Step {
    Head(usize, Head),
    Body(usize),
    End,
    Refused(Refusal),
}

/// Feeds the pieces, and says what came of them and where they end.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Step>, Place) {
    let (mut checker, mut raw, mut steps) = (Checker::new(), Vec::new(), Vec::new());
    for piece in pieces {
        raw.extend_from_slice(piece);
        loop {
            let used = match checker.next(&raw) {
                Next::More => break,
                Next::Head { len, head } => {
                    steps.push(Step::Head(len, head));
                    len
                }
                Next::Body { len, .. } => {
                    assert!(len > 0);
                    match steps.last_mut() {
                        Some(Step::Body(body)) => *body += len,
                        _ => steps.push(Step::Body(len)),
                    }
                    len
                }
                Next::End => {
                    steps.push(Step::End);
                    0
                }
                Next::Refuse(refusal) => {
                    assert_eq!(checker.next(&[]), Next::Refuse(refusal), "it forgot");
                    steps.push(Step::Refused(refusal));
                    return (steps, checker.place());
                }
            };
            raw.drain(..used);
        }
    }
    (steps, checker.place())
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
    let mut checker = Checker::new();
    let mut raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    for _ in 0..30_000 {
        assert_eq!(checker.next(&raw), Next::More);
        raw.fill(0);
        raw.push(b'a');
    }

    let mut checker = Checker::new();
    let mut raw = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for _ in 0..99 {
        assert_eq!(checker.next(&raw), Next::More);
        raw.fill(0);
        raw.extend_from_slice(b"X: a\r\n");
    }

    for (start, len) in [("", 8192), ("1;", 254), ("0\r\n", 8000)] {
        let mut checker = Checker::new();
        let mut raw = if start.is_empty() { Vec::new() } else { chunked(start).into_bytes() };
        while let Next::Head { len, .. } | Next::Body { len, .. } = checker.next(&raw) {
            raw.drain(..len);
        }
        for _ in 0..len {
            raw.fill(0);
            raw.push(b'a');
            assert_eq!(checker.next(&raw), Next::More);
        }
    }
}
