//! Credit that doesn't come back.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_link::body::split;
use ptth_link::budget::Budget;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Lab, Peer, soon};
use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};

use super::super::until;

/// 2,000 bodies dropped at random points, on a connection whose window shows each leak.
#[tokio::test(start_paused = true)]
async fn trap_8_credit_comes_back_on_every_way_a_body_can_end() {
    let (near, far) = duplex(256 * 1024);
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(usize::MAX).max_local_error_reset_streams(None);
    let handshake = builder.handshake::<_, Bytes>(near);
    let (connected, mut backend) = tokio::join!(handshake, Peer::answering(far, &[]));
    let (mut sender, connection) = connected.unwrap();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(async move { connection.await.expect("the connection lives") });
    let (mut window, mut random) = (65_535_i64, 7_u64);
    let mut dice = |sides: u64| {
        // Knuth's MMIX generator: the same run each time.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    let budget = Budget::new(1 << 20);
    for _ in 0..2000 {
        let request = Request::get("https://example.test/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let at = receive(&mut backend, &mut window).await;
        backend.send(headers(at, 0, &[(":status", "200")])).await;
        let (_, stream) = response.await.unwrap().into_parts();
        let (mut inflow, mut body) = split(stream, &budget);
        let frames = dice(20);
        for n in 0..frames {
            let size = 1 + dice(if n % 2 == 0 { 16 } else { 3000 }) as usize;
            while window < size as i64 {
                drain(&mut backend, &mut window).await;
            }
            window -= size as i64;
            backend.send(data(at, 0, &vec![7; size])).await;
            if dice(3) == 0 {
                let _ = timeout(Duration::from_millis(1), &mut inflow).await;
            }
            if dice(3) == 0 {
                let _ = timeout(Duration::from_millis(1), body.frame()).await;
            }
        }
        match dice(5) {
            0 => drop(body),
            1 => drop(inflow),
            2 => {
                backend.send(reset(at, 8)).await;
                let _ = timeout(Duration::from_millis(1), &mut inflow).await;
            }
            3 => {
                backend.send(data(at, END_STREAM, b"")).await;
                let _ = timeout(Duration::from_millis(1), &mut inflow).await;
            }
            _ => drop(inflow.abandon()),
        }
    }
    assert_eq!(budget.held(), 0);
    // h2 gives credit back when half the window has gathered, so at most that is on its way.
    while timeout(Duration::from_secs(1), drain(&mut backend, &mut window)).await.is_ok() {}
    assert!(window > 65_535 / 2, "{} bytes of the window are gone", 65_535 - window);
}

/// The next request's stream; credit for the connection is noted.
async fn receive(backend: &mut Peer<DuplexStream>, window: &mut i64) -> u32 {
    loop {
        let frame = soon("a request", backend.next()).await.expect("the connection lives");
        if frame.kind == HEADERS {
            return frame.stream;
        }
        note(&frame, window);
    }
}

async fn drain(backend: &mut Peer<DuplexStream>, window: &mut i64) {
    let frame = soon("credit", backend.next()).await.expect("the connection lives");
    note(&frame, window);
}

fn note(frame: &Frame, window: &mut i64) {
    if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
        *window += i64::from(frame.code());
    }
}

/// Through the whole gateway, more than its window's bytes.
async fn aborted_downloads(count: usize) {
    let service = Function(|request: Request<Body>| async move {
        let size = request.uri().path()[1..].parse().expect("a size");
        Response::new(Full::new(Bytes::from(vec![7; size])))
    });
    let mut lab = Lab::serving(service).await;
    for n in 0..count {
        let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 65_535)]).await;
        visitor.send(headers(1, END_STREAM, &get("/16000000"))).await;
        let mut left = (n * 7919) % 60_000;
        while let Some(frame) = soon("the download", visitor.next()).await {
            left = left.saturating_sub(frame.payload.len());
            if frame.kind == DATA && left == 0 {
                break;
            }
        }
        // Until the gateway holds all that its window lets in, or as much as comes in a millisecond.
        sleep(Duration::from_millis(1)).await;
        if n % 2 == 0 {
            visitor.send(reset(1, 8)).await;
            sleep(Duration::from_millis(1)).await;
        }
    }
    until(|| lab.pool.all()[0].in_flight() == 0).await;
    // A download that came whole is held until its visitor is seen to have left.
    until(|| lab.budget.held() + lab.client_budget.held() == 0).await;
    let mut visitor = lab.h1();
    visitor.send("GET /64000000 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let start = Instant::now();
    assert_eq!(visitor.answer().await.body.len(), 64_000_000);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn trap_8_aborted_downloads_leave_the_tunnels_window_whole() {
    aborted_downloads(100).await;
}
