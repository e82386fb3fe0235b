//! Malformed, slow and too large requests over HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use ptth_client::Body;
use ptth_client::demo::Demo;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Lab, Peer, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};

use super::{until, witness};

type Fields = &'static [(&'static str, &'static str)];

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "https");
const A: (&str, &str) = (":authority", "example.test");
const P: (&str, &str) = (":path", "/bad");

/// Malformed heads that h2 finds while it decodes them, and for which it ends the connection, as RFC 9113
/// §5.4.1 lets it: siblings are the same visitor's.
const UNREADABLE: &[Fields] = &[
    &[M, S, A, P, ("X-Upper", "a")],
    &[M, S, A, P, ("x y", "a")],
    &[M, S, A, P, ("x:y", "a")],
    &[M, S, A, P, ("", "a")],
    &[M, S, A, P, ("x\r\n", "a")],
    &[M, S, A, P, ("x\0", "a")],
    &[M, S, A, P, ("x", "a\r\nb: c")],
    &[M, S, A, P, ("x", "a\nb")],
    &[M, S, A, P, ("x", "a\rb")],
    &[M, S, A, P, ("x", "a\0b")],
    &[M, S, A, P, (":unknown", "a")],
    &[M, S, A, P, (":host", "a")],
    &[(":method", ""), S, A, P],
    &[(":method", "G T"), S, A, P],
    &[(":method", "GET / HTTP/1.1\r\nx: "), S, A, P],
];

/// Malformed heads that end their stream alone.
const MALFORMED: &[Fields] = &[
    &[M, S, A, P, ("x", " a")],
    &[M, S, A, P, ("x", "a ")],
    &[M, S, A, P, ("x", "\ta")],
    &[M, S, A, P, ("connection", "close")],
    &[M, S, A, P, ("connection", "x")],
    &[M, S, A, P, ("keep-alive", "1")],
    &[M, S, A, P, ("proxy-connection", "close")],
    &[M, S, A, P, ("transfer-encoding", "chunked")],
    &[M, S, A, P, ("upgrade", "h2c")],
    &[M, S, A, P, ("te", "gzip")],
    &[M, S, A, P, ("te", "trailers, gzip")],
    &[M, S, A, (":path", "")],
    &[M, S, A, (":path", "bad")],
    &[M, S, A, (":path", "/b ad")],
    &[M, S, A, (":path", " /bad")],
    &[M, S, A, (":path", "/bad HTTP/1.1\r\nHost: b\r\n\r\n")],
    &[M, S, A, (":path", "/bad\0")],
    &[M, S, A, (":path", "https://example.test/bad")],
    &[M, S, A, (":path", "*")],
    &[M, S, A],
    &[M, S, A, P, P],
    &[M, M, S, A, P],
    &[M, S, S, A, P],
    &[M, S, A, A, P],
    &[M, S, A, P, (":status", "200")],
    &[M, S, A, ("x", "a"), P],
    &[("x", "a"), M, S, A, P],
    &[S, A, P],
    &[M, A, P],
    &[M, S, P],
    &[M, (":scheme", "ftp"), A, P],
    &[M, (":scheme", ""), A, P],
    &[M, (":scheme", "https://evil/?"), A, P],
    &[M, S, (":authority", ""), P],
    &[M, S, (":authority", "user@example.test"), P],
    &[M, S, (":authority", "example.test/x"), P],
    &[M, S, (":authority", "example.test x"), P],
    &[M, S, (":authority", "example.test:99999"), P],
    &[M, S, (":authority", "a,b"), P],
    &[M, S, A, P, ("host", "other.test")],
    &[M, S, A, P, ("host", "example.test"), ("host", "example.test")],
    &[M, S, P, ("host", "user@example.test")],
    &[M, S, P, ("host", "")],
    &[M, S, A, P, ("host", "")],
    &[M, S, A, P, ("content-length", "1"), ("content-length", "1")],
    &[M, S, A, P, ("content-length", "1"), ("content-length", "2")],
    &[M, S, A, P, ("content-length", "1, 1")],
    &[M, S, A, P, ("content-length", "+1")],
    &[M, S, A, P, ("content-length", "-1")],
    &[M, S, A, P, ("content-length", "0x1")],
    &[M, S, A, P, ("content-length", "")],
    &[M, S, A, P, ("content-length", "99999999999999999999")],
    // END_STREAM is on this frame.
    &[M, S, A, P, ("content-length", "5")],
    &[(":method", "CONNECT"), S, A, P],
    &[(":method", "CONNECT"), (":protocol", "websocket"), A],
    &[M, (":protocol", "websocket"), S, A, P],
];

