//! What a backend does wrong costs its own visitors a 502.

use std::time::Duration;

use ptth_server::lab::Identity;
use ptth_test::peer::*;
use ptth_test::{H1, Lab, Peer, soon};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, timeout};

use super::until;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A gateway with one raw backend, and its requests as they come.
async fn lab() -> (Lab, Peer<DuplexStream>) {
    let mut lab = Lab::default();
    let backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    (lab, backend)
}

/// A visitor whose request has reached the backend, and its stream there.
async fn ask(lab: &mut Lab, backend: &mut Peer<DuplexStream>) -> (H1<DuplexStream>, u32) {
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    let request = soon("the request", backend.request()).await.expect("the tunnel lives");
    (visitor, request.stream)
}

/// The status of the visitor's answer, while the backend is kept reading.
async fn read_amid(visitor: &mut H1<DuplexStream>, backend: &mut Peer<DuplexStream>) -> u16 {
    tokio::select! {
        answer = visitor.answer() => answer.status,
        () = async { while backend.next().await.is_some() {} std::future::pending().await } => 0,
    }
}

/// The backend keeps its end of the connection until the gateway has closed it.
fn attend(lab: &mut Lab, mut backend: Peer<DuplexStream>) {
    lab.spawn(async move { while backend.next().await.is_some() {} });
}

fn ok(stream: u32) -> Vec<u8> {
    [headers(stream, 0, &[(":status", "200")]), data(stream, END_STREAM, b"ok")].concat()
}

/// What a backend may do to one stream: it costs that stream.
fn breaches_of_a_stream(stream: u32) -> Vec<(&'static str, Vec<u8>)> {
    let long = "9".repeat(30);
    let head = |fields: &[(&str, &str)]| headers(stream, END_STREAM, fields);
    let start = |fields: &[(&str, &str)]| headers(stream, 0, fields);
    vec![
        ("status 600", head(&[(":status", "600")])),
        ("status 999", head(&[(":status", "999")])),
        ("no status", head(&[("x", "a")])),
        ("a request's head", head(&get("/"))),
        ("connection", head(&[(":status", "200"), ("connection", "close")])),
        ("transfer-encoding", head(&[(":status", "200"), ("transfer-encoding", "chunked")])),
        ("late status", head(&[("x", "a"), (":status", "200")])),
        ("length of words", head(&[(":status", "200"), ("content-length", "many")])),
        ("length too long to be", head(&[(":status", "200"), ("content-length", &long)])),
        (
            "two lengths",
            start(&[(":status", "200"), ("content-length", "1"), ("content-length", "2")]),
        ),
        ("no body for its length", head(&[(":status", "200"), ("content-length", "5")])),
        ("final 101", head(&[(":status", "101")])),
        (
            "101 before the response",
            [start(&[(":status", "101")]), head(&[(":status", "200")])].concat(),
        ),
        ("1xx with END_STREAM", head(&[(":status", "103")])),
        ("reset", reset(stream, 2)),
        ("reset without a reason", reset(stream, 0)),
        ("reset with a strange reason", reset(stream, 0xdead_beef)),
    ]
}

/// The visitor gets 502, his neighbour on the same tunnel his answer.
#[tokio::test(start_paused = true)]
async fn a_breach_on_one_stream_is_a_502_for_one_visitor() {
    let count = breaches_of_a_stream(1).len();
    for n in 0..count {
        let (mut lab, mut backend) = lab().await;
        let (mut neighbour, kept) = ask(&mut lab, &mut backend).await;
        let (mut visitor, stream) = ask(&mut lab, &mut backend).await;
        let (what, bytes) = breaches_of_a_stream(stream).swap_remove(n);
        backend.send(bytes).await;
        backend.send(ok(kept)).await;
        attend(&mut lab, backend);
        assert_eq!(visitor.answer().await.status, 502, "{what}");
        assert_eq!(neighbour.answer().await.text(), "ok", "{what}");
        assert_eq!(lab.pool.all().len(), 1, "{what}: the tunnel lives");
        until(|| lab.pool.all()[0].in_flight() == 0).await;
    }
}

