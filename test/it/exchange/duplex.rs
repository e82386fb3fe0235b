//! Both directions at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use ptth_test::h2::{read_body, send};
use ptth_test::origin::{read_head, read_until, until_closed};
use ptth_test::service::service;
use ptth_test::{Ask, Backend, GatewayBox, H1, H2, Lab, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

use super::Path;

const MIB: usize = 1 << 20;

/// A path to an origin that reads a little of each upload, answers 413 with a mebibyte, reads no more,
/// and says when its connection was closed.
async fn refusing(close: &'static str) -> Path<&'static str> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            read_head(&mut socket).await;
            socket.read_exact(&mut [0; 1000]).await.expect("a body");
            let head =
                format!("HTTP/1.1 413 Content Too Large\r\n{close}content-length: {MIB}\r\n\r\n");
            socket.write_all(head.as_bytes()).await.expect("the client reads");
            socket.write_all(&vec![b'n'; MIB]).await.expect("the client reads");
            until_closed(&mut socket).await;
            let _ = tell.send("closed");
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

/// The visitor sends for ever and reads the whole refusal all the same; then the upload is stopped,
/// at the origin too.
#[tokio::test]
async fn an_early_refusal_reaches_a_visitor_of_http1_whole() {
    for close in ["", "connection: close\r\n"] {
        let mut path = refusing(close).await;
        let visitor = H1::connect(&path.gateway).await;
        let (mut reader, mut writer) = tokio::io::split(visitor.stream);
        let upload = async {
            let head =
                b"POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 99999999999\r\n\r\n";
            writer.write_all(head).await.expect("the gateway reads");
            let block = vec![0; 64 * 1024];
            while writer.write_all(&block).await.is_ok() {}
        };
        let download = async {
            let head = read_head(&mut reader).await;
            assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
            let mut body = vec![0; MIB];
            reader.read_exact(&mut body).await.expect("the whole response");
            assert!(body.iter().all(|b| *b == b'n'));
            assert_eq!(path.told().await, "closed");
        };
        tokio::select! {
            () = upload => panic!("the gateway closed before it sent the response"),
            () = soon("the response and the origin's close", download) => {}
        }
    }
}

/// RFC 9113 §8.1
#[tokio::test]
async fn an_early_refusal_reaches_a_visitor_of_http2_whole() {
    for close in ["", "connection: close\r\n"] {
        let mut path = refusing(close).await;
        let visitor = H2::connect(&path.gateway).await;
        let (response, mut stream) = visitor.open(Ask::new("POST", "/").head(), false).await;
        let upload = async {
            let block = Bytes::from(vec![0; 64 * 1024]);
            while send(&mut stream, block.clone(), false).await {}
            std::future::poll_fn(|cx| stream.poll_reset(cx)).await
        };
        let download = async { read_body(response.await.expect("a response")).await };
        let both = async { tokio::join!(upload, download) };
        let (reset, answer) = soon("the end of the upload", both).await;
        assert_eq!((answer.status, answer.body.len(), answer.complete), (413, MIB, true));
        assert_eq!(reset.expect("a reset"), ::h2::Reason::NO_ERROR);
        assert_eq!(path.told().await, "closed");
        // The connection lives on.
        let (response, mut stream) = visitor.open(Ask::new("POST", "/").head(), false).await;
        assert!(send(&mut stream, Bytes::from(vec![0; 1000]), true).await);
        assert_eq!(soon("a response", response).await.expect("a response").status(), 413);
    }
}

/// Many read only after they sent everything; they have half a minute, if they keep sending.
#[tokio::test(start_paused = true)]
async fn a_visitor_who_sends_on_is_given_time_to_read_the_refusal() {
    let refusal = service(|_| async {
        let mut response = Response::new("too much\n".to_owned());
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        Ok::<_, std::convert::Infallible>(response)
    });
    let mut lab = Lab::serving(refusal).await;
    let mut visitor = lab.h1();
    visitor.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").await;
    let begun = Instant::now();
    let mut sent = 0;
    while visitor.try_send(&[0; 1000]).await.is_ok() {
        sent += 1;
        sleep(Duration::from_secs(1)).await;
    }
    assert!((25..=35).contains(&begun.elapsed().as_secs()), "{:?}, {sent}", begun.elapsed());
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "too much\n"));
    // Who stops sending is waited for no longer.
    let mut visitor = lab.h1();
    visitor.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 413);
    sleep(Duration::from_secs(3)).await;
    assert!(visitor.try_send(&[0; 1000]).await.is_err(), "closed");
}

