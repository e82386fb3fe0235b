//! The visitor leaves, and the origin's connection is closed; nothing runs later, or twice.

use std::time::Duration;

use bytes::Bytes;
use ptth_test::h2::send;
use ptth_test::origin::{read_head, until_closed};
use ptth_test::upgraded::{accept, websocket};
use ptth_test::{Ask, Dialect, GatewayBox, H1, H2, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{OK, Path};

/// A path to an origin that never ends by itself. It tells what it was asked, when the exchange has got
/// as far as its path says, and when its connection was closed.
async fn endless(gateway: GatewayBox) -> Path<String> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |socket, _| serve(socket, tell.clone())).await;
    Path::new(gateway, origin, told).await
}

async fn serve(mut socket: TcpStream, tell: UnboundedSender<String>) {
    let mut start = [0; 1];
    if socket.peek(&mut start).await.is_ok() && start == *b"O" {
        // The harness's first request over HTTP/2, before it asks for a WebSocket.
        read_head(&mut socket).await;
        let _ = socket.write_all(OK.as_bytes()).await;
        return;
    }
    if start == *b"G" && peeks_websocket(&socket).await {
        accept(&mut socket, "").await;
        let _ = tell.send("at /websocket".to_owned());
        until_closed(&mut socket).await;
        let _ = tell.send("closed".to_owned());
        return;
    }
    let head = read_head(&mut socket).await;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = match path.as_str() {
        "/events" => socket.write_all(format!("{chunked}9\r\ndata: 1\n\n\r\n").as_bytes()).await,
        "/download" | "/idle" => socket.write_all(chunked.as_bytes()).await,
        "/upload" => socket.read_exact(&mut [0; 100_000]).await.map(|_| ()),
        _ => Ok(()),
    };
    let _ = tell.send(format!("at {path}"));
    if path == "/download" {
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        while socket.write_all(chunk.as_bytes()).await.is_ok() {}
    } else {
        until_closed(&mut socket).await;
    }
    let _ = tell.send("closed".to_owned());
}

async fn peeks_websocket(socket: &TcpStream) -> bool {
    let mut head = [0; 12];
    loop {
        match socket.peek(&mut head).await {
            Ok(12) => return head == *b"GET /up?grad",
            Ok(1..) => tokio::task::yield_now().await,
            _ => return false,
        }
    }
}

/// How a visitor leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// His TCP connection ends.
    Connection(Dialect),
    /// RST_STREAM; his connection goes on.
    Reset,
}

const WAYS: [Way; 3] = [Way::Connection(Dialect::H1), Way::Connection(Dialect::H2), Way::Reset];

/// Sends GET, or an upload that goes on until the origin has seen some of it, and leaves.
async fn come_and_leave(path: &mut Path<String>, ask: &Ask, way: Way) {
    let at = format!("at {}", ask.path);
    let upload = ask.method == http::Method::POST;
    if way == Way::Connection(Dialect::H1) {
        let mut visitor = H1::connect(&path.gateway).await;
        let length = if upload { "Content-Length: 99999999\r\n" } else { "" };
        let head =
            format!("{} {} HTTP/1.1\r\nHost: example.test\r\n{length}\r\n", ask.method, ask.path);
        visitor.send(head).await;
        if upload {
            visitor.send(vec![0; 200_000]).await;
        }
        assert_eq!(path.told().await, at, "{way:?}");
        return;
    }
    let visitor = H2::connect(&path.gateway).await;
    let (response, mut stream) = visitor.open(ask.head(), !upload).await;
    if upload {
        assert!(send(&mut stream, Bytes::from(vec![0; 200_000]), false).await);
    }
    assert_eq!(path.told().await, at, "{way:?}");
    if way == Way::Reset {
        stream.send_reset(::h2::Reason::CANCEL);
        drop(response);
        // The connection is closed only after the origin's.
        assert_eq!(path.told().await, "closed", "{way:?} {}", ask.path);
        let next = soon("a response", visitor.get("/events").await).await.expect("a response");
        assert_eq!(next.status(), 200);
        assert_eq!(path.told().await, "at /events");
    }
}

/// Waiting for the head, downloading, on an event stream, on one that is silent, uploading.
#[tokio::test]
async fn a_visitor_who_leaves_closes_the_origins_connection() {
    let mut path = endless(GatewayBox::start()).await;
    let asks = ["/silent", "/download", "/events", "/idle"].map(Ask::get);
    for ask in asks.into_iter().chain([Ask::new("POST", "/upload")]) {
        for way in WAYS {
            come_and_leave(&mut path, &ask, way).await;
            assert_eq!(path.told().await, "closed", "{way:?} {}", ask.path);
        }
    }
    assert!(path.told.is_empty(), "nothing runs later");
}