/// Once the head went out, the visitor sees a broken transfer, never a complete one.
#[tokio::test(start_paused = true)]
async fn a_breach_in_a_body_is_a_broken_transfer() {
    for (what, fields, breach) in [
        (
            "too long",
            &[(":status", "200"), ("content-length", "4")][..],
            Some((0, &b"12345678"[..])),
        ),
        ("too short", &[(":status", "200"), ("content-length", "9")], Some((END_STREAM, b"12345"))),
        ("reset", &[(":status", "200")], None),
        ("reset of a length", &[(":status", "200"), ("content-length", "9")], None),
    ] {
        let (mut lab, mut backend) = lab().await;
        let (mut neighbour, kept) = ask(&mut lab, &mut backend).await;
        let (mut visitor, stream) = ask(&mut lab, &mut backend).await;
        backend.send(headers(stream, 0, fields)).await;
        let bytes = breach.map_or(reset(stream, 0), |(flags, bytes)| data(stream, flags, bytes));
        backend.send(bytes).await;
        backend.send(ok(kept)).await;
        attend(&mut lab, backend);
        let answer = visitor.answer().await;
        assert!(matches!(answer.status, 0 | 502) || !answer.complete, "{what}: {answer:?}");
        assert_eq!(neighbour.answer().await.text(), "ok", "{what}");
        until(|| lab.pool.all()[0].in_flight() == 0).await;
    }
}

/// What a backend may do to its connection: it costs that tunnel.
fn breaches_of_the_tunnel(stream: u32) -> Vec<(&'static str, Vec<u8>)> {
    let promise = [&8_u32.to_be_bytes()[..], &block(&get("/"))].concat();
    let piece = frame(CONTINUATION, 0, stream, &[0; 16_000]);
    vec![
        ("a push", frame(PUSH_PROMISE, END_HEADERS, stream, &promise)),
        ("a head without end", [frame(HEADERS, 0, stream, &[]), piece.repeat(100)].concat()),
        (
            "empty pieces of a head",
            [frame(HEADERS, 0, stream, &[]), frame(CONTINUATION, 0, stream, &[]).repeat(10_000)]
                .concat(),
        ),
        (
            "another frame amid a head",
            [frame(HEADERS, 0, stream, &[]), data(stream, 0, b"x")].concat(),
        ),
        ("a response for a stream that isn't", ok(stream + 100)),
        ("a response for a stream of its own", ok(2)),
        ("a response for no stream", ok(0)),
        ("data before the head", data(stream, 0, b"x")),
        ("uppercase", headers(stream, END_STREAM, &[(":status", "200"), ("X-Upper", "a")])),
        ("LF in a value", headers(stream, END_STREAM, &[(":status", "200"), ("x", "a\nb: c")])),
        ("NUL in a value", headers(stream, END_STREAM, &[(":status", "200"), ("x", "a\0b")])),
        ("blank in a name", headers(stream, END_STREAM, &[(":status", "200"), ("x y", "a")])),
        ("status 099", headers(stream, END_STREAM, &[(":status", "099")])),
        ("status 20", headers(stream, END_STREAM, &[(":status", "20")])),
        ("status 2xx", headers(stream, END_STREAM, &[(":status", "2xx")])),
        ("HPACK that isn't", frame(HEADERS, END_HEADERS, stream, &[0xff; 40])),
        ("a frame too large", frame(DATA, 0, stream, &[0; 20_000])),
        ("more than the window", vec![data(stream, 0, &[0; 16_000]); 1100].concat()),
        ("no credit at all", credit(stream, 0)),
        ("credit beyond 2^31", credit(0, 0x7fff_ffff)),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a window of 2^32", settings(&[(INITIAL_WINDOW_SIZE, u32::MAX)])),
        ("a preface, as if it asked", PREFACE.to_vec()),
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("noise", (0..=255).cycle().take(4000).collect()),
        ("the end", Vec::new()),
    ]
}

