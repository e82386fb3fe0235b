//! Over HTTP/1.1: what becomes of a connection whose request or response ends before the other.

use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_test::Lab;
use ptth_test::lab::Function;

use super::{Seen, until, witness};

const AFTER: &str = "GET /after HTTP/1.1\r\nHost: a\r\n\r\n";

fn upload(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")
}

/// A lab whose backend answers at once: `/echo` with the body, as it comes, and everything else with "early".
async fn early() -> (Lab, Seen) {
    let seen = Seen::default();
    let noting = seen.clone();
    let lab = Lab::serving(Function(move |request: Request<Body>| {
        noting.note(request.uri().path().to_owned());
        async move {
            match request.uri().path() {
                "/echo" => Response::new(request.into_body().boxed_unsync()),
                _ => {
                    let body = Full::from("early").map_err(|_| unreachable!()).boxed_unsync();
                    let mut response = Response::new(body);
                    response.headers_mut().insert("content-length", HeaderValue::from_static("5"));
                    response
                }
            }
        }
    }))
    .await;
    (lab, seen)
}

/// After a final response there is no 100; the body may come all the same.
#[tokio::test(start_paused = true)]
async fn a_body_that_waits_for_a_100_may_follow_a_response_that_streams() {
    let (mut lab, seen) = early().await;
    let mut visitor = lab.h1();
    visitor.send(upload("/echo", "Expect: 100-continue\r\nContent-Length: 5")).await;
    let (status, fields) = visitor.head().await;
    assert_eq!((status, fields.contains_key("connection")), (200, false));
    visitor.send(["hello", AFTER].concat()).await;
    assert_eq!(visitor.rest(status, fields, "POST").await.text(), "hello");
    assert_eq!(visitor.answer().await.text(), "early");
    assert_eq!(seen.all(), ["/echo", "/after"]);
}

/// A visitor that takes the response for the end of its request is not understood any more.
#[tokio::test(start_paused = true)]
async fn a_body_that_was_never_asked_for_ends_the_connection() {
    let (mut lab, seen) = early().await;
    let mut visitor = lab.h1();
    visitor.send(upload("/early", "Expect: 100-continue\r\nContent-Length: 500")).await;
    assert_eq!(visitor.answer().await.text(), "early");
    visitor.send(AFTER).await;
    assert!(visitor.is_closed().await);
    assert_eq!(seen.all(), ["/early"]);
}

/// A body that turns out malformed behind a response that has begun.
#[tokio::test(start_paused = true)]
async fn a_malformed_body_cuts_a_response_that_has_begun() {
    let (mut lab, seen) = early().await;
    let mut visitor = lab.h1();
    visitor.send(upload("/echo", "Transfer-Encoding: chunked")).await;
    let (status, fields) = visitor.head().await;
    visitor.send("5\r\nhello\r\n").await;
    assert_eq!(visitor.bytes(10).await, b"5\r\nhello\r\n");
    visitor.send(["+5\r\nhello\r\n0\r\n\r\n", AFTER].concat()).await;
    let answer = visitor.rest(status, fields, "POST").await;
    assert!(!answer.complete, "{answer:?}");
    until(|| lab.pool.all()[0].in_flight() == 0).await;
    assert_eq!(seen.all(), ["/echo"]);
}

/// Little of a body that is of no use is read, and much of it isn't.
#[tokio::test(start_paused = true)]
async fn a_short_body_that_nobody_reads_does_not_cost_the_connection() {
    let (mut lab, seen) = (Lab::default(), Seen::default());
    for (fields, sent, goes_on) in [
        ("Content-Length: 5", "hello", true),
        ("Content-Length: 60000", &*"x".repeat(60_000), true),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", true),
        ("Content-Length: 100000", "", false),
        ("Content-Length: 5\r\nExpect: 100-continue", "", false),
        ("Transfer-Encoding: chunked", &*"4000\r\n".repeat(5000), false),
    ] {
        let mut visitor = lab.h1();
        visitor.send(upload("/", fields)).await;
        let answer = visitor.answer().await;
        assert_eq!(answer.status, 502, "no backend");
        if !goes_on && sent.is_empty() {
            assert_eq!(answer.field("connection"), "close", "{fields:?}");
        }
        let _ = visitor.try_send([sent, AFTER].concat()).await;
        if goes_on {
            assert_eq!(visitor.answer().await.status, 502, "{fields:?}");
        } else {
            assert!(visitor.is_closed().await, "{fields:?}");
        }
    }
    assert!(seen.all().is_empty());
}

/// RFC 9112 §9.3: HTTP/1.0 keeps its connection where it asks for that, and a body without a length ends with it.
#[tokio::test(start_paused = true)]
async fn http10_is_kept_where_it_asks_for_it() {
    let (mut lab, _) = early().await;
    for (fields, kept) in [("", ""), ("Connection: Keep-Alive\r\n", "keep-alive")] {
        let mut visitor = lab.h1();
        let request = format!("GET / HTTP/1.0\r\n{fields}Host: a\r\n\r\n");
        for _ in 0..2 {
            visitor.send(&request).await;
            let answer = visitor.answer().await;
            assert_eq!((answer.status, &*answer.field("connection")), (200, kept));
            assert!(answer.complete);
            if kept.is_empty() {
                assert!(visitor.is_closed().await);
                break;
            }
        }
    }
    let mut visitor = lab.h1();
    visitor.send("POST /echo HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello").await;
    let (status, fields) = visitor.head().await;
    assert!(!fields.contains_key("transfer-encoding") && !fields.contains_key("connection"));
    assert_eq!(status, 200);
    assert_eq!(visitor.bytes(100).await, b"hello");
    assert!(visitor.is_closed().await);
}

/// RFC 9112 §9.6: the last response says so, and nothing behind it runs.
#[tokio::test(start_paused = true)]
async fn what_follows_a_request_that_closes_does_not_run() {
    let (mut lab, seen, _release) = witness().await;
    let mut visitor = lab.h1();
    let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n";
    visitor.send([AFTER, last, AFTER].concat()).await;
    assert_eq!(visitor.answer().await.field("connection"), "");
    assert_eq!(visitor.answer().await.field("connection"), "close");
    assert!(visitor.is_closed().await);
    assert_eq!(seen.all(), ["/after", "0 whole", "/last", "0 whole"]);
}