#[tokio::test]
async fn a_visitor_who_leaves_a_websocket_closes_the_origins_connection() {
    let mut path = endless(GatewayBox::start()).await;
    for dialect in Dialect::BOTH {
        let visitor = websocket(dialect, &path.gateway, &[]).await.expect("a WebSocket");
        assert_eq!(path.told().await, "at /websocket");
        drop(visitor);
        assert_eq!(path.told().await, "closed", "{dialect:?}");
    }
}

/// A visitor who is cut off in the middle of his upload sent a request that never ended.
#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let (tell, mut told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            read_head(&mut socket).await;
            let mut body = Vec::new();
            let _ = tell.send(Vec::new());
            let _ = socket.read_to_end(&mut body).await;
            let _ = tell.send(body);
        }
    })
    .await;
    let gateway = GatewayBox::start();
    let _backend = ptth_test::Backend::of(&gateway, &origin).await;
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut visitor = H1::connect(&gateway).await;
        let body = if framing.ends_with("10") { "hello" } else { "5\r\nhello\r\n" };
        visitor.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}")).await;
        soon("the request", told.recv()).await.expect("the origin lives");
        drop(visitor);
        let body = soon("its end", told.recv()).await.expect("the origin lives");
        let body = String::from_utf8(body).unwrap();
        assert!(["", "hello", "5\r\nhello\r\n"].contains(&body.as_str()), "{framing}: {body:?}");
    }
}

/// 504, the origin's connection is closed, and it is asked once.
#[tokio::test]
async fn a_request_that_timed_out_is_never_run_later() {
    let gateway = GatewayBox::with(|config| config.limits.head = Duration::from_millis(300));
    let mut path = endless(gateway).await;
    for dialect in Dialect::BOTH {
        let answer = dialect.ask(&path.gateway, &Ask::get("/silent")).await;
        assert_eq!(answer.status, 504, "{dialect:?}");
        assert_eq!(path.told().await, "at /silent", "{dialect:?}");
        assert_eq!(path.told().await, "closed", "{dialect:?}");
    }
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(Ask::get("/events").text()).await;
    assert_eq!(path.told().await, "at /events", "and nothing in between");
}

/// A path to an origin that answers the first request of each connection, and closes it at once or, if
/// `late`, when it was asked again. It tells of each request, and of each close.
async fn fickle(late: bool) -> Path<String> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, number| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut socket).await;
            let _ = tell.send(super::request_line(head.as_bytes()));
            let _ = socket.write_all(OK.as_bytes()).await;
            if late {
                let head = read_head(&mut socket).await;
                let _ = tell.send(format!("{number}: {}", super::request_line(head.as_bytes())));
            }
            drop(socket);
            let _ = tell.send("closed".to_owned());
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

/// RFC 9112 §9.3.1: an idle connection that the origin closed costs nobody a request.
#[tokio::test]
async fn a_connection_that_the_origin_closed_is_not_used_again() {
    let mut path = fickle(false).await;
    for _ in 0..10 {
        for ask in [Ask::get("/x"), Ask::post("/x", "body")] {
            for dialect in Dialect::BOTH {
                let answer = dialect.ask(&path.gateway, &ask).await;
                assert_eq!(answer.status, 200, "{dialect:?} {}", ask.method);
                assert_eq!(path.told().await, format!("{} /x HTTP/1.1", ask.method));
                assert_eq!(path.told().await, "closed");
            }
        }
    }
}

/// RFC 9110 §9.2.2: once a byte of it was sent, it may have run: only what may run twice is sent again, once.
#[tokio::test]
async fn a_request_that_an_origin_took_and_dropped_is_sent_again_if_it_may_run_twice() {
    let mut path = fickle(true).await;
    for (n, ask, status) in [(0, Ask::post("/second", "body"), 502), (1, Ask::get("/second"), 200)]
    {
        assert_eq!(H1::get(&path.gateway, "/first").await.status, 200);
        assert_eq!(path.told().await, "GET /first HTTP/1.1");
        let answer = Dialect::H2.ask(&path.gateway, &ask).await;
        assert_eq!(answer.status, status, "{}", ask.method);
        assert_eq!(path.told().await, format!("{n}: {} /second HTTP/1.1", ask.method));
        assert_eq!(path.told().await, "closed");
    }
    assert_eq!(path.told().await, "GET /second HTTP/1.1", "on a fresh connection");
    assert!(path.told.is_empty());
}
