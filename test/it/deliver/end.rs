//! The end of the gateway, with requests whose senders were told that they were taken.

use std::time::Duration;

use ptth_link::shutdown::Phase;
use ptth_server::Order;
use ptth_test::{Backend, GatewayBox, soon};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::*;

/// What waits for its next attempt doesn't wait for minutes then; and nothing new is taken.
#[tokio::test(start_paused = true)]
async fn draining_tries_what_is_left_at_once() {
    let mut hooks = Hooks::new();
    let (_guest, mut seen) = hooks.backend(&[503; 6]).await;
    hooks.post("hooks.test", "/", b"x").await;
    for _ in 0..5 {
        next(&mut seen).await;
    }
    sleep(Duration::from_secs(1)).await;
    let from = hooks.address();
    let mut late = hooks.h1(from);
    late.send("POST / HTTP/1.1\r\nHost: hooks.test\r\nContent-Length: 1\r\n\r\n").await;
    sleep(Duration::from_millis(1)).await;
    let draining = Instant::now();
    hooks.room.advance(Phase::Draining);
    assert!(next(&mut seen).await.at - draining < Duration::from_millis(100));
    assert!(next(&mut seen).await.at - draining < Duration::from_millis(1200));
    late.send("x").await;
    assert_eq!(late.answer().await.status, 503);
    hooks.until_empty().await;
    let counts = Counts { queued: 1, refused: 1, delivered: 1, retried: 6, dropped: 0 };
    assert_eq!(hooks.counts(), counts);
}

/// Nobody will come any more, so nobody is waited for.
#[tokio::test(start_paused = true)]
async fn what_has_no_backend_at_the_end_is_lost_and_counted() {
    let mut hooks = Hooks::new();
    for _ in 0..20 {
        hooks.post("hooks.test", "/", b"x").await;
    }
    hooks.room.advance(Phase::Draining);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(hooks.outbox().held().0, 0);
    assert_eq!(hooks.counts(), Counts { queued: 20, dropped: 20, ..Counts::default() });
}

/// An origin that doesn't answer doesn't outlive the grace.
#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_close_is_cut_and_counted() {
    let mut hooks = Hooks::new();
    let (_guest, mut seen) = hooks.backend(&[503; 100]).await;
    hooks.post("hooks.test", "/", b"x").await;
    next(&mut seen).await;
    hooks.room.advance(Phase::Draining);
    next(&mut seen).await;
    assert_eq!(hooks.counts().dropped, 0);
    hooks.room.advance(Phase::Closing);
    sleep(Duration::from_secs(1)).await;
    assert_eq!((hooks.outbox().held().0, hooks.counts().dropped), (0, 1));
}

/// A program that embeds the gateway may just drop it.
#[tokio::test(start_paused = true)]
async fn what_is_dropped_with_the_gateway_is_counted() {
    let mut hooks = Hooks::new();
    hooks.post("hooks.test", "/", b"x").await;
    sleep(Duration::from_secs(1)).await;
    let outbox = hooks.outbox().clone();
    assert_eq!(outbox.counts().dropped, 0);
    drop(hooks);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(outbox.counts().dropped, 1);
}

/// The whole gateway, by its threads and sockets: what was taken holds up the end until it is delivered.
#[tokio::test]
async fn a_gateway_told_to_stop_delivers_first() {
    let gateway = GatewayBox::with(|config| configure(config, LIMIT));
    let (begun, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, end) = (begun.clone(), done.clone());
    let (tell, mut seen) = unbounded_channel();
    let origin = service(move |request: Request<Body>| {
        let (begin, end, tell) = (begin.clone(), end.clone(), tell.clone());
        async move {
            let came = Seen::read(request).await;
            begin.notify_one();
            end.notified().await;
            let _ = tell.send(came);
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let mut config = gateway.client_config();
    config.tunnels = 1;
    let _backend = Backend::start(config, origin);
    gateway.until_tunnels(1).await;
    let answer =
        H1::ask(&gateway, post("hooks.test", "/last", "Connection: close\r\n", b"x")).await;
    assert_eq!(answer.status, 202);
    soon("the attempt", begun.notified()).await;
    gateway.order(Order::Stop);
    let joined = tokio::task::spawn_blocking(move || gateway.join());
    assert!(timeout(Duration::from_millis(300), seen.recv()).await.is_err());
    assert!(!joined.is_finished(), "it waits for what it owes");
    done.notify_one();
    assert_eq!(soon("the request", seen.recv()).await.unwrap().path, "/last");
    soon("the gateway's end", joined).await.unwrap();
}
