//! What is said of bytes: a conversation, every type of frame, and bytes that no peer should send.

use std::io;
use std::sync::mpsc::channel;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::h2::cork::cork;
use crate::h2::frames::{CONTINUATION, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::h2::goaway;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Fields as literals without indexing.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    block
}

/// A tap of the gateway's end of a tunnel, and what is said of it; each piece of bytes a second after the last one.
struct Bench {
    tap: Option<Tap>,
    items: Receiver<Item>,
    teller: Teller,
    seconds: u64,
    said: String,
}

impl Bench {
    fn new(bodies: bool) -> Self {
        let (queue, items) = sync_channel(QUEUE);
        let (tunnels, visitors, connections) = (true, true, AtomicU64::default());
        let inner = Arc::new(Inner { queue, tunnels, visitors, bodies, connections });
        let (version, label) = (Some(ProtocolVersion::TLSv1_3), Some(crate::alpn::PTTH));
        let opening = || Opening::new(false, "192.0.2.1:4711", version, label);
        let tap = Explain(Some(inner)).tap(What::Tunnel, opening);
        let teller = Teller::new(Instant::now(), false, bodies);
        Self { tap, items, teller, seconds: 0, said: String::new() }
    }

    /// The gateway sends these bytes, or else the backend.
    fn pass(&mut self, asker: bool, bytes: &[u8]) {
        let tap = self.tap.as_mut().unwrap();
        tap.see(asker, bytes);
        self.hear();
    }

    fn hear(&mut self) {
        self.seconds += 1;
        let (begun, seconds) = (self.teller.begun, self.seconds);
        for item in self.items.try_iter() {
            let Item::Seen(mut seen) = item else { continue };
            seen.at = begun + Duration::from_secs(seconds);
            self.teller.take(seen, &mut |line| {
                self.said.push_str(line);
                self.said.push('\n');
            });
        }
    }

    /// The whole text, of a connection that has ended.
    fn end(mut self) -> String {
        self.tap = None;
        self.hear();
        self.said
    }
}

/// One exchange of a tunnel, from the preface to GOAWAY.
#[test]
fn a_conversation_is_told_frame_by_frame_in_two_columns() {
    let mut bench = Bench::new(false);
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 8, 0, 99, 0, 0, 0, 1]);
    bench.pass(true, &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    bench.pass(false, &[&settings[..], &frame(SETTINGS, 1, 0, &[])].concat());
    bench.pass(true, &frame(SETTINGS, 1, 0, &[]));
    bench.pass(true, &frame(PING, 0, 0, b"12345678"));
    bench.pass(false, &frame(PING, 1, 0, b"12345678"));
    let secret = [
        (":method", "POST"),
        (":path", "/hook?key=secret"),
        ("authorization", "Bearer secret"),
        ("cookie", "secret"),
        ("x-webhooktunnel-id", "secret"),
        ("x-odd", "a\u{1b}[2Jb"),
    ];
    bench.pass(true, &frame(HEADERS, END_HEADERS, 1, &fields(&secret)));
    bench.pass(true, &frame(DATA, 0, 1, b"secret!!"));
    bench.pass(false, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]));
    bench.pass(true, &frame(DATA, END_STREAM, 1, b"x"));
    let answer = fields(&[(":status", "200"), ("set-cookie", "secret")]);
    bench.pass(false, &frame(HEADERS, 0, 1, &answer[..5]));
    bench.pass(false, &frame(CONTINUATION, END_HEADERS, 1, &answer[5..]));
    bench.pass(false, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    bench.pass(true, &goaway::frame(goaway::Why::Stopping, "bye"));
    let said = bench.end();
    assert!(!said.contains("secret") && !said.contains('\u{1b}'), "{said}");
    assert_eq!(said, include_str!("golden.txt"), "{said}");
}

