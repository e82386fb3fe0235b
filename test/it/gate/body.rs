//! The largest body of a request.

use bytes::Bytes;
use ptth_test::h2::{read, send};
use ptth_test::{Ask, Dialect, H1, H2};

use super::{World, is_page};

const GATE: &str = "[route.gate]\nmax_body = '1KiB'";

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_the_origin_sees_a_byte() {
    let world = World::new("", GATE).await;
    for dialect in Dialect::BOTH {
        let fits = world.ask(dialect, &Ask::post("/", vec![b'x'; 1024])).await;
        assert_eq!((fits.status, world.seen().pop().unwrap().body), (200, Some(1024)));
        let refused = world.ask(dialect, &Ask::post("/", vec![b'x'; 1025])).await;
        is_page(&refused, 413, "E-GATE-BODY");
        assert!(world.seen().is_empty(), "{dialect:?}");
    }
    // Of a length that no number holds, and before any of it is sent.
    let head =
        "POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 9223372036854775807\r\n\r\n";
    is_page(&H1::ask(world.gateway(), head).await, 413, "E-GATE-BODY");
    let expects = head.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let mut visitor = H1::connect(world.gateway()).await;
    visitor.send(expects).await;
    assert_eq!(visitor.head().await.0, 413, "and no 100");
    assert!(world.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_grows_too_large_ends_with_413_and_never_looks_complete() {
    let world = World::new("", GATE).await;
    let chunked = |chunks: usize| {
        let head = "POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
        format!("{head}{}0\r\n\r\n", chunk.repeat(chunks))
    };
    assert_eq!(H1::ask(world.gateway(), chunked(2)).await.status, 200);
    assert_eq!(world.seen().pop().unwrap().body, Some(1024));
    is_page(&H1::ask(world.gateway(), chunked(3)).await, 413, "E-GATE-BODY");
    let visitor = H2::connect(world.gateway()).await;
    let (response, mut stream) = visitor.open(Ask::new("POST", "/").head(), false).await;
    send(&mut stream, Bytes::from(vec![b'x'; 2000]), false).await;
    is_page(&read(response).await, 413, "E-GATE-BODY");
    // The connection goes on.
    assert_eq!(visitor.ask(&Ask::get("/")).await.status, 200);
    assert!(world.seen().iter().all(|seen| seen.method == "GET" || seen.body.is_none()));
}

/// With the response under way there is no status left to say it with.
#[tokio::test]
async fn a_body_that_grows_too_large_under_a_response_resets_it() {
    let world = World::new("", GATE).await;
    let visitor = H2::connect(world.gateway()).await;
    let (response, mut stream) = visitor.open(Ask::new("POST", "/early").head(), false).await;
    let response = response.await.expect("a response");
    assert_eq!(response.status(), 201);
    send(&mut stream, Bytes::from(vec![b'x'; 2000]), false).await;
    let answer = ptth_test::h2::read_body(response).await;
    assert!(!answer.complete && answer.text() == "begun", "{}", answer.text());
}

/// A webhook is read whole before it is answered, and so its limit is met before.
#[tokio::test]
async fn a_webhook_that_grows_too_large_is_refused() {
    let world = World::new("respond = 202", GATE).await;
    let head = "POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let hook = format!("{head}{}0\r\n\r\n", chunk.repeat(3));
    is_page(&H1::ask(world.gateway(), hook).await, 413, "E-GATE-BODY");
}