/// A visitor with a stream under way, whose answer waits for `release`.
async fn with_sibling(lab: &mut Lab) -> Peer<DuplexStream> {
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, END_STREAM, &get("/hold"))).await;
    until(|| lab.pool.all()[0].in_flight() == 1).await;
    visitor
}

/// Refused (400, or a stream error), nothing reaches the backend, and the sibling lives.
#[tokio::test(start_paused = true)]
async fn a_malformed_head_is_a_stream_error_and_its_siblings_live() {
    for fields in MALFORMED {
        let (mut lab, seen, release) = witness().await;
        let mut visitor = with_sibling(&mut lab).await;
        visitor.send(headers(3, END_STREAM, fields)).await;
        let outcome = visitor.outcome(3).await;
        let refused = matches!(outcome, Outcome::Reset(0, 1) | Outcome::Response(400, _));
        assert!(refused, "{fields:?}: {outcome:?}");
        visitor.send(headers(5, END_STREAM, &get("/next"))).await;
        assert_eq!(visitor.outcome(5).await, Outcome::Response(200, b"ok".to_vec()), "{fields:?}");
        release.send(true).unwrap();
        assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"ok".to_vec()), "{fields:?}");
        assert_eq!(seen.all(), ["/hold", "0 whole", "/next", "0 whole"], "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_head_reaches_nobody() {
    let (mut lab, seen, _release) = witness().await;
    for fields in UNREADABLE {
        let mut visitor = lab.h2(&[]).await;
        visitor.send(headers(1, END_STREAM, fields)).await;
        let outcome = visitor.outcome(1).await;
        assert!(
            matches!(outcome, Outcome::Reset(0, 1) | Outcome::Closed(Some(1))),
            "{fields:?}: {outcome:?}"
        );
        assert_eq!(seen.all(), [""; 0], "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn protocols_that_nobody_offers_are_refused() {
    let (mut lab, seen, release) = witness().await;
    let mut visitor = with_sibling(&mut lab).await;
    for (stream, protocol) in
        [(3, "ptth"), (5, "connect-udp"), (7, "WebSocket"), (9, "h2c"), (11, "")]
    {
        let fields = [(":method", "CONNECT"), (":protocol", protocol), S, A, P];
        visitor.send(headers(stream, 0, &fields)).await;
        let outcome = visitor.outcome(stream).await;
        let refused = matches!(outcome, Outcome::Response(501 | 400, _) | Outcome::Reset(..));
        assert!(refused, "{protocol:?}: {outcome:?}");
    }
    visitor.send(headers(13, END_STREAM, &[(":method", "CONNECT"), (":authority", "a:443")])).await;
    assert!(matches!(visitor.outcome(13).await, Outcome::Response(405, _)));
    release.send(true).unwrap();
    assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"ok".to_vec()));
    assert_eq!(seen.all(), ["/hold", "0 whole"]);
}

/// A length that lies is found while the body goes on, so the backend sees a body cut short.
#[tokio::test(start_paused = true)]
async fn a_content_length_that_lies_breaks_the_body_off() {
    for (length, body, how) in [("5", "12345678", "too long"), ("8", "12345", "too short")] {
        let (mut lab, seen, release) = witness().await;
        let mut visitor = with_sibling(&mut lab).await;
        let fields = [(":method", "POST"), S, A, P, ("content-length", length)];
        visitor.send(headers(3, 0, &fields)).await;
        visitor.send(data(3, END_STREAM, body.as_bytes())).await;
        let outcome = visitor.outcome(3).await;
        assert!(
            matches!(outcome, Outcome::Reset(0, 1) | Outcome::Response(400, _)),
            "{how}: {outcome:?}"
        );
        release.send(true).unwrap();
        assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"ok".to_vec()), "{how}");
        until(|| lab.pool.all()[0].in_flight() == 0).await;
        assert!(
            !seen.all()[2..].iter().any(|what| what.ends_with("whole")),
            "{how}: {:?}",
            seen.all()
        );
    }
}