/// The response has no body at all, and the upload is large.
#[tokio::test]
async fn an_early_empty_response_stops_the_upload() {
    let path =
        super::answering("HTTP/1.1 403 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let path = path.await;
    let mut h1 = H1::connect(&path.gateway).await;
    h1.send("POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 99999999999\r\n\r\n").await;
    assert_eq!(h1.answer().await.status, 403);
    assert!(h1.is_closed().await);
    let h2 = H2::connect(&path.gateway).await;
    let (response, mut stream) = h2.open(Ask::new("POST", "/").head(), false).await;
    let answer = ptth_test::h2::read(response).await;
    assert_eq!((answer.status, answer.complete), (403, true));
    let reset = soon("RST_STREAM", std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
    assert_eq!(reset.expect("a reset"), ::h2::Reason::NO_ERROR);
}

/// Nothing more comes but the end.
async fn ends(body: &mut ::h2::RecvStream) {
    while let Some(data) = soon("the end", body.data()).await {
        assert!(data.expect("an end, and no reset").is_empty());
    }
}

/// A path to an origin that sends, as an event stream, what the test gives it.
async fn events() -> (Path<()>, UnboundedSender<&'static str>) {
    let (give, given) = unbounded_channel::<&'static str>();
    let given = Arc::new(Mutex::new(given));
    let (_, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let given = given.clone();
        async move {
            read_head(&mut socket).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                         transfer-encoding: chunked\r\n\r\n";
            socket.write_all(head).await.expect("the client reads");
            while let Some(event) = given.lock().await.recv().await {
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                socket.write_all(chunk.as_bytes()).await.expect("the client reads");
                if event.is_empty() {
                    return;
                }
            }
        }
    })
    .await;
    (Path::new(GatewayBox::start(), origin, told).await, give)
}

/// Each event arrives before the next one is written, so none waits for company.
#[tokio::test]
async fn each_event_arrives_by_itself() {
    let (path, give) = events().await;
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(Ask::get("/events").text()).await;
    assert_eq!(soon("the head, before any event", visitor.head()).await.0, 200);
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        give.send(event).expect("the origin waits");
        let read = soon("the event", visitor.until(format!("{event}\r\n").as_bytes())).await;
        assert_eq!(String::from_utf8(read.unwrap()).unwrap(), format!("9\r\n{event}\r\n"));
    }
    give.send("").expect("the origin waits");
    assert_eq!(soon("the end", visitor.until(b"0\r\n\r\n")).await.unwrap(), b"0\r\n\r\n");

    let (path, give) = events().await;
    let visitor = H2::connect(&path.gateway).await;
    let response = soon("the head", visitor.get("/events").await).await.expect("a response");
    let mut body = response.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        give.send(event).expect("the origin waits");
        let data = soon("the event", body.data()).await.expect("an event").expect("an event");
        assert_eq!(data, event);
    }
    give.send("").expect("the origin waits");
    ends(&mut body).await;
}

/// Answers each chunk with itself before it reads the next.
async fn parrot(mut socket: TcpStream) {
    if read_head(&mut socket).await.is_empty() {
        return;
    }
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head).await.expect("the client reads");
    loop {
        let size = read_until(&mut socket, b"\r\n").await;
        let mut chunk = read_until(&mut socket, b"\r\n").await;
        if size.is_empty() || chunk.is_empty() {
            return;
        }
        chunk.splice(0..0, size);
        let end = chunk == b"0\r\n\r\n";
        socket.write_all(&chunk).await.expect("the client reads");
        if end {
            return;
        }
    }
}

/// Each side writes after it read what the other wrote.
#[tokio::test]
async fn both_directions_move_by_turns() {
    let origin = OriginBox::raw(|socket, _| parrot(socket)).await;
    let gateway = GatewayBox::start();
    let _backend = Backend::of(&gateway, &origin).await;
    let mut visitor = H1::connect(&gateway).await;
    visitor
        .send("POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(soon("the head, before any byte of the body", visitor.head()).await.0, 200);
    for turn in 0..20 {
        let chunk = format!("6\r\nturn{turn:02}\r\n");
        visitor.send(&chunk).await;
        let echo = soon("the echo", visitor.until(format!("turn{turn:02}\r\n").as_bytes())).await;
        assert_eq!(String::from_utf8(echo.unwrap()).unwrap(), chunk);
    }
    visitor.send("0\r\n\r\n").await;
    assert_eq!(soon("the end", visitor.until(b"0\r\n\r\n")).await.unwrap(), b"0\r\n\r\n");

    let visitor = H2::connect(&gateway).await;
    let (response, mut stream) = visitor.open(Ask::new("POST", "/").head(), false).await;
    let mut body = soon("the head", response).await.expect("a response").into_body();
    for turn in 0..20 {
        let chunk = Bytes::from(format!("turn{turn:02}"));
        assert!(send(&mut stream, chunk.clone(), false).await);
        assert_eq!(soon("the echo", body.data()).await.expect("data").expect("data"), chunk);
    }
    stream.send_data(Bytes::new(), true).expect("the end");
    ends(&mut body).await;
}

/// A service that answers without a look at the body ends the upload.
#[tokio::test]
async fn a_whole_response_ends_an_upload_that_nobody_reads() {
    let gateway = GatewayBox::start();
    let _backend = Backend::demo(&gateway).await;
    let visitor = H2::connect(&gateway).await;
    // The demo answers GET without a look at the body.
    let (response, mut stream) = visitor.open(Ask::get("/").head(), false).await;
    let answer = ptth_test::h2::read(response).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Transmission is possible!\n"));
    let reset = soon("RST_STREAM", std::future::poll_fn(|cx| stream.poll_reset(cx))).await;
    assert_eq!(reset.expect("a reset"), ::h2::Reason::NO_ERROR);
}
