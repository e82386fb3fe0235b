//! Streams and windows that run out.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Lab, Peer, soon};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, timeout};

use super::super::{ask, until, witness};
use super::{GET, ok, stream};

/// Beyond the peer's limit h2 would queue without bound; a request that was given up
/// must not run when there is room again.
#[tokio::test(start_paused = true)]
async fn trap_5_requests_beyond_the_limit_wait_and_are_not_run_later() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 2)]).await;
    let mut visitors = Vec::new();
    for _ in 0..10 {
        let mut visitor = lab.h1();
        visitor.send(GET).await;
        visitors.push(visitor);
    }
    let first = backend.request().await.unwrap().stream;
    let second = backend.request().await.unwrap().stream;
    // One more gets its turn when one has ended, within the five seconds.
    sleep(Duration::from_secs(1)).await;
    backend.send(ok(first)).await;
    let third = soon("the third", backend.request()).await.unwrap().stream;
    let late = timeout(Duration::from_secs(8), backend.request()).await;
    assert!(late.is_err(), "{late:?}");
    backend.send([ok(second), ok(third)].concat()).await;
    let late = timeout(Duration::from_secs(8), backend.request()).await;
    assert!(late.is_err(), "run after it was given up: {late:?}");
    let mut statuses = Vec::new();
    for visitor in &mut visitors {
        statuses.push(visitor.answer().await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 503, 503, 503, 503, 503, 503, 503]);
}

/// 1,000 wait, and for 5 s.
#[tokio::test(start_paused = true)]
async fn trap_5_the_queue_has_an_end() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 0)]).await;
    let mut visitors = Vec::new();
    for _ in 0..11 {
        let mut visitor = lab.h2(&[]).await;
        let requests = (0..100).map(|n| headers(stream(n), END_STREAM, &get("/")));
        visitor.send(requests.collect::<Vec<_>>().concat()).await;
        visitors.push(visitor);
    }
    lab.spawn(async move { while backend.next().await.is_some() {} });
    let start = Instant::now();
    let (mut at_once, mut later) = (0, 0);
    for visitor in visitors.iter_mut().rev() {
        for _ in 0..100 {
            let head = soon("503", visitor.request()).await.unwrap();
            assert_eq!(head.field(":status"), "503");
            *if start.elapsed() < Duration::from_secs(1) { &mut at_once } else { &mut later } += 1;
        }
    }
    assert_eq!((at_once, later), (100, 1000));
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// 200 WebSockets, and request 201.
#[tokio::test(start_paused = true)]
async fn trap_6_a_thousand_open_streams_leave_room_for_the_next() {
    let (mut lab, seen, _release) = witness().await;
    let mut visitors = Vec::new();
    for _ in 0..11 {
        let mut visitor = lab.h2(&[]).await;
        let requests = (0..100).map(|n| headers(stream(n), END_STREAM, &get("/hold")));
        visitor.send(requests.collect::<Vec<_>>().concat()).await;
        visitors.push(visitor);
    }
    until(|| seen.all().len() == 2200).await;
    assert_eq!(ask(&mut lab.h1()).await.text(), "ok");
}

/// Stalled uploads hold what the budget allows, and block nobody.
#[tokio::test(start_paused = true)]
async fn trap_7_stalled_uploads_do_not_shut_the_tunnels_window() {
    let service = Function(|request: Request<Body>| async move {
        let stalls = request.uri().path() == "/stall";
        let body = request.into_body();
        if stalls {
            // Alive and unread.
            sleep(Duration::from_secs(100_000)).await;
        }
        let body = body.collect().await.map_or(Bytes::new(), |body| body.to_bytes());
        Response::new(Full::new(Bytes::from(body.len().to_string())))
    });
    let mut lab = Lab::serving(service).await;
    for _ in 0..50 {
        let mut visitor = lab.h2(&[]).await;
        lab.spawn(async move {
            visitor.send(headers(1, 0, &request("POST", "/stall"))).await;
            upload(&mut visitor, 1, 8 << 20).await;
        });
    }
    until(|| lab.pool.all()[0].in_flight() == 50).await;
    sleep(Duration::from_secs(5)).await;
    let held = (lab.client_budget.held(), lab.budget.held());
    assert!(held.0 > 1 << 20 && held.0 <= 72 << 20, "at the client: {held:?}");
    assert!(held.1 <= 72 << 20, "at the gateway: {held:?}");
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, 0, &request("POST", "/"))).await;
    let sending = timeout(Duration::from_secs(20), upload(&mut visitor, 1, 4 << 20));
    sending.await.expect("the window is shut");
    assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"4194304".to_vec()));
}

/// Sends `count` bytes and END_STREAM as the windows allow.
async fn upload(peer: &mut Peer<DuplexStream>, stream: u32, count: usize) {
    let (mut left, mut window) = (count as i64, [65_535_i64, 64 * 1024]);
    while left > 0 {
        let part = left.min(16_384).min(window[0]).min(window[1]);
        if part > 0 {
            let flags = if part == left { END_STREAM } else { 0 };
            peer.send(data(stream, flags, &vec![7; part as usize])).await;
            left -= part;
            window = window.map(|left| left - part);
            continue;
        }
        let Some(frame) = peer.next().await else { return };
        if frame.kind == WINDOW_UPDATE {
            let credit = frame.code();
            window[usize::from(frame.stream != 0)] += i64::from(credit);
        }
    }
}

/// The same for downloads.
#[tokio::test(start_paused = true)]
async fn trap_7_stalled_downloads_do_not_shut_the_tunnels_window() {
    let service = Function(|_: Request<Body>| async {
        Response::new(Full::new(Bytes::from(vec![7; 8 << 20])))
    });
    let mut lab = Lab::serving(service).await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
        visitor.send(headers(1, END_STREAM, &get("/"))).await;
        stalled.push(visitor);
    }
    until(|| lab.pool.all()[0].in_flight() == 50).await;
    sleep(Duration::from_secs(5)).await;
    let held = lab.budget.held();
    assert!(held > 1 << 20 && held <= 72 << 20, "{held}");
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    let answer =
        timeout(Duration::from_secs(20), visitor.answer()).await.expect("the window is shut");
    assert_eq!(answer.body.len(), 8 << 20);
    drop(stalled);
    until(|| lab.budget.held() == 0).await;
}