/// A trailer decides nothing any more. h2 itself drops the pseudo-fields.
#[tokio::test(start_paused = true)]
async fn fields_that_frame_or_route_do_not_cross_in_trailers() {
    let (mut lab, seen, _release) = witness().await;
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, 0, &request("POST", "/bad"))).await;
    visitor.send(data(1, 0, b"hello")).await;
    let trailers = [
        (":path", "/other"),
        ("host", "b"),
        ("content-length", "7"),
        ("x-forwarded-for", "1"),
        ("2ptth-request-id", "1"),
        ("sum", "9"),
    ];
    visitor.send(headers(1, END_STREAM, &trailers)).await;
    assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"ok".to_vec()));
    assert_eq!(seen.all(), ["/bad", "5 whole", "trailer sum"]);
}

/// What HTTP/1.1 refuses doesn't come by HTTP/2 either: origins read 8-bit bytes in several ways.
#[tokio::test(start_paused = true)]
async fn a_target_of_8_bit_bytes_is_refused() {
    let mut lab = Lab::serving(Demo).await;
    let mut visitor = lab.h2(&[]).await;
    for (stream, path, status) in
        [(1, "/gr\u{fc}n", 400), (3, "/gr%FCn", 200), (5, "/?\u{fc}", 400)]
    {
        visitor.send(headers(stream, END_STREAM, &get(path))).await;
        let outcome = visitor.outcome(stream).await;
        assert!(matches!(outcome, Outcome::Response(it, _) if it == status), "{path}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn heads_over_the_limits_get_414_and_431_on_their_stream() {
    let (mut lab, seen, release) = witness().await;
    let mut visitor = with_sibling(&mut lab).await;
    let long = "/".repeat(9000);
    visitor.send(headers(3, END_STREAM, &get(&long))).await;
    assert!(matches!(visitor.outcome(3).await, Outcome::Response(414, _)));
    let many: Vec<_> = get("/").into_iter().chain([("a", "b"); 101]).collect();
    visitor.send(headers(5, END_STREAM, &many)).await;
    assert!(matches!(visitor.outcome(5).await, Outcome::Response(431, _)));
    // In frames of the size that is allowed (RFC 9113 §4.2), and with a page that says what is wrong.
    let value = "x".repeat(4000);
    for (stream, fields) in [(7, 10), (9, 50)] {
        let names: Vec<_> = (0..fields).map(|n| format!("a{n}")).collect();
        let huge = names.iter().map(|name| (name.as_str(), value.as_str()));
        let huge: Vec<_> = get("/").into_iter().chain(huge).collect();
        visitor.send(in_pieces(stream, &block(&huge))).await;
        match visitor.outcome(stream).await {
            Outcome::Response(431, page) => assert!(page.starts_with(b"431 "), "{page:?}"),
            outcome => panic!("{fields} fields: {outcome:?}"),
        }
    }
    release.send(true).unwrap();
    assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"ok".to_vec()));
    assert_eq!(seen.all(), ["/hold", "0 whole"]);
}

/// A request's block in HEADERS and CONTINUATION.
fn in_pieces(stream: u32, block: &[u8]) -> Vec<u8> {
    let pieces: Vec<_> = block.chunks(16_000).collect();
    let mut bytes = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        let first = if n == 0 { END_STREAM } else { 0 };
        let last = if n + 1 == pieces.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, first | last, stream, piece));
    }
    bytes
}

