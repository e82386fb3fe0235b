//! Ambiguous and too large requests over HTTP/1.1.

use std::time::Duration;

use http::{Request, Response};
use ptth_client::Body;
use ptth_test::Lab;
use ptth_test::lab::Function;
use tokio::time::sleep;

use super::{Seen, until, witness};

pub(super) const GOOD: &str = "GET /before HTTP/1.1\r\nHost: a\r\n\r\n";
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: a\r\n\r\n";

/// Heads that somebody could read in two ways, and the status that each gets.
fn ambiguous_heads() -> Vec<(u16, Vec<u8>)> {
    let mut heads = Vec::new();
    let mut post = |status, fields: &str, body: &str| {
        let head = format!("POST /bad HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
        heads.push((status, head.into_bytes()));
    };
    let chunks = "0\r\n\r\n";
    post(400, "Content-Length: 5\r\nTransfer-Encoding: chunked", chunks);
    post(400, "Transfer-Encoding: chunked\r\nContent-Length: 5", chunks);
    post(400, "Content-Length: 5\r\nContent-Length: 5", "hello");
    post(400, "Content-Length: 5\r\nContent-Length: 6", "hello");
    post(400, "Content-Length: 5, 5", "hello");
    for length in ["+5", "-5", "0x5", "1_0", "5 ", "five", "", "99999999999999999999", "5;", "5.0"]
    {
        // A blank after the value is no part of it.
        let status = if length == "5 " { 200 } else { 400 };
        if status == 400 {
            post(400, &format!("Content-Length: {length}"), "hello");
        }
    }
    post(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunks);
    for coding in [
        "chunked, chunked",
        "chunked, gzip",
        ",chunked",
        "chunked,",
        "xchunked",
        "chunked1",
        "\"chunked\"",
        "chunked;q=1",
        "chunked\u{b}",
        "\u{b}chunked",
        "identity",
        "chun ked",
        "gzip,,chunked",
        "",
        "cow",
    ] {
        post(400, &format!("Transfer-Encoding: {coding}"), chunks);
    }
    post(501, "Transfer-Encoding: gzip, chunked", chunks);
    for field in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: a\r\n Content-Length: 5",
        "X: a\r\n\tfolded",
        "X\0: a",
        "X: a\0b",
        "X: a\rb",
        "X: a\nContent-Length: 5",
        "X: a\r\r\nY: b",
        ": empty",
        "X",
        "X Y: a",
        "X(: a",
        "X\u{7f}: a",
        "H\u{f6}st: a",
        "X: a\u{7f}",
        "X: a\u{1}",
        "Host: b",
        "Transfer-Encoding:\nchunked",
        "Content-Length:\r5",
        "\u{b}Content-Length: 5",
        "X: a\r",
    ] {
        post(400, field, "");
    }
    let mut raw = |status, head: &str| heads.push((status, head.as_bytes().to_vec()));
    for head in [
        "POST /bad HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /bad HTTP/1.1\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /bad HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        "GET /bad HTTP/1.1\nHost: a\n\n",
        "GET /bad HTTP/1.1\r\nHost: a\n\r\n",
        "GET /bad HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET  /bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /bad  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/bad\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /bad HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /bad#f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /b\u{1}ad HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /b\u{e4}d HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /bad\r\nHost: a\r\n\r\n",
        "GET /bad http/1.1\r\nHost: a\r\n\r\n",
        "GET /bad HTTP/1.1x\r\nHost: a\r\n\r\n",
        "G\u{1}T /bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET /bad HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        raw(400, head);
    }
    raw(505, "GET /bad HTTP/2.0\r\nHost: a\r\n\r\n");
    raw(505, "GET /bad HTTP/1.2\r\nHost: a\r\n\r\n");
    raw(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw(417, "POST /bad HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n");
    raw(405, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    heads
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_head_is_refused_and_nothing_after_it_runs() {
    let (mut lab, seen, _) = witness().await;
    for (status, head) in ambiguous_heads() {
        let text = String::from_utf8_lossy(&head).into_owned();
        let before = seen.all().len();
        let mut visitor = lab.h1();
        visitor.send([GOOD.as_bytes(), &head, AFTER.as_bytes()].concat()).await;
        assert_eq!(visitor.answer().await.status, 200, "before {text:?}");
        let answer = visitor.answer().await;
        assert_eq!(answer.status, status, "{text:?}: {}", answer.text());
        if status == 405 {
            // CONNECT is well-formed, and refused; its connection may go on.
            assert_eq!(visitor.answer().await.status, 200, "{text:?}");
            assert_eq!(
                seen.all()[before..],
                ["/before", "0 whole", "/after", "0 whole"],
                "{text:?}"
            );
            continue;
        }
        assert_eq!(answer.field("connection"), "close", "{text:?}");
        assert!(visitor.is_closed().await, "{text:?}");
        assert_eq!(seen.all()[before..], ["/before", "0 whole"], "{text:?}");
    }
}

/// What is wrong with a body is the visitor's doing, and the backend never sees its end.
#[tokio::test(start_paused = true)]
async fn an_ambiguous_body_breaks_off_and_nothing_after_it_runs() {
    let (mut lab, seen, _) = witness().await;
    for body in [
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: b\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded: b\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : b\r\n\r\n",
        "5\r\nhello\r\n0\nX: b\r\n\r\n",
        "5\r\nhello\r\n00000000000000000000000000000000000\n\r\n",
    ] {
        let before = seen.all().len();
        let mut visitor = lab.h1();
        let head = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        visitor.send([GOOD, head, body, AFTER].concat()).await;
        assert_eq!(visitor.answer().await.status, 200);
        let answer = visitor.answer().await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        assert!(visitor.is_closed().await, "{body:?}");
        // Until the backend knows how the body ended, or was told that nobody wants an answer.
        until(|| lab.pool.all()[0].in_flight() == 0).await;
        let seen = seen.all();
        assert!(
            !seen[before..].iter().any(|what| what == "/after" || what == "5 whole"),
            "{body:?} {seen:?}"
        );
    }
}

pub(super) const UPGRADE: &str = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// RFC 9931. What follows is the new protocol's or nobody's, never a request.
#[tokio::test(start_paused = true)]
async fn bytes_after_an_upgrade_request_wait_for_its_answer() {
    let seen = Seen::default();
    let noting = seen.clone();
    let mut lab = Lab::serving(Function(move |request: Request<Body>| {
        noting.note(request.uri().path().to_owned());
        let refused = request.uri().path() == "/refused";
        async move {
            // Later than the time in which a request's body has to move: there is none yet.
            sleep(Duration::from_secs(40)).await;
            let mut response = Response::new(request.into_body());
            if refused {
                *response.status_mut() = http::StatusCode::FORBIDDEN;
                *response.body_mut() = Body::empty();
            }
            response
        }
    }))
    .await;
    let mut visitor = lab.h1();
    visitor.send([UPGRADE, AFTER].concat()).await;
    assert_eq!(visitor.head().await.0, 101);
    assert_eq!(visitor.bytes(AFTER.len()).await, AFTER.as_bytes(), "an echo");
    assert_eq!(seen.all(), ["/up"]);
    let mut visitor = lab.h1();
    visitor.send([&UPGRADE.replace("/up", "/refused"), AFTER].concat()).await;
    assert_eq!(visitor.answer().await.status, 403);
    assert_eq!(visitor.answer().await.status, 200);
    assert_eq!(seen.all(), ["/up", "/refused", "/after"]);
}

#[tokio::test(start_paused = true)]
async fn heads_over_the_limits_get_414_and_431_and_no_reset() {
    let (mut lab, seen, _) = witness().await;
    let long = "x".repeat(100_000);
    let many = "a: b\r\n".repeat(101);
    let huge = format!("a: {}\r\n", "x".repeat(4000)).repeat(20);
    for (status, head) in [
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{huge}\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nx: {long}\r\n\r\n")),
        (
            431,
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{many}\r\n"
            ),
        ),
        // Endless: never a line's end.
        (414, format!("GET /{long}")),
        (431, format!("GET / HTTP/1.1\r\nx: {long}")),
    ] {
        let mut visitor = lab.h1();
        // The gateway may close while the visitor still writes, and still he reads the answer.
        let _ = visitor.try_send(&head).await;
        let answer = visitor.answer().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.complete && visitor.is_closed().await);
    }
    assert!(!seen.all().iter().any(|what| what.ends_with("whole")), "{:?}", seen.all());
}