/// Every type, in every cut, with and without padding and priority; twice, since the first has the sentence.
#[test]
fn frames_of_every_type_are_told_however_the_bytes_are_cut() {
    let head = fields(&[(":status", "204")]);
    let padded = [&[3][..], &[0, 0, 0, 0, 7], &head, &[0; 3]].concat();
    let bytes = [
        frame(DATA, 8 | END_STREAM, 1, &[2, b'o', b'k', 0, 0]),
        frame(HEADERS, END_HEADERS | 8 | 32, 1, &padded),
        frame(2, 0, 3, &[0; 5]),
        frame(RST_STREAM, 0, 3, &[0, 0, 0, 7]),
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(5, END_HEADERS, 1, &[0, 0, 0, 2]),
        frame(PING, 0, 0, &[1; 8]),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 1]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 5]),
        frame(CONTINUATION, END_HEADERS, 1, &head),
        frame(16, 0, 0, &[0, 0, 0, 1, b'u']),
        frame(42, 0, 0, b"?"),
    ]
    .concat();
    for size in [1, 2, 3, 7, 10, bytes.len()] {
        let mut bench = Bench::new(true);
        for piece in bytes.chunks(size) {
            bench.pass(false, piece);
        }
        let said = bench.end();
        for line in [
            "DATA stream=1 2 bytes END_STREAM",
            "\"ok\"",
            ":status: 204",
            "PRIORITY stream=3 5 bytes",
            "RST_STREAM stream=3 REFUSED_STREAM",
            "MAX_CONCURRENT_STREAMS = 100",
            "PUSH_PROMISE stream=1 4 bytes",
            "PING",
            "GOAWAY PROTOCOL_ERROR, last stream 5",
            "WINDOW_UPDATE connection +5: 65535 → 65540",
            "CONTINUATION stream=1",
            "PRIORITY_UPDATE 5 bytes",
            "frame of type 0x2a 1 bytes",
        ] {
            assert!(
                said.lines().any(|it| it.ends_with(line) || it.contains(line)),
                "{line}: {said}"
            );
        }
    }
}

/// A request's window is used up; the backend grants more, and the wait is told.
#[test]
fn a_sender_that_waits_for_a_window_is_told_with_its_time() {
    let mut bench = Bench::new(false);
    bench.pass(true, PREFACE);
    bench.pass(false, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 3]));
    bench.pass(true, &frame(SETTINGS, 1, 0, &[]));
    bench.pass(true, &frame(HEADERS, END_HEADERS, 57, &fields(&[(":method", "PUT")])));
    bench.pass(true, &frame(DATA, 0, 57, b"abc"));
    bench.pass(false, &frame(WINDOW_UPDATE, 0, 57, &[0, 0, 0, 4]));
    bench.pass(true, &frame(DATA, END_STREAM, 57, b"def"));
    let said = bench.end();
    assert!(said.contains("stream 57 waited 2.0 s for the backend's window\n"), "{said}");
    assert!(said.contains("WINDOW_UPDATE stream=57 +4: 0 → 4\n"), "{said}");
}

/// Lengths that lie, types that don't fit, fields that aren't any: a line for each, no panic, no memory.
#[test]
fn hostile_bytes_are_told_as_such_and_end_nothing() {
    let huge = [0xff, 0xff, 0xff, DATA, 8, 0, 0, 0, 1, 255];
    let bomb = [&[0x40, 1, b'a', 127, 0xa1, 0x1e][..], &[b'b'; 4000], &[0xbe; 12_000]].concat();
    let cases: [(Vec<u8>, &str); 9] = [
        (frame(RST_STREAM, 0, 1, &[0; 3]), "RST_STREAM stream=1 of 3 bytes, which is malformed"),
        (frame(SETTINGS, 0, 0, &[0; 7]), "SETTINGS of 7 bytes, which is malformed"),
        (frame(PING, 0, 0, &[0; 9]), "PING of 9 bytes, which is malformed"),
        (frame(WINDOW_UPDATE, 0, 1, &[]), "WINDOW_UPDATE stream=1 of 0 bytes"),
        (frame(DATA, 8, 1, &[9, 0]), "DATA stream=1 of 2 bytes, which is malformed"),
        (frame(HEADERS, 8 | 4, 1, &[9, 0]), "HEADERS stream=1 of 2 bytes, which is malformed"),
        (frame(HEADERS, 4, 1, &[0x40, 0x7f]), "(the rest can't be read: "),
        (frame(HEADERS, 4, 1, &[0x3f, 0xff, 0xff, 0xff, 0x0f]), "(the rest can't be read: "),
        (frame(HEADERS, 4, 1, &bomb), "(11901 more fields)"),
    ];
    for (bytes, expected) in cases {
        let mut bench = Bench::new(true);
        bench.pass(false, &bytes);
        bench.pass(false, &frame(PING, 0, 0, &[0; 8]));
        let said = bench.end();
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.contains("─ PING\n"), "it goes on: {said}");
        assert!(said.len() < 64 * 1024, "{} bytes", said.len());
    }
    let mut bench = Bench::new(true);
    bench.pass(false, &huge);
    assert!(bench.tap.as_ref().is_some_and(|tap| tap.held() < 16), "it waits for the rest");
    // Fields without an end: what is kept has one.
    for _ in 0..100 {
        let mut bench = Bench::new(false);
        bench.pass(false, &frame(HEADERS, 0, 1, &[0; 16_000]));
        for _ in 0..20 {
            bench.pass(false, &frame(CONTINUATION, 0, 1, &[0; 16_000]));
        }
        bench.pass(false, &frame(CONTINUATION, END_HEADERS, 1, &[]));
        assert!(bench.end().contains("its fields can't be read"));
    }
}

