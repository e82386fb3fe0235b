//! What a sender of webhooks gets, and what of his request reaches the origin.

use std::time::Duration;

use ptth_test::peer::*;
use tokio::time::{Instant, advance, sleep};

use super::*;

/// The sender is answered while no backend is there; an hour later it comes.
#[tokio::test(start_paused = true)]
async fn a_sender_over_http_1_is_answered_before_the_backend_is_there() {
    let mut hooks = Hooks::new();
    let from = hooks.address();
    let mut visitor = hooks.h1(from);
    visitor.send(post("hooks.test", "/a?b=c", "X-Event: push\r\n", b"{}")).await;
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.text().as_str(), answer.complete), (202, "", true));
    assert_eq!(answer.field("content-length"), "0");
    assert!(!answer.field("date").is_empty());
    let id = answer.field("2ptth-request-id");
    assert_eq!(id.len(), 16);
    // The connection goes on.
    visitor.send(post("hooks.test", "/next", "", b"")).await;
    assert_eq!(visitor.answer().await.status, 202);
    advance(Duration::from_secs(3600)).await;
    let (_guest, mut seen) = hooks.backend(&[]).await;
    // Each by itself, so in whatever order.
    let mut both = [next(&mut seen).await, next(&mut seen).await];
    both.sort_by_key(|came| came.path.len());
    let [came, other] = both;
    assert_eq!((came.path.as_str(), came.body.as_slice()), ("/a", b"{}".as_slice()));
    assert_eq!(came.field("2ptth-request-id"), id);
    assert_eq!(came.field("x-event"), "push");
    assert_eq!(came.field("x-forwarded-for"), from.to_string());
    assert_eq!(came.field("content-length"), "2");
    assert_eq!((other.path.as_str(), other.body.len()), ("/next", 0));
    hooks.until_empty().await;
    assert_eq!(hooks.counts(), Counts { queued: 2, delivered: 2, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn a_sender_over_http_2_is_answered_before_the_backend_is_there() {
    let mut hooks = Hooks::new();
    let from = hooks.address();
    let mut peer = hooks.h2(from).await;
    let mut fields = request("POST", "/two").to_vec();
    fields.iter_mut().filter(|(name, _)| *name == ":authority").for_each(|f| f.1 = "hooks.test");
    fields.push(("expect", "100-continue"));
    peer.send(headers(1, 0, &fields)).await;
    let interim = peer.request().await.expect("a 100");
    assert_eq!(interim.field(":status"), "100", "it waits for one");
    peer.send([data(1, 0, b"half "), data(1, 0, b"and half")].concat()).await;
    peer.send(headers(1, END_STREAM, &[("x-sum", "7")])).await;
    assert_eq!(peer.outcome(1).await, Outcome::Response(202, Vec::new()));
    let (_guest, mut seen) = hooks.backend(&[]).await;
    let came = next(&mut seen).await;
    assert_eq!(came.body, b"half and half");
    assert_eq!(came.trailers.get("x-sum").unwrap(), "7");
    assert_eq!((came.path.as_str(), came.field("expect")), ("/two", ""));
}

/// A body that came in chunks is whole now, so the origin is told its length.
#[tokio::test(start_paused = true)]
async fn chunks_arrive_as_one_body_of_known_length() {
    let mut hooks = Hooks::new();
    let from = hooks.address();
    let mut visitor = hooks.h1(from);
    let head = "POST /c HTTP/1.1\r\nHost: hooks.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    visitor.send(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    assert_eq!(visitor.answer().await.status, 202);
    let (_guest, mut seen) = hooks.backend(&[]).await;
    let came = next(&mut seen).await;
    assert_eq!((came.body.as_slice(), came.field("content-length")), (b"abcde".as_slice(), "5"));
}

/// Others keep the way that they had: safe methods, and routes without `respond`.
#[tokio::test(start_paused = true)]
async fn what_asks_for_something_is_forwarded() {
    let mut hooks = Hooks::new();
    let from = hooks.address();
    let mut visitor = hooks.h1(from);
    for _ in 0..2 {
        visitor.send("GET /challenge HTTP/1.1\r\nHost: hooks.test\r\n\r\n").await;
        assert_eq!(visitor.answer().await.status, 502);
        visitor.send(post("plain.test", "/", "", b"x")).await;
        assert_eq!(visitor.answer().await.status, 502);
    }
    let (_guest, _seen) = hooks.backend(&[]).await;
    for method in ["GET", "OPTIONS"] {
        visitor.send(format!("{method} /challenge HTTP/1.1\r\nHost: hooks.test\r\n\r\n")).await;
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "a few words"), "{method}");
    }
    visitor.send(post("plain.test", "/", "", b"x")).await;
    assert_eq!(visitor.answer().await.text(), "a few words");
    assert_eq!(hooks.counts(), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn a_senders_own_key_is_kept() {
    let mut hooks = Hooks::new();
    for (fields, expected) in [("Idempotency-Key: \"mine\"\r\n", Some("\"mine\"")), ("", None)] {
        let from = hooks.address();
        let mut visitor = hooks.h1(from);
        visitor.send(post("hooks.test", "/", fields, b"x")).await;
        assert_eq!(visitor.answer().await.status, 202);
        let (_guest, mut seen) = hooks.backend(&[]).await;
        let came = next(&mut seen).await;
        let key = came.field("idempotency-key");
        match expected {
            Some(expected) => assert_eq!(key, expected),
            None => assert!(key.len() == 34 && key.starts_with('"') && key.ends_with('"'), "{key}"),
        }
        hooks.until_empty().await;
        drop(_guest);
        eventually("the tunnel's end", hooks.room.until_tunnels(0)).await;
    }
}

/// By its length before a byte of it came, and by its bytes otherwise.
#[tokio::test(start_paused = true)]
async fn a_body_beyond_the_limit_is_refused() {
    let mut hooks = Hooks::new();
    let from = hooks.address();
    let head = "POST / HTTP/1.1\r\nHost: hooks.test\r\n";
    for rest in [
        format!("Content-Length: {}\r\n\r\n", LIMIT + 1),
        format!("Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", "9".repeat(12)),
        format!("Transfer-Encoding: chunked\r\n\r\n2711\r\n{}", "x".repeat(LIMIT + 1)),
    ] {
        let mut visitor = hooks.h1(from);
        visitor.send(format!("{head}{rest}")).await;
        let (status, fields) = visitor.head().await;
        assert_eq!(status, 413, "{rest:.60}");
        assert_eq!(fields.get("connection").unwrap(), "close");
    }
    let mut peer = hooks.h2(from).await;
    let mut fields = request("POST", "/").to_vec();
    fields.iter_mut().filter(|(name, _)| *name == ":authority").for_each(|f| f.1 = "hooks.test");
    peer.send([headers(1, 0, &fields), data(1, 0, &[b'x'; LIMIT / 2])].concat()).await;
    peer.send([data(1, 0, &[b'x'; LIMIT / 2]), data(1, 0, b"x")].concat()).await;
    let Outcome::Response(status, _) = peer.outcome(1).await else { panic!("no response") };
    assert_eq!(status, 413);
    assert_eq!(hooks.post("hooks.test", "/", &[b'x'; LIMIT]).await.status, 202, "the limit itself");
    assert_eq!(hooks.counts().queued, 1);
    assert_eq!(hooks.outbox().held().0, 1, "nothing is kept of the others");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_too_slowly_is_not_waited_for() {
    let mut hooks = Hooks::with_limit(100_000);
    let from = hooks.address();
    let mut peer = hooks.h2(from).await;
    let mut fields = request("POST", "/").to_vec();
    fields.iter_mut().filter(|(name, _)| *name == ":authority").for_each(|f| f.1 = "hooks.test");
    peer.send([headers(1, 0, &fields), data(1, 0, b"x")].concat()).await;
    let start = Instant::now();
    let Outcome::Response(status, _) = peer.outcome(1).await else { panic!("no response") };
    assert_eq!((status, start.elapsed().as_secs()), (408, 30));
    // Fast at first, so that the rate is fine for 200 s; and then silent.
    peer.send(headers(3, 0, &fields)).await;
    for _ in 0..3 {
        peer.send(data(3, 0, &[b'x'; 16_000])).await;
    }
    let start = Instant::now();
    let outcome = timeout(Duration::from_secs(300), reading(&mut peer, 3)).await;
    assert_eq!(outcome.expect("a response"), "408");
    assert_eq!(start.elapsed().as_secs(), 120);
    assert_eq!(hooks.outbox().held(), (0, 0));
}

/// A sender who leaves before he was answered will send it again.
#[tokio::test(start_paused = true)]
async fn half_a_request_is_never_delivered() {
    let mut hooks = Hooks::new();
    let from = hooks.address();
    let (mut one, mut two) = (hooks.h1(from), hooks.h2(from).await);
    one.send("POST / HTTP/1.1\r\nHost: hooks.test\r\nContent-Length: 9\r\n\r\nhalf").await;
    let mut fields = request("POST", "/").to_vec();
    fields.iter_mut().filter(|(name, _)| *name == ":authority").for_each(|f| f.1 = "hooks.test");
    two.send([headers(1, 0, &fields), data(1, 0, b"half")].concat()).await;
    eventually("both begin", async {
        while hooks.outbox().held().0 < 2 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(one);
    two.send(frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())).await;
    hooks.until_empty().await;
    assert_eq!(hooks.counts(), Counts::default());
}

/// The status of a stream's response, waited for longer than [`Peer::outcome`] does.
async fn reading(peer: &mut Peer<DuplexStream>, stream: u32) -> String {
    loop {
        let head = peer.request().await.expect("the connection lives");
        if head.stream == stream {
            return head.field(":status");
        }
    }
}

/// An empty Idempotency-Key tells no two requests apart, so there is one of the gateway's; two are a fault.
#[tokio::test(start_paused = true)]
async fn an_empty_idempotency_key_is_none_and_two_are_refused() {
    let mut hooks = Hooks::new();
    let (_guest, mut seen) = hooks.backend(&[]).await;
    let mut keys = Vec::new();
    let all = ["", ":", ": \"\"", ": \"own\""].map(|value| match value {
        "" => String::new(),
        value => format!("Idempotency-Key{value}\r\n"),
    });
    for fields in &all {
        let from = hooks.address();
        let mut visitor = hooks.h1(from);
        visitor.send(post("hooks.test", "/", fields, b"x")).await;
        assert_eq!(visitor.answer().await.status, 202, "{fields:?}");
        keys.push(next(&mut seen).await.field("idempotency-key").to_owned());
    }
    assert!(keys[..3].iter().all(|key| key.len() > 30), "{keys:?}");
    assert_eq!(keys[3], "\"own\"");
    let from = hooks.address();
    let mut visitor = hooks.h1(from);
    let twice = "Idempotency-Key: \"a\"\r\nIdempotency-Key: \"b\"\r\n";
    visitor.send(post("hooks.test", "/", twice, b"x")).await;
    assert_eq!(visitor.answer().await.status, 400);
}
