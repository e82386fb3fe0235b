//! Over HTTP/1.1: those who take their time, and those who may.

use std::future::pending;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use ptth_client::Body;
use ptth_client::demo::Demo;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Lab, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::h1::{GOOD, UPGRADE};
use super::{until, witness};

/// How long the gateway keeps a connection on which `write` is done byte by byte, one each `pause`.
async fn lasts(lab: &mut Lab, at_once: &str, drip: &str, pause: Duration) -> (u64, u16) {
    let mut visitor = lab.h1();
    visitor.send(at_once).await;
    let start = Instant::now();
    let (mut reader, mut writer) = tokio::io::split(visitor.stream);
    let drip = drip.as_bytes().to_vec();
    let writing = async move {
        for byte in drip {
            sleep(pause).await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        pending::<()>().await;
    };
    let mut read = Vec::new();
    tokio::select! {
        () = writing => {}
        _ = reader.read_to_end(&mut read) => {}
    }
    let text = String::from_utf8_lossy(&read);
    let status = text.rsplit("HTTP/1.1 ").next().and_then(|rest| rest.get(..3)?.parse().ok());
    (start.elapsed().as_secs(), status.unwrap_or(0))
}

/// TLS and then silence; a head byte by byte; an idle connection; a body byte by byte.
#[tokio::test(start_paused = true)]
async fn slow_visitors_meet_their_deadlines() {
    let (mut lab, seen, _) = witness().await;
    let never = Duration::from_secs(100_000);
    assert_eq!(lasts(&mut lab, "", "x", never).await, (10, 0), "silence");
    let head = "GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    let (after, status) = lasts(&mut lab, "G", head, Duration::from_secs(1)).await;
    assert!((10..=13).contains(&after) && status == 408, "a slow head: {after} s, {status}");
    let (after, status) = lasts(&mut lab, GOOD, head, Duration::from_secs(1)).await;
    assert!((10..=14).contains(&after) && status == 408, "a slow second head: {after} s, {status}");
    let (after, status) = lasts(&mut lab, GOOD, "x", never).await;
    assert_eq!((after, status), (75, 200), "idle after a response");
    let post = "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let drip = "x".repeat(10_000);
    let (after, status) = lasts(&mut lab, post, &drip, Duration::from_millis(10)).await;
    assert!((30..=34).contains(&after) && status == 408, "100 B/s: {after} s, {status}");
    let (after, status) = lasts(&mut lab, post, "", never).await;
    assert!((30..=34).contains(&after) && status == 408, "a silent body: {after} s, {status}");
    assert!(!seen.all().iter().any(|what| what == "1000000 whole"));
}

/// Slow is not too slow.
#[tokio::test(start_paused = true)]
async fn an_honest_slow_upload_comes_through() {
    let (mut lab, seen, _) = witness().await;
    let mut visitor = lab.h1();
    visitor.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").await;
    for _ in 0..200 {
        visitor.send([b'x'; 300]).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(visitor.answer().await.status, 200);
    assert_eq!(seen.all(), ["/slow", "60000 whole"]);
}

/// Half-open. A visitor who has closed his half is gone (HTTP/1.1 has no other word for it).
#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_ends_with_its_exchange() {
    let (mut lab, _, _release) = witness().await;
    let mut visitor = lab.h1();
    visitor.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let pool = lab.pool.clone();
    until(|| pool.all()[0].in_flight() == 1).await;
    visitor.stream.shutdown().await.unwrap();
    assert!(visitor.is_closed().await);
    until(|| pool.all()[0].in_flight() == 0).await;
}

/// A visitor who takes nothing of his response.
#[tokio::test(start_paused = true)]
async fn a_visitor_who_never_reads_loses_his_connection_after_a_minute() {
    let mut lab = endless().await;
    let mut visitor = lab.h1();
    visitor.send(GOOD).await;
    let start = Instant::now();
    let pool = lab.pool.clone();
    until(|| pool.all()[0].in_flight() == 1).await;
    until(|| pool.all()[0].in_flight() == 0).await;
    let waited = start.elapsed().as_secs();
    assert!((60..=65).contains(&waited), "{waited} s");
    assert_eq!(lab.budget.held(), 0);
    drop(visitor);
}

/// A gateway whose backend answers with more than all windows on the way let through.
async fn endless() -> Lab {
    let body = bytes::Bytes::from(vec![7; 64 << 20]);
    Lab::serving(Function(move |_: Request<Body>| {
        let body = body.clone();
        async move { Response::new(Full::new(body)) }
    }))
    .await
}

/// After how many seconds the gateway ends the response to a reader, if it does within ten minutes.
async fn outlasts(lab: &Lab, reading: impl Future<Output = ()>) -> Option<u64> {
    let (start, pool) = (Instant::now(), lab.pool.clone());
    let over = async {
        until(|| pool.all()[0].in_flight() == 1).await;
        until(|| pool.all()[0].in_flight() == 0).await;
    };
    tokio::select! {
        () = over => Some(start.elapsed().as_secs()),
        () = reading => None,
        () = sleep(Duration::from_secs(600)) => None,
    }
}

/// A reader for whom something waits takes 240 bytes a second, over a minute.
#[tokio::test(start_paused = true)]
async fn a_reader_who_only_just_moves_is_ended_and_an_honest_slow_one_is_not() {
    let mut lab = endless().await;
    for (rate, expected) in [(16, 60..=125), (300, 0..=0)] {
        let mut visitor = lab.h1();
        visitor.send(GOOD).await;
        let reading = async {
            while visitor.stream.read_exact(&mut vec![0; rate]).await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            pending::<()>().await;
        };
        let ended = outlasts(&lab, reading).await;
        assert!(expected.contains(&ended.unwrap_or(0)), "HTTP/1.1, {rate} bytes: {ended:?}");
        drop(visitor);
        let pool = lab.pool.clone();
        until(|| pool.all()[0].in_flight() == 0).await;

        let mut peer = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
        peer.send(headers(1, END_STREAM, &get("/"))).await;
        let reading = async {
            loop {
                let bytes = u32::try_from(rate).expect("small");
                peer.send([credit(0, bytes), credit(1, bytes)].concat()).await;
                sleep(Duration::from_secs(1)).await;
            }
        };
        let ended = outlasts(&lab, reading).await;
        assert!(expected.contains(&ended.unwrap_or(0)), "HTTP/2, {rate} bytes: {ended:?}");
        drop(peer);
        until(|| pool.all()[0].in_flight() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_may_be_idle_for_ten_minutes_and_events_may_pause_for_four() {
    let mut lab = Lab::serving(Demo).await;
    let mut socket = lab.h1();
    socket.send(UPGRADE).await;
    assert_eq!(socket.head().await.0, 101);
    for _ in 0..2 {
        sleep(Duration::from_secs(600)).await;
        // "hi", masked with zeros (RFC 6455 §5.2).
        socket.send([0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await;
        assert_eq!(soon("the echo", socket.bytes(4)).await, [0x81, 2, b'h', b'i']);
    }
}

#[tokio::test(start_paused = true)]
async fn server_sent_events_may_pause_for_four_minutes() {
    let mut lab = Lab::serving(Function(|_: Request<Body>| async {
        Response::new(super::Paused::every(Duration::from_secs(240), "data: x\n\n", 3))
    }))
    .await;
    let mut visitor = lab.h1();
    visitor.send(GOOD).await;
    let answer = tokio::time::timeout(Duration::from_secs(3600), async {
        let (status, _) = visitor.head().await;
        let mut text = Vec::new();
        while let Some(line) = visitor.until(b"\r\n").await {
            text.extend(line.clone());
            if line == b"0\r\n" {
                break;
            }
        }
        (status, String::from_utf8_lossy(&text).matches("data: x").count())
    });
    assert_eq!(answer.await.unwrap(), (200, 3));
}

/// A response of which nothing moves for five minutes is cut, and looks cut.
#[tokio::test(start_paused = true)]
async fn a_response_that_stands_still_for_five_minutes_is_cut() {
    let mut lab = Lab::serving(Function(|_: Request<Body>| async {
        Response::new(super::Paused::every(Duration::from_secs(400), "data: x\n\n", 3))
    }))
    .await;
    let mut visitor = lab.h1();
    visitor.send(GOOD).await;
    let start = Instant::now();
    assert_eq!(visitor.head().await.0, 200);
    let rest = tokio::time::timeout(Duration::from_secs(3600), visitor.bytes(1000)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "", "no last chunk");
    assert_eq!(start.elapsed().as_secs(), 300);
}

/// 120 s for the response's head, then 504.
#[tokio::test(start_paused = true)]
async fn a_backend_that_never_answers_costs_504_after_two_minutes() {
    let (mut lab, _, _release) = witness().await;
    let mut visitor = lab.h1();
    visitor.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let start = Instant::now();
    let answer = tokio::time::timeout(Duration::from_secs(3600), visitor.head()).await.unwrap();
    assert_eq!((answer.0, start.elapsed().as_secs()), (504, 120));
}