/// So many lines that no reader follows: they are counted.
#[test]
fn a_second_shows_so_many_frames_and_counts_the_rest() {
    let mut bench = Bench::new(false);
    let pings: Vec<u8> = (0..600).flat_map(|_| frame(PING, 0, 0, &[0; 8])).collect();
    bench.pass(false, &pings);
    bench.pass(false, &frame(PING, 0, 0, &[0; 8]));
    let said = bench.end();
    assert_eq!(said.matches("─ PING\n").count(), 501);
    assert!(said.contains("(100 frames more than are shown in a second)\n"), "{said}");
}

/// What passes while the queue is full is lost; what depends on it isn't guessed.
#[test]
fn frames_without_room_are_counted_and_what_depends_on_them_is_unknown() {
    let mut bench = Bench::new(false);
    for _ in 0..QUEUE + 5 {
        bench.tap.as_mut().unwrap().see(true, &[]);
        bench.tap.as_mut().unwrap().see(false, &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    }
    bench.hear();
    bench.pass(false, &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
    bench.pass(false, &frame(HEADERS, 4, 1, &fields(&[(":status", "200")])));
    let said = bench.end();
    assert!(said.contains("(5 frames passed too fast to be seen;"), "{said}");
    assert!(said.contains("WINDOW_UPDATE connection +1\n"), "{said}");
    assert!(said.contains("its fields can't be read"), "{said}");
}

/// A terminal that takes nothing.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_terminal_that_takes_nothing_delays_no_connection() {
    let (go, wait) = channel();
    let settings = Settings { tunnels: true, ..Settings::default() };
    let explain = Explain::to(Stuck(wait), settings, false);
    let opening = || Opening::new(true, "192.0.2.1:443", None, None);
    assert!(explain.tap(What::Visitor, opening).is_none(), "visitors aren't asked for");
    let tap = explain.tap(What::Tunnel, opening);
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let (mut io, driver) = cork(near, tap);
    let pings: Vec<u8> = (0..64).flat_map(|_| frame(PING, 0, 0, &[0; 8])).collect();
    let mut read = vec![0; pings.len()];
    for _ in 0..200 {
        far.write_all(&pings).await.unwrap();
        io.read_exact(&mut read).await.unwrap();
        io.write_all(&pings).await.unwrap();
        std::future::poll_fn(|cx| driver.poll_flush(cx)).await.unwrap();
        far.read_exact(&mut read).await.unwrap();
    }
    assert_eq!(read, pings);
    drop(go);
}

#[test]
fn what_is_off_has_no_tap_and_what_is_asked_for_has_one() {
    assert_eq!(size_of::<Explain>(), size_of::<usize>());
    let none = || -> Opening { panic!("it is off") };
    assert!(Explain::default().tap(What::Tunnel, none).is_none());
    assert!(Explain::to(io::sink(), Settings::default(), true).tap(What::Visitor, none).is_none());
}
