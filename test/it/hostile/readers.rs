//! Visitors who stop reading, and visitors who leave, by the hundred.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use ptth_client::Body;
use ptth_link::limits::BODY_BUDGET;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Backend, Chunks, Lab, Peer, ServerProcess, connect_to};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep};

use super::{ask, until, up, visitor};

/// A gigabyte, in chunks of one size.
fn gigabyte(size: usize) -> Chunks {
    Chunks::of(std::iter::repeat_n(Bytes::from(vec![7; size]), (1 << 30) / size))
}

/// A gigabyte of large or of tiny chunks at `/large` and `/tiny`, which may be an upgrade's; else "ok".
async fn gateway() -> (ServerProcess, Backend) {
    let gateway = ServerProcess::start(&[]);
    let backend = up(
        &gateway,
        Function(|request: Request<Body>| async move {
            Response::new(match request.uri().path() {
                "/large" => gigabyte(64 * 1024),
                "/tiny" => gigabyte(16),
                "/unread" => {
                    // Alive and unread.
                    sleep(Duration::from_secs(1000)).await;
                    Chunks::of([])
                }
                _ => Chunks::of([Bytes::from_static(b"ok")]),
            })
        }),
    )
    .await;
    (gateway, backend)
}

/// Asks again and again until the gateway's memory stands still; returns by how much it grew since
/// `before`, and the slowest answer.
async fn ask_until_still(gateway: &ServerProcess, before: usize) -> (usize, Duration) {
    let mut visitor = visitor(gateway).await;
    let (mut largest, mut slowest, mut still) = (0, Duration::ZERO, Instant::now());
    while still.elapsed() < Duration::from_millis(500) {
        let asked = Instant::now();
        assert_eq!(ask(&mut visitor).await.text(), "ok");
        slowest = slowest.max(asked.elapsed());
        let resident = gateway.resident();
        if resident > largest + (1 << 20) {
            (largest, still) = (resident, Instant::now());
        }
    }
    (largest.saturating_sub(before), slowest)
}

/// Opens `count` connections, says `request` on each, reads nothing, and looks what becomes of the others.
async fn stall(count: usize, request: &str) -> usize {
    let (gateway, _backend) = gateway().await;
    let before = gateway.resident();
    let mut stalled = Vec::new();
    for _ in 0..count {
        let mut visitor = visitor(&gateway).await;
        visitor.send(request).await;
        stalled.push(visitor);
    }
    let (grown, slowest) = ask_until_still(&gateway, before).await;
    assert!(slowest < Duration::from_secs(5), "somebody else waited for {slowest:?}");
    // What the budget allows, and for each connection its least window, its buffers and TLS.
    assert!(grown < BODY_BUDGET + count * (768 << 10), "{} KiB", grown >> 10);
    grown
}

