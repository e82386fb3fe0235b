//! What is said before the final response, and after the body.

use std::sync::Arc;

use http::HeaderMap;
use ptth_test::h2::{read_body, send};
use ptth_test::origin::{read_head, read_until, until_closed};
use ptth_test::{Ask, Backend, Dialect, GatewayBox, H1, H2, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::sync::mpsc::unbounded_channel;

use super::{Path, answering, texts, values};

const LARGE: usize = 10 << 20;
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn upload(length: usize) -> String {
    format!(
        "POST /upload HTTP/1.1\r\nHost: example.test\r\nExpect: 100-continue\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A path to an origin that begins with `interim`, takes the body, and says how long it was.
async fn counting(interim: &'static str) -> Path<usize> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            while !read_head(&mut socket).await.is_empty() {
                socket.write_all(interim.as_bytes()).await.expect("the client reads");
                let mut count = 0;
                let mut buffer = vec![0; 64 * 1024];
                while count < LARGE {
                    match socket.read(&mut buffer).await {
                        Ok(read @ 1..) => count += read,
                        _ => break,
                    }
                }
                let _ = tell.send(count);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{count:>8}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

async fn expects(interim: &'static str) {
    let mut path = counting(interim).await;
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(upload(LARGE)).await;
    assert_eq!(soon("the 100", visitor.head()).await.0, 100);
    visitor.send(vec![7; LARGE]).await;
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.text()), (200, format!("{LARGE:>8}")));
    assert_eq!(path.told().await, LARGE);
    let visitor = H2::connect(&path.gateway).await;
    let ask = Ask::new("POST", "/upload").with("expect", "100-continue");
    let ask = ask.with("content-length", LARGE.to_string());
    let (response, mut stream) = visitor.open(ask.head(), false).await;
    let mut response = Box::pin(response);
    if !interim.is_empty() {
        let interim = soon("the 100", std::future::poll_fn(|cx| response.poll_informational(cx)));
        assert_eq!(interim.await.expect("a 100").expect("a 100").status(), 100);
    }
    assert!(soon("the upload", send(&mut stream, vec![7; LARGE].into(), true)).await);
    let answer = read_body(soon("a response", response).await.expect("a response")).await;
    assert_eq!((answer.status, answer.text()), (200, format!("{LARGE:>8}")));
    assert_eq!(path.told().await, LARGE);
}

#[tokio::test]
async fn an_upload_waits_for_the_origins_100() {
    expects(CONTINUE).await;
}

/// An origin of HTTP/1.0's mind never says it (RFC 9110 §10.1.1: the wait has an end).
#[tokio::test]
async fn an_upload_does_not_wait_for_ever() {
    expects("").await;
}

/// The body is not asked for, and what would have been the body is no request.
#[tokio::test]
async fn a_refusal_comes_instead_of_the_100() {
    for status in ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized"] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 3\r\n\r\nno\n");
        let mut path = answering(answer).await;
        let mut visitor = H1::connect(&path.gateway).await;
        visitor.send(upload(LARGE)).await;
        let (code, fields) = soon("the refusal", visitor.head()).await;
        assert_eq!(code.to_string(), status[..3]);
        assert_eq!(visitor.bytes(3).await, b"no\n");
        // RFC 9110 §10.1.1: he is told whether the body is still waited for.
        assert_eq!(fields["connection"], "close");
        assert!(visitor.is_closed().await);
        let visitor = H2::connect(&path.gateway).await;
        let ask = Ask::new("POST", "/upload").with("expect", "100-continue");
        let (response, mut stream) = visitor.open(ask.head(), false).await;
        let mut response = Box::pin(response);
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
        assert!(soon("the refusal", interim).await.is_none(), "no 100");
        let answer = read_body(response.await.expect("a response")).await;
        assert_eq!(
            (answer.status.to_string().as_str(), answer.text().as_str()),
            (&status[..3], "no\n")
        );
        // RFC 9113 §8.1: and no more is wanted.
        let reset = soon("RST_STREAM", std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
        assert_eq!(reset.expect("a reset"), ::h2::Reason::NO_ERROR);
        for _ in 0..2 {
            assert_eq!(texts(&path.told().await, "expect"), ["100-continue"]);
        }
        assert!(path.told.is_empty(), "no byte of a body");
    }
}

/// Alone, and in one segment with the final response.
#[tokio::test]
async fn early_hints_reach_a_visitor_of_http2() {
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nconnection: x-mine\r\n\
                x-mine: 1\r\n\r\n";
    let path =
        answering(format!("{hint}{hint}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
    let visitor = H2::connect(&path.gateway).await;
    for _ in 0..20 {
        let mut response = Box::pin(visitor.get("/").await);
        for _ in 0..2 {
            let interim =
                soon("the 103", std::future::poll_fn(|cx| response.poll_informational(cx)));
            let interim = interim.await.expect("a 103").expect("a 103");
            assert_eq!(interim.status(), 103);
            assert_eq!(interim.headers()["link"], "</style.css>; rel=preload");
            assert!(!interim.headers().contains_key("x-mine"));
        }
        let answer = read_body(soon("a response", response).await.expect("a response")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    let answer = H1::get(&path.gateway, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

/// RFC 9110 §15.2: each before the response that it belongs to, of pipelined requests too, and without a
/// length; a 100 that nobody asked for and a 101 don't cross. HTTP/1.0 has no interim responses.
#[tokio::test]
async fn early_hints_reach_a_visitor_of_http1() {
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\ncontent-length: 5\r\nconnection: x-mine\r\n\
                x-mine: 1\r\n\r\n";
    // More than may wait for a socket, so that a hint comes while the response before is still being written.
    let body = "x".repeat(1 << 20);
    let path = answering(format!(
        "{CONTINUE}{hint}HTTP/1.1 199 Odd\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n".repeat(3)).await;
    for _ in 0..3 {
        let (status, fields) = soon("the 103", visitor.head()).await;
        assert_eq!((status, &fields["link"], fields.len()), (103, &"</a>".parse().unwrap(), 1));
        let (status, fields) = soon("the 199", visitor.head()).await;
        assert_eq!((status, fields.len()), (199, 0));
        let (status, fields) = soon("the response", visitor.head()).await;
        assert_eq!(status, 200);
        assert!(visitor.rest(status, fields, "GET").await.text() == body);
    }
    visitor.send("GET / HTTP/1.0\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(soon("the response", visitor.head()).await.0, 200);
}

/// The other visitor's request comes on another connection.
const CLOSING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// The hint doesn't wait for the response, which here waits for the hint.
#[tokio::test]
async fn early_hints_come_early() {
    let (go, gone) = unbounded_channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let origin = OriginBox::raw(move |mut socket, _| {
        let gone = gone.clone();
        async move {
            read_head(&mut socket).await;
            let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            socket.write_all(hint).await.expect("the client reads");
            gone.lock().await.recv().await;
            socket.write_all(CLOSING).await.expect("the client reads");
        }
    })
    .await;
    let gateway = GatewayBox::start();
    let _backend = Backend::of(&gateway, &origin).await;
    let visitor = H2::connect(&gateway).await;
    let mut response = Box::pin(visitor.get("/").await);
    let interim = soon("the 103", std::future::poll_fn(|cx| response.poll_informational(cx)));
    assert_eq!(interim.await.expect("a 103").expect("a 103").status(), 103);
    go.send(()).expect("the origin waits");
    assert_eq!(soon("a response", response).await.expect("a response").status(), 200);

    let mut visitor = H1::connect(&gateway).await;
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(soon("the 103", visitor.head()).await.0, 103);
    go.send(()).expect("the origin waits");
    assert_eq!(soon("a response", visitor.head()).await.0, 200);
}

/// Ten of them pass; one more is a flood, and ends the exchange.
#[tokio::test]
async fn an_origin_that_never_stops_hinting_is_a_502() {
    let hint = "HTTP/1.1 103 Early Hints\r\nx: 1\r\n\r\n";
    for (hints, status) in [(10, 200), (11, 502), (5000, 502)] {
        let hints = hint.repeat(hints);
        let path =
            answering(format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
        let visitor = H2::connect(&path.gateway).await;
        let mut response = Box::pin(visitor.get("/").await);
        let mut count = 0;
        while let Some(interim) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
            assert_eq!(interim.expect("a 103").status(), 103);
            count += 1;
        }
        assert_eq!(count, 10);
        let answer = read_body(soon("a response", response).await.expect("a response")).await;
        assert_eq!(answer.status, status);
    }
}

/// A path to an origin that shows a chunked request as it came, up to the end of its trailers, and
/// answers with `answer`.
async fn trailing(answer: &'static str) -> Path<(Vec<u8>, Vec<u8>)> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            loop {
                let head = read_until(&mut socket, b"\r\n\r\n").await;
                if head.is_empty() {
                    return;
                }
                let chunked = !values(&head, "transfer-encoding").is_empty();
                let body =
                    if chunked { read_until(&mut socket, b"\r\n\r\n").await } else { Vec::new() };
                let _ = tell.send((head, body));
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return until_closed(&mut socket).await;
                }
            }
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

#[tokio::test]
async fn request_trailers_reach_the_origin() {
    let mut path = trailing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "900150983cd24fb0".parse().unwrap());
    for dialect in Dialect::BOTH {
        for body in ["abc", ""] {
            let ask = Ask { trailers: trailers.clone(), ..Ask::post("/", body) };
            // hyper passes on those that are announced (RFC 9110 §6.6.2).
            let ask = ask.with("trailer", "x-sum");
            let answer = dialect.ask(&path.gateway, &ask).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "ok"),
                "{dialect:?} {body:?}"
            );
            let (_, sent) = path.told().await;
            let sent = String::from_utf8(sent).unwrap();
            let expected = if body.is_empty() { "0\r\n" } else { "3\r\nabc\r\n0\r\n" };
            assert_eq!(sent, format!("{expected}x-sum: 900150983cd24fb0\r\n\r\n"), "{dialect:?}");
        }
    }
}

#[tokio::test]
async fn response_trailers_reach_the_visitor() {
    let path = trailing(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, content-length\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 9\r\ncontent-length: 7\r\n\r\n",
    )
    .await;
    for dialect in Dialect::BOTH {
        let answer = dialect.ask(&path.gateway, &Ask::get("/").with("te", "trailers")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "abc"), "{dialect:?}");
        assert_eq!(answer.trailers["x-sum"], "9", "{dialect:?}");
        assert_eq!(answer.trailers.len(), 1, "{dialect:?}: none that frames");
    }
}

/// GRPC's answer to a failed call has no message: a head, then trailers and nothing between; a call
/// without one has it in the head alone.
#[tokio::test]
async fn grpc_status_crosses_without_a_body() {
    let path = trailing(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\
         trailer: grpc-status\r\n\r\n0\r\ngrpc-status: 5\r\n\r\n",
    )
    .await;
    let ask = Ask::post("/pkg.Service/Call", [0, 0, 0, 0, 0]).with("te", "trailers");
    let ask = ask.with("content-type", "application/grpc");
    let visitor = H2::connect(&path.gateway).await;
    let answer = visitor.ask(&ask).await;
    assert_eq!((answer.status, answer.body.len(), answer.complete), (200, 0, true));
    assert_eq!(answer.trailers["grpc-status"], "5");
    let path = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 12\r\n\
         content-length: 0\r\n\r\n",
    )
    .await;
    let visitor = H2::connect(&path.gateway).await;
    let response = visitor.get("/pkg.Service/None").await;
    let response = soon("a response", response).await.expect("a response");
    assert!(response.body().is_end_stream(), "one HEADERS frame is all");
    assert_eq!(response.headers()["grpc-status"], "12");
}