/// How long the gateway keeps a connection after `bytes`.
async fn lasts(lab: &mut Lab, bytes: &[u8]) -> u64 {
    let mut socket = lab.h2_socket();
    let start = Instant::now();
    socket.write_all(bytes).await.expect("room");
    let mut read = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(1000), socket.read_to_end(&mut read));
    ended.await.expect("the gateway closes").expect("an orderly end");
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn silence_at_any_point_meets_its_deadline() {
    let (mut lab, _, _release) = witness().await;
    assert_eq!(lasts(&mut lab, b"").await, 10, "no preface");
    assert_eq!(lasts(&mut lab, &PREFACE[..10]).await, 10, "half a preface");
    assert!(lasts(&mut lab, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await <= 10, "another protocol");
    let hello = [PREFACE, &settings(&[])].concat();
    let after = lasts(&mut lab, &hello).await;
    assert!((75..=78).contains(&after), "no request: {after} s");
    let half = [&hello[..], &frame(HEADERS, END_STREAM, 1, &block(&get("/")))].concat();
    assert_eq!(lasts(&mut lab, &half).await, 10, "half a head");
    let whole = [&hello[..], &headers(1, END_STREAM, &get("/"))].concat();
    assert_eq!(lasts(&mut lab, &whole[..whole.len() - 1]).await, 10, "a head but for a byte");
    let done = [&hello[..], &headers(1, END_STREAM, &get("/"))].concat();
    let after = lasts(&mut lab, &done).await;
    assert!((75..=78).contains(&after), "idle: {after} s");
}

/// Not of its streams' lives does an idle connection make a use, if none is open.
#[tokio::test(start_paused = true)]
async fn pings_do_not_keep_an_idle_connection() {
    let (mut lab, _, _release) = witness().await;
    let mut visitor = lab.h2(&[]).await;
    let start = Instant::now();
    while visitor.send(frame(PING, 0, 0, &[0; 8])).await {
        sleep(Duration::from_secs(5)).await;
        assert!(start.elapsed() < Duration::from_secs(90), "kept");
    }
}

/// 240 B/s after 30 s.
#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_and_a_slow_one_is_not() {
    let (mut lab, seen, _release) = witness().await;
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, 0, &request("POST", "/slow"))).await;
    visitor.send(headers(3, 0, &request("POST", "/drip"))).await;
    for second in 0..60 {
        visitor.send(data(1, 0, &[b'x'; 300])).await;
        if second < 30 {
            visitor.send(data(3, 0, &[b'x'; 100])).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    visitor.send(data(1, END_STREAM, b"")).await;
    let outcome = visitor.outcome(3).await;
    assert!(matches!(outcome, Outcome::Response(408, _) | Outcome::Reset(408, _)), "{outcome:?}");
    visitor.send(headers(5, END_STREAM, &get("/next"))).await;
    assert_eq!(visitor.outcome(5).await, Outcome::Response(200, b"ok".to_vec()));
    assert!(seen.all().contains(&"18000 whole".to_owned()), "{:?}", seen.all());
}

/// A window that stays shut for 60 s. The sibling's stays open.
#[tokio::test(start_paused = true)]
async fn a_window_that_stays_shut_costs_its_stream() {
    let mut lab = Lab::serving(Function(|_: Request<Body>| async {
        Response::new(Full::new(Bytes::from(vec![7; 1 << 20])))
    }))
    .await;
    let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    let start = Instant::now();
    visitor.send(headers(1, END_STREAM, &get("/"))).await;
    let outcome = tokio::time::timeout(Duration::from_secs(600), visitor.next_reset(1)).await;
    assert!(outcome.expect("reset"), "a reset");
    let after = start.elapsed().as_secs();
    assert!((60..=62).contains(&after), "{after} s");
    until(|| lab.pool.all()[0].in_flight() == 0).await;
    assert_eq!(lab.budget.held(), 0);
    visitor.send(settings(&[(INITIAL_WINDOW_SIZE, 1 << 21)])).await;
    visitor.send(credit(0, 1 << 21)).await;
    visitor.send(headers(3, END_STREAM, &get("/"))).await;
    assert!(
        matches!(visitor.outcome(3).await, Outcome::Response(200, body) if body.len() == 1 << 20)
    );
}

/// Half-open. Who closes his half of an HTTP/2 connection takes all back.
#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_ends_with_its_streams() {
    let (mut lab, _, _release) = witness().await;
    let mut visitor = with_sibling(&mut lab).await;
    visitor.io.shutdown().await.unwrap();
    until(|| lab.pool.all()[0].in_flight() == 0).await;
}

/// RFC 8441.
#[tokio::test(start_paused = true)]
async fn a_websocket_over_http2_may_be_idle_for_ten_minutes() {
    let mut lab = Lab::serving(Demo).await;
    let mut visitor = lab.h2(&[]).await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        S,
        A,
        (":path", "/"),
        ("sec-websocket-version", "13"),
    ];
    visitor.send(headers(1, 0, &fields)).await;
    let head = soon("the head", visitor.request()).await.unwrap();
    assert_eq!(head.field(":status"), "200");
    for _ in 0..2 {
        sleep(Duration::from_secs(600)).await;
        visitor.send(data(1, 0, &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])).await;
        let echo = soon("the echo", async {
            loop {
                let frame = visitor.next().await.expect("the connection");
                if frame.kind == DATA {
                    return frame.payload;
                }
            }
        });
        assert_eq!(echo.await, [0x81, 2, b'h', b'i']);
    }
}
