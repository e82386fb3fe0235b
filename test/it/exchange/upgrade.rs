//! What an upgraded connection is beneath the WebSocket: two byte streams, each with its own end.

use std::sync::Arc;

use ptth_test::frames::{DATA, ENABLE_CONNECT_PROTOCOL, HEADERS, TlsFrames, data, headers, reset};
use ptth_test::origin::read_head;
use ptth_test::upgraded::{accept, websocket};
use ptth_test::{Dialect, GatewayBox, H1, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc::unbounded_channel;

use super::{OK, Path};

/// A path to an origin that gives each upgraded connection to the test, and `OK` to other requests.
async fn handing_over() -> Path<TcpStream> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            if is_page(&socket).await {
                read_head(&mut socket).await;
                let _ = socket.write_all(OK.as_bytes()).await;
                return;
            }
            accept(&mut socket, "").await;
            let _ = tell.send(socket);
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

/// The harness asks for a page (OPTIONS) before it asks for an upgrade over HTTP/2.
async fn is_page(socket: &TcpStream) -> bool {
    let mut start = [0; 1];
    socket.peek(&mut start).await.is_ok() && start == *b"O"
}

async fn read_to_end(io: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    soon("the end of a half", io.read_to_string(&mut text)).await.expect("an end, and no reset");
    text
}

#[tokio::test]
async fn a_visitor_who_closes_his_half_still_hears_the_other() {
    let mut path = handing_over().await;
    for dialect in Dialect::BOTH {
        let mut upgraded = websocket(dialect, &path.gateway, &[]).await.expect("the upgrade");
        let visitor = &mut upgraded.io;
        let mut origin = path.told().await;
        visitor.write_all(b"question").await.expect("the gateway reads");
        visitor.shutdown().await.expect("the gateway reads");
        assert_eq!(read_to_end(&mut origin).await, "question", "{dialect:?}");
        origin.write_all(b"answer").await.expect("the client reads");
        drop(origin);
        assert_eq!(read_to_end(visitor).await, "answer", "{dialect:?}");
    }
}

#[tokio::test]
async fn an_origin_that_closes_its_half_still_hears_the_other() {
    let mut path = handing_over().await;
    for dialect in Dialect::BOTH {
        let mut upgraded = websocket(dialect, &path.gateway, &[]).await.expect("the upgrade");
        let visitor = &mut upgraded.io;
        let mut origin = path.told().await;
        origin.write_all(b"hello").await.expect("the client reads");
        origin.shutdown().await.expect("the client reads");
        assert_eq!(read_to_end(visitor).await, "hello", "{dialect:?}");
        for word in ["are", "you", "there"] {
            visitor.write_all(word.as_bytes()).await.expect("the gateway reads");
            let mut heard = vec![0; word.len()];
            let read = origin.read_exact(&mut heard);
            soon("a word", read).await.expect("the origin's other half is open");
            assert_eq!(heard, word.as_bytes(), "{dialect:?}");
        }
        visitor.shutdown().await.expect("the gateway reads");
        assert_eq!(read_to_end(&mut origin).await, "", "{dialect:?}");
    }
}

/// A connection that was reset doesn't look as if it had ended.
#[tokio::test]
async fn an_origins_reset_cuts_the_visitor_off() {
    let mut path = handing_over().await;
    let mut visitor = TlsFrames::visitor(&path.gateway).await;
    visitor.send(headers(1, &CONNECT, false)).await;
    let answer = visitor.next_of(HEADERS).await;
    assert!(!answer.ends());
    let origin = path.told().await;
    // RFC 9293 §3.10.4: with an unread byte in it, a socket is reset by its close.
    visitor.send(data(1, b"never read", false)).await;
    soon("a byte", origin.readable()).await.expect("a byte");
    origin.set_zero_linger().expect("Linux");
    drop(origin);
    let end = soon("RST_STREAM", visitor.next()).await.expect("a frame");
    assert!(!end.ends(), "{end:?}");
    assert_eq!(end.kind, ptth_test::frames::RST_STREAM);
}

const CONNECT: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "example.test"),
    (":path", "/up"),
    ("sec-websocket-version", "13"),
];

/// Frame by frame, as RFC 8441 §5.1 has it.
#[tokio::test]
async fn an_extended_connect_by_hand() {
    let mut path = handing_over().await;
    let mut visitor = TlsFrames::visitor(&path.gateway).await;
    let theirs = visitor.settings().await;
    assert!(theirs.contains(&(ENABLE_CONNECT_PROTOCOL, 1)), "{theirs:?}");
    visitor.send(headers(1, &CONNECT, false)).await;
    let answer = visitor.next_of(HEADERS).await;
    // RFC 7541, appendix A: 8 is `:status: 200`.
    assert_eq!((answer.payload[0], answer.ends()), (0x88, false));
    let mut origin = path.told().await;
    visitor.send(data(1, b"one", false)).await;
    let mut heard = [0; 3];
    soon("a word", origin.read_exact(&mut heard)).await.expect("a word");
    origin.write_all(b"two").await.expect("the client reads");
    let word = visitor.next_of(DATA).await;
    assert_eq!((word.payload.as_slice(), word.ends()), (&b"two"[..], false));
    origin.shutdown().await.expect("the client reads");
    assert!(visitor.next_of(DATA).await.ends());
    visitor.send(data(1, b"three", true)).await;
    assert_eq!(read_to_end(&mut origin).await, "three");
}