/// Its visitors get 502 or a broken transfer; whoever is on another tunnel notices nothing.
#[tokio::test(start_paused = true)]
async fn a_breach_of_the_connection_costs_that_tunnel_alone() {
    let count = breaches_of_the_tunnel(1).len();
    for n in 0..count {
        let (mut lab, mut good) = lab().await;
        let (mut neighbour, kept) = ask(&mut lab, &mut good).await;
        let mut bad = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
        // The least busy tunnel is asked.
        let (mut visitor, stream) = ask(&mut lab, &mut bad).await;
        let (what, bytes) = breaches_of_the_tunnel(stream).swap_remove(n);
        if bytes.is_empty() {
            drop(bad);
        } else {
            lab.spawn(async move {
                bad.polite = false;
                bad.send(bytes).await;
                while bad.next().await.is_some() {}
            });
        }
        let answer = visitor.answer().await;
        assert!(matches!(answer.status, 0 | 502) || !answer.complete, "{what}: {answer:?}");
        good.send(ok(kept)).await;
        assert_eq!(neighbour.answer().await.text(), "ok", "{what}");
        let pool = lab.pool.clone();
        timeout(Duration::from_secs(60), pool.until(|tunnels| tunnels.len() == 1))
            .await
            .unwrap_or_else(|_| panic!("{what}: the tunnel stays"));
        let (mut visitor, stream) = ask(&mut lab, &mut good).await;
        good.send(ok(stream)).await;
        assert_eq!(visitor.answer().await.text(), "ok", "{what}");
    }
}

/// Dropped at a threshold; what is rarer is forgiven.
#[tokio::test(start_paused = true)]
async fn a_backend_that_breaks_the_protocol_again_and_again_is_dropped() {
    let bad_head = |stream| headers(stream, END_STREAM, &[(":status", "200"), ("connection", "x")]);
    let bad_body = |stream| {
        let head = headers(stream, 0, &[(":status", "200"), ("content-length", "1")]);
        [head, data(stream, END_STREAM, b"too long")].concat()
    };
    let breaches: [&dyn Fn(u32) -> Vec<u8>; 2] = [&bad_head, &bad_body];
    for breach in breaches {
        let (mut lab, mut backend) = lab().await;
        let pool = lab.pool.clone();
        for n in 0.. {
            let (mut visitor, stream) = ask(&mut lab, &mut backend).await;
            backend.send(breach(stream)).await;
            assert_eq!(read_amid(&mut visitor, &mut backend).await, 502);
            if pool.all().is_empty() {
                break;
            }
            assert!(n < 150, "it stays");
        }
        backend.end().await;
    }
}

/// What comes for a stream that has ended is nobody's, and harms nobody.
#[tokio::test(start_paused = true)]
async fn frames_after_a_streams_end_harm_nobody() {
    let (mut lab, mut backend) = lab().await;
    let (mut neighbour, kept) = ask(&mut lab, &mut backend).await;
    let (mut visitor, stream) = ask(&mut lab, &mut backend).await;
    backend.send(ok(stream)).await;
    assert_eq!(visitor.answer().await.text(), "ok");
    for late in [data(stream, 0, b"x"), ok(stream), reset(stream, 0), credit(stream, 1)] {
        backend.send(late.repeat(50)).await;
    }
    backend.send(ok(kept)).await;
    attend(&mut lab, backend);
    assert_eq!(neighbour.answer().await.text(), "ok");
}

/// 1xx responses, 10 before the final one; an eleventh costs its visitor the response.
#[tokio::test(start_paused = true)]
async fn of_a_flood_of_early_hints_ten_cross() {
    let (mut lab, mut backend) = lab().await;
    for (count, status) in [(10, "200"), (11, "502"), (5000, "502")] {
        let (mut neighbour, kept) = ask(&mut lab, &mut backend).await;
        let mut visitor = lab.h2(&[]).await;
        visitor.send(headers(1, END_STREAM, &get("/"))).await;
        let stream = backend.request().await.unwrap().stream;
        let hint = headers(stream, 0, &[(":status", "103"), ("link", "</a>")]);
        backend.send([hint.repeat(count), ok(stream), ok(kept)].concat()).await;
        let mut statuses = Vec::new();
        while let Some(frame) = soon("the response", visitor.next()).await {
            if frame.kind == HEADERS {
                statuses.push(frame.field(":status"));
            }
            if frame.is_end() {
                break;
            }
        }
        assert_eq!((statuses.len(), statuses[10].as_str()), (11, status), "{statuses:?}");
        assert_eq!(read_amid(&mut neighbour, &mut backend).await, 200, "{count}");
        until(|| lab.pool.all()[0].in_flight() == 0).await;
    }
}

