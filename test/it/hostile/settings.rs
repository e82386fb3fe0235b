//! A backend that hears and doesn't obey, and visitors that didn't hear yet.

use std::time::Duration;

use ptth_server::lab::Identity;
use ptth_test::Lab;
use ptth_test::peer::*;
use tokio::time::{Instant, sleep, timeout};

use super::{until, witness};

/// RFC 9113 §6.5.3: what doesn't acknowledge a smaller window won't keep to it.
#[tokio::test(start_paused = true)]
async fn a_backend_that_ignores_settings_is_dropped_though_it_answers_pings() {
    let mut lab = Lab::default();
    // Another make is never told of a smaller one.
    let ours = Identity { ours: true, ..Identity::default() };
    let mut backend = lab.backend_as(ours, &[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    backend.polite = false;
    lab.spawn(async move {
        while let Some(came) = backend.any().await {
            if came.kind == PING && came.flags & ACK == 0 {
                backend.send(frame(PING, ACK, 0, &came.payload)).await;
            }
        }
    });
    let mut visitors = Vec::new();
    for streams in [400, 800] {
        while visitors.len() < streams {
            let mut visitor = lab.h1();
            visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            visitors.push(visitor);
        }
        // The window follows the number of streams, and is told at once.
        let busy = || lab.pool.all().iter().any(|tunnel| tunnel.in_flight() >= streams);
        until(busy).await;
    }
    let start = Instant::now();
    lab.pool.until(|tunnels| tunnels.is_empty()).await;
    assert!(start.elapsed() <= Duration::from_secs(62), "{:?}", start.elapsed());
}

/// RFC 9113 §6.8: who drains says GOAWAY as soon as nothing runs, and the backend may close.
#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_that_drains_ends_at_once() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let begun = Instant::now();
    lab.pool.all()[0].drain();
    assert_eq!(backend.end().await, Some(0));
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

/// Each costs a look at all streams of the tunnel: some dozens a second end it, and not what is done in an hour.
#[tokio::test(start_paused = true)]
async fn a_backend_that_changes_its_settings_again_and_again_is_dropped() {
    for (what, flood) in [
        ("settings", settings(&[(INITIAL_WINDOW_SIZE, 1000)])),
        ("goaway", frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])),
    ] {
        let mut lab = Lab::default();
        let mut backend = lab.backend(&[]).await;
        for _ in 0..1000 {
            assert!(backend.send(frame(SETTINGS, 0, 0, &[])).await);
            sleep(Duration::from_millis(100)).await;
            lab.pool.all().first().expect("the tunnel lives");
            while let Ok(came) = timeout(Duration::from_millis(1), backend.any()).await {
                let came = came.expect("the tunnel lives");
                if came.kind == PING && came.flags & ACK == 0 {
                    backend.send(frame(PING, ACK, 0, &came.payload)).await;
                }
            }
        }
        let begun = Instant::now();
        backend.send(flood.repeat(1000)).await;
        while backend.any().await.is_some() {}
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
    }
}

/// RFC 9113 §5.1.2: who hasn't seen our SETTINGS may open more streams than they allow.
#[tokio::test(start_paused = true)]
async fn of_250_requests_at_once_a_hundred_are_answered_and_the_others_refused_alone() {
    let (mut lab, seen, release) = witness().await;
    let requests = (0..250).map(|n| headers(n * 2 + 1, END_STREAM, &get("/hold")));
    let requests = requests.collect::<Vec<_>>().concat();
    let mut visitor = Peer::raw(lab.h2_socket());
    let hello = [PREFACE, &settings(&[(HEADER_TABLE_SIZE, 0)]), &requests].concat();
    visitor.send(hello).await;
    until(|| seen.all().len() == 200).await;
    release.send(true).unwrap();
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < 250 {
        let frame = visitor.next().await.expect("the connection lives");
        if frame.kind == RST_STREAM {
            assert_eq!(frame.code(), REFUSED, "{frame:?}");
            refused += 1;
        } else if frame.is_end() {
            answered += 1;
        }
    }
    assert_eq!((answered, refused), (100, 150));
    visitor.send(headers(501, END_STREAM, &get("/next"))).await;
    assert_eq!(visitor.outcome(501).await, Outcome::Response(200, b"ok".to_vec()));
}

/// Who has seen them is held to them; and who never says so, in the end.
#[tokio::test(start_paused = true)]
async fn a_hundred_refusals_after_our_settings_and_a_thousand_before_end_the_connection() {
    for (acknowledged, refusals) in [(true, 100), (false, 1000)] {
        let (mut lab, seen, _release) = witness().await;
        let mut visitor = Peer::raw(lab.h2_socket());
        visitor.send([PREFACE, &settings(&[(HEADER_TABLE_SIZE, 0)])].concat()).await;
        if acknowledged {
            visitor.ping().await;
        }
        for n in 0..100 + refusals {
            visitor.send(headers(n * 2 + 1, END_STREAM, &get("/hold"))).await;
        }
        until(|| seen.all().len() == 200).await;
        let mut refused = 0;
        while refused < refusals {
            let frame = visitor.any().await.expect("the connection lives");
            refused += u32::from(frame.kind == RST_STREAM && frame.code() == REFUSED);
        }
        visitor.send(headers((100 + refusals) * 2 + 1, END_STREAM, &get("/hold"))).await;
        assert_eq!(visitor.end().await, Some(CALM), "{refusals}");
    }
}

/// FRAME_SIZE_ERROR (RFC 9113 §4.2, §6); a frame beyond the allowed size too.
#[tokio::test(start_paused = true)]
async fn a_frame_of_an_impossible_size_is_told_as_such() {
    let (mut lab, seen, _release) = witness().await;
    let frames = [
        frame(PRIORITY, 0, 1, &[0; 4]),
        frame(RST_STREAM, 0, 1, &[0; 3]),
        frame(RST_STREAM, 0, 1, &[]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, ACK, 0, &[0; 6]),
        frame(PING, 0, 0, &[0; 7]),
        frame(GOAWAY, 0, 0, &[0; 7]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        frame(WINDOW_UPDATE, 0, 1, &[0; 5]),
        frame(DATA, 0, 1, &[0; 16_385]),
    ];
    for frame in frames {
        let mut visitor = lab.h2(&[]).await;
        visitor.send(headers(1, END_STREAM, &get("/hold"))).await;
        visitor.send(&frame).await;
        assert_eq!(visitor.end().await, Some(6), "{:?}", &frame[..9]);
    }
    let ping = frame(PING, 0, 1, &[0; 8]);
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, END_STREAM, &get("/hold"))).await;
    visitor.send(ping).await;
    assert_eq!(visitor.end().await, Some(1), "what else is wrong stays PROTOCOL_ERROR");
    assert!(seen.all().iter().all(|what| what == "/hold" || what == "0 whole"), "{:?}", seen.all());
}

/// REFUSED_STREAM and ENHANCE_YOUR_CALM.
const REFUSED: u32 = 7;
const CALM: u32 = 11;