/// RFC 9931: what a visitor sends ahead of the 101 stays at the gateway until it is there.
#[tokio::test]
async fn bytes_before_the_101_are_not_delivered_early() {
    let (tell, told) = unbounded_channel();
    let (go, gone) = unbounded_channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let origin = OriginBox::raw(move |mut socket, number| {
        let (tell, gone) = (tell.clone(), gone.clone());
        async move {
            if number > 0 {
                read_head(&mut socket).await;
                let _ = socket.write_all(OK.as_bytes()).await;
                return;
            }
            let head = read_head(&mut socket).await;
            let _ = tell.send("asked".to_owned());
            gone.lock().await.recv().await;
            let early = socket.try_read(&mut [0; 1]);
            let _ = tell.send(format!("{:?}", early.map_err(|err| err.kind())));
            let mut replay = tokio::io::join(std::io::Cursor::new(head), &mut socket);
            accept(&mut replay, "").await;
            let mut bytes = [0; 10];
            socket.read_exact(&mut bytes).await.expect("the bytes");
            let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
        }
    })
    .await;
    let mut path = Path::new(GatewayBox::start(), origin, told).await;
    let mut visitor = H1::connect(&path.gateway).await;
    visitor
        .send(
            "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
             optimistic",
        )
        .await;
    assert_eq!(path.told().await, "asked");
    // Whatever was sent with the head would have come before this.
    assert_eq!(H1::get(&path.gateway, "/").await.status, 200);
    go.send(()).expect("the origin waits");
    assert_eq!(path.told().await, "Err(WouldBlock)");
    assert_eq!(path.told().await, "optimistic", "nothing is lost, either");
}

/// RFC 9931: when the upgrade is refused they are HTTP, and judged as such.
#[tokio::test]
async fn bytes_after_a_refused_upgrade_are_http() {
    let mut path = super::answering("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await;
    let ask =
        "GET /up HTTP/1.1\r\nHost: example.test\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(format!("{ask}GET /next HTTP/1.1\r\nHost: example.test\r\n\r\n")).await;
    assert_eq!(visitor.answer().await.status, 403);
    assert_eq!(visitor.answer().await.status, 403);
    assert_eq!(super::request_line(&path.told().await), "GET /up HTTP/1.1");
    assert_eq!(super::request_line(&path.told().await), "GET /next HTTP/1.1");
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(format!("{ask}\x16\x03\x01 no HTTP\r\n\r\n")).await;
    assert_eq!(visitor.answer().await.status, 403);
    assert_eq!(visitor.answer().await.status, 400);
    assert!(visitor.is_closed().await);
}

/// A foreign backend without RFC 8441 sees an ordinary request, and over HTTP/2 it is refused.
#[tokio::test]
async fn a_backend_without_extended_connect_is_not_sent_one() {
    let gateway = GatewayBox::start();
    let mut backend = TlsFrames::backend(&gateway, "foreign.0", &[]).await;
    let serve = async {
        loop {
            let ask = backend.next_of(HEADERS).await;
            assert!(ask.ends(), "a GET without a body");
            backend.send(headers(ask.stream, &[(":status", "200")], true)).await;
        }
    };
    let visit = async {
        gateway.until_tunnels(1).await;
        let h1 = websocket(Dialect::H1, &gateway, &[]).await.expect_err("no WebSocket");
        assert_eq!(h1.status, 200);
        let h2 = websocket(Dialect::H2, &gateway, &[]).await.expect_err("no WebSocket");
        assert_eq!(h2.status, 501);
    };
    tokio::select! {
        () = serve => {}
        () = visit => {}
    }
}

/// Nobody who resets a WebSocket takes his neighbours along.
#[tokio::test]
async fn a_reset_websocket_leaves_its_neighbours() {
    let mut path = handing_over().await;
    let mut visitor = TlsFrames::visitor(&path.gateway).await;
    visitor.send([headers(1, &CONNECT, false), headers(3, &CONNECT, false)].concat()).await;
    visitor.next_of(HEADERS).await;
    visitor.next_of(HEADERS).await;
    let mut origins = [path.told().await, path.told().await];
    visitor.send([data(1, b"1", false), data(3, b"3", false)].concat()).await;
    for origin in &mut origins {
        soon("a byte", origin.readable()).await.expect("a byte");
    }
    let mut first = [0; 1];
    soon("a byte", origins[0].read_exact(&mut first)).await.expect("a byte");
    let (gone, stays, stream) = if first == *b"1" { (0, 1, 3) } else { (1, 0, 3) };
    visitor.send(reset(1, 8)).await;
    if gone == 1 {
        soon("a byte", origins[1].read_exact(&mut first)).await.expect("a byte");
    }
    soon("the close", ptth_test::origin::until_closed(&mut origins[gone])).await;
    origins[stays].write_all(b"still here").await.expect("the client reads");
    let word = visitor.next_of(DATA).await;
    assert_eq!((word.stream, word.payload.as_slice()), (stream, &b"still here"[..]));
}