#[tokio::test]
async fn one_visitor_who_stops_reading_harms_nobody() {
    stall(1, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn a_hundred_visitors_who_stop_reading_harm_nobody() {
    stall(100, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn a_hundred_visitors_who_leave_tiny_chunks_unread_harm_nobody() {
    stall(100, "GET /tiny HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

/// A WebSocket of tiny messages.
#[tokio::test]
async fn a_hundred_websockets_that_are_not_read_harm_nobody() {
    let upgrade = "GET /tiny HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stall(100, upgrade).await;
}

/// Uploads to an origin that stops reading.
#[tokio::test]
async fn a_hundred_uploads_that_nobody_reads_harm_nobody() {
    let (gateway, _backend) = gateway().await;
    let before = gateway.resident();
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut visitor = visitor(&gateway).await;
        uploads.spawn(async move {
            visitor
                .send("POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
                .await;
            while visitor.try_send([7; 16 * 1024]).await.is_ok() {}
        });
    }
    let (grown, slowest) = ask_until_still(&gateway, before).await;
    assert!(slowest < Duration::from_secs(5), "somebody else waited for {slowest:?}");
    assert!(grown < BODY_BUDGET + 100 * (768 << 10), "{} KiB", grown >> 10);
}

/// 100 streams on each of 20 HTTP/2 connections, whose windows are wide and whose sockets nobody reads.
#[tokio::test]
async fn two_thousand_streams_that_nobody_reads_harm_nobody() {
    let (gateway, _backend) = gateway().await;
    let before = gateway.resident();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let io = connect_to(gateway.address, &[b"h2"]).await.expect("TLS");
        let mut peer = Peer::asking(io, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]).await;
        let requests = (0..100).map(|n| headers(n * 2 + 1, END_STREAM, &get("/large")));
        peer.send([&credit(0, 0x7000_0000)[..], &requests.collect::<Vec<_>>().concat()].concat())
            .await;
        stalled.push(peer);
    }
    let (grown, slowest) = ask_until_still(&gateway, before).await;
    assert!(slowest < Duration::from_secs(5), "somebody else waited for {slowest:?}");
    assert!(grown < BODY_BUDGET + 2000 * (192 << 10), "{} KiB", grown >> 10);
}

/// 1,000 visitors reset within a millisecond each, again and again, against our client.
#[tokio::test]
async fn a_thousand_resets_again_and_again_do_not_end_our_tunnels() {
    let (gateway, _backend) = gateway().await;
    for _ in 0..3 {
        let mut visitors = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let address = gateway.address;
            visitors.spawn(async move {
                let io = connect_to(address, &[b"h2"]).await.expect("TLS");
                let mut peer = Peer::asking(io, &[]).await;
                for n in 0..20 {
                    peer.send(headers(n * 2 + 1, END_STREAM, &get("/large"))).await;
                    // With the first byte of the answer, so that it was passed on for certain.
                    while let Some(frame) = peer.next().await
                        && frame.stream != n * 2 + 1
                    {}
                    peer.send(reset(n * 2 + 1, 8)).await;
                }
            });
        }
        while let Some(done) = visitors.join_next().await {
            done.expect("a visitor");
        }
        assert_eq!(ask(&mut visitor(&gateway).await).await.text(), "ok");
    }
}

/// A backend with Node's limit on the resets that it takes: 1,000 at once and 33 a second.
async fn node(mut backend: Peer<DuplexStream>) {
    let (mut tokens, mut filled) = (1000.0, Instant::now());
    while let Some(frame) = backend.next().await {
        match frame.kind {
            RST_STREAM => {
                tokens = f64::min(1000.0, tokens + filled.elapsed().as_secs_f64() * 33.0) - 1.0;
                filled = Instant::now();
                if tokens < 0.0 {
                    backend.send(goaway(frame.stream, 11)).await;
                    return;
                }
            }
            HEADERS if frame.field(":path") == "/ok" => {
                let head = headers(frame.stream, 0, &[(":status", "200")]);
                backend.send([head, data(frame.stream, END_STREAM, b"ok")].concat()).await;
            }
            _ => {}
        }
    }
}

/// The same against a backend that counts.
#[tokio::test(start_paused = true)]
async fn a_thousand_resets_again_and_again_do_not_end_a_foreign_tunnel() {
    let mut lab = Lab::default();
    let backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 100_000)]).await;
    let tunnel = lab.pool.all()[0].clone();
    lab.spawn(node(backend));
    for _ in 0..5 {
        let mut visitors = Vec::new();
        for _ in 0..20 {
            let mut peer = lab.h2(&[]).await;
            let requests = (0..50).map(|n| headers(n * 2 + 1, END_STREAM, &get("/never")));
            peer.send(requests.collect::<Vec<_>>().concat()).await;
            visitors.push(peer);
        }
        sleep(Duration::from_millis(1)).await;
        for peer in &mut visitors {
            let resets = (0..50).map(|n| reset(n * 2 + 1, 8));
            peer.send(resets.collect::<Vec<_>>().concat()).await;
        }
        let mut other = lab.h1();
        other.send("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(other.answer().await.text(), "ok");
    }
    // All of them are reset in the end, at the pace that the backend bears.
    until(|| tunnel.in_flight() == 0).await;
    assert_eq!(lab.pool.all().len(), 1, "the tunnel lives");
}