/// Settings that allow no streams: the visitor is told to come again, and gets through once they do.
#[tokio::test(start_paused = true)]
async fn a_backend_that_allows_no_streams_is_a_503_after_five_seconds() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 0)]).await;
    let start = Instant::now();
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    let answer = visitor.answer().await;
    assert_eq!((answer.status, start.elapsed().as_secs()), (503, 5));
    assert_eq!(answer.field("retry-after"), "1");
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    sleep(Duration::from_secs(1)).await;
    backend.send(settings(&[(MAX_CONCURRENT_STREAMS, 1)])).await;
    let request = soon("the request", backend.request()).await.expect("the tunnel lives");
    backend.send(ok(request.stream)).await;
    attend(&mut lab, backend);
    assert_eq!(visitor.answer().await.text(), "ok");
}

/// A backend that lowers what it allowed is taken at its word.
#[tokio::test(start_paused = true)]
async fn a_lowered_stream_limit_is_kept() {
    let (mut lab, mut backend) = lab().await;
    let (_first, _) = ask(&mut lab, &mut backend).await;
    backend.send(settings(&[(MAX_CONCURRENT_STREAMS, 1)])).await;
    sleep(Duration::from_secs(1)).await;
    let mut second = lab.h1();
    second.send(GET).await;
    attend(&mut lab, backend);
    assert_eq!(second.answer().await.status, 503);
}

/// Resets and refusals in a loop: the request is tried a few times and then is a 502, never a hang.
#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_every_stream_is_a_502() {
    let (mut lab, mut backend) = lab().await;
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    let (sender, mut tries) = tokio::sync::mpsc::unbounded_channel();
    lab.spawn(async move {
        while let Some(request) = backend.request().await {
            let _ = sender.send(request.stream);
            // REFUSED_STREAM
            backend.send(reset(request.stream, 7)).await;
        }
    });
    assert_eq!(visitor.answer().await.status, 502);
    let mut count = 0;
    while tries.try_recv().is_ok() {
        count += 1;
    }
    assert!((1..=4).contains(&count), "{count} tries");
}

/// Backends that come, say GOAWAY and come again.
#[tokio::test(start_paused = true)]
async fn goaways_in_a_loop_cost_a_502_at_most() {
    let mut lab = Lab::default();
    let mut good = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    let (mut neighbour, kept) = ask(&mut lab, &mut good).await;
    for _ in 0..50 {
        let mut bad = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
        let mut visitor = lab.h1();
        visitor.send(GET).await;
        // The least busy one is asked, and says that it did nothing: the other one is tried.
        bad.request().await.expect("the request");
        bad.send(goaway(0, 0).repeat(10)).await;
        lab.spawn(async move { while bad.next().await.is_some() {} });
        let request = soon("the second try", good.request()).await.expect("the tunnel lives");
        good.send(ok(request.stream)).await;
        assert_eq!(visitor.answer().await.text(), "ok");
    }
    good.send(ok(kept)).await;
    assert_eq!(neighbour.answer().await.text(), "ok");
}

/// A backend that takes its socket's bytes and never says a word more.
#[tokio::test(start_paused = true)]
async fn a_backend_that_falls_silent_is_dead_within_25_seconds() {
    let (mut lab, mut backend) = lab().await;
    let (mut visitor, _) = ask(&mut lab, &mut backend).await;
    let start = Instant::now();
    backend.polite = false;
    lab.spawn(async move { while backend.any().await.is_some() {} });
    assert_eq!(visitor.answer().await.status, 502);
    assert!(start.elapsed() <= Duration::from_secs(25), "{:?}", start.elapsed());
    assert!(lab.pool.all().is_empty());
}

/// Silence after the TLS handshake never becomes a tunnel.
#[tokio::test(start_paused = true)]
async fn a_backend_that_never_speaks_http2_never_gets_a_request() {
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("SETTINGS without a PONG", settings(&[])),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ] {
        let mut lab = Lab::default();
        let mut socket = lab.tunnel(Identity::default());
        socket.write_all(&bytes).await.unwrap();
        let start = Instant::now();
        let mut visitor = lab.h1();
        visitor.send(GET).await;
        assert_eq!(visitor.answer().await.status, 502, "{what}");
        let mut peer = Peer::raw(socket);
        timeout(Duration::from_secs(100), async { while peer.any().await.is_some() {} })
            .await
            .expect(what);
        assert!(start.elapsed() <= Duration::from_secs(11), "{what}: {:?}", start.elapsed());
    }
}
