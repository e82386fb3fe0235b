//! WebSockets, with a library at both ends that knows nothing of tunnels.

use futures_util::{SinkExt, StreamExt};
use ptth_test::upgraded::{accept, extended, upgrade, websocket};
use ptth_test::{Ask, Backend, Dialect, GatewayBox, H1, H2, OriginBox, soon};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::{Path, answering, request_line, texts, values};

/// An origin that sends messages back, pings and closes when it is told to, and tells what it was sent.
async fn origin(mut socket: TcpStream, tell: UnboundedSender<Message>) {
    let fields = "Sec-WebSocket-Protocol: chat.v2\r\nX-Mine: 1\r\n";
    let head = accept(&mut socket, fields).await;
    assert!(head.starts_with("GET /up?grade HTTP/1.1\r\n"), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let answer = match &message {
            Message::Text(text) if text.as_str() == "ping" => Message::Ping("from origin".into()),
            Message::Text(text) if text.as_str() == "close" => {
                Message::Close(Some(CloseFrame { code: 4002.into(), reason: "enough".into() }))
            }
            Message::Text(_) | Message::Binary(_) => message.clone(),
            _ => {
                let _ = tell.send(message);
                continue;
            }
        };
        socket.send(answer).await.expect("the client reads");
    }
}

async fn path() -> Path<Message> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |socket, _| origin_or_page(socket, tell.clone())).await;
    Path::new(GatewayBox::start(), origin, told).await
}

/// The harness asks for a page before it asks for a WebSocket over HTTP/2.
async fn origin_or_page(mut socket: TcpStream, tell: UnboundedSender<Message>) {
    let mut start = [0; 1];
    if socket.peek(&mut start).await.is_ok() && start == *b"O" {
        ptth_test::origin::read_head(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
        return;
    }
    origin(socket, tell).await;
}

async fn visit<IO: AsyncRead + AsyncWrite + Unpin>(io: IO) -> WebSocketStream<IO> {
    WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

async fn next<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<IO>) -> Message {
    soon("a message", socket.next()).await.expect("a message").expect("a message")
}

#[tokio::test]
async fn messages_and_pings_cross_both_ways() {
    let mut path = path().await;
    for dialect in Dialect::BOTH {
        let upgraded = websocket(dialect, &path.gateway, &[]).await.expect("a WebSocket");
        let mut visitor = visit(upgraded.io).await;
        for size in [0, 1, 125, 126, 65535, 65536, 1 << 20] {
            let message = Message::Binary((0..size).map(|n| (n % 251) as u8).collect());
            visitor.send(message.clone()).await.expect("the gateway reads");
            assert!(next(&mut visitor).await == message, "{dialect:?}: {size} bytes changed");
        }
        visitor.send(Message::Text("h\u{e9}llo".into())).await.expect("the gateway reads");
        assert_eq!(next(&mut visitor).await, Message::Text("h\u{e9}llo".into()));
        visitor.send(Message::Ping("from visitor".into())).await.expect("the gateway reads");
        assert_eq!(next(&mut visitor).await, Message::Pong("from visitor".into()));
        assert_eq!(path.told().await, Message::Ping("from visitor".into()));
        visitor.send(Message::Text("ping".into())).await.expect("the gateway reads");
        assert_eq!(next(&mut visitor).await, Message::Ping("from origin".into()));
        visitor.flush().await.expect("the gateway reads");
        assert_eq!(path.told().await, Message::Pong(Bytes::from("from origin")));
    }
}

#[tokio::test]
async fn close_codes_cross_both_ways() {
    let mut path = path().await;
    for dialect in Dialect::BOTH {
        let upgraded = websocket(dialect, &path.gateway, &[]).await.expect("a WebSocket");
        let mut visitor = visit(upgraded.io).await;
        let bye = Message::Close(Some(CloseFrame { code: 4001.into(), reason: "bye".into() }));
        visitor.send(bye.clone()).await.expect("the gateway reads");
        assert_eq!(path.told().await, bye, "{dialect:?}");
        assert_eq!(next(&mut visitor).await, bye, "{dialect:?}: the origin's answer");
        assert!(soon("the end", visitor.next()).await.is_none(), "{dialect:?}");

        let upgraded = websocket(dialect, &path.gateway, &[]).await.expect("a WebSocket");
        let mut visitor = visit(upgraded.io).await;
        visitor.send(Message::Text("close".into())).await.expect("the gateway reads");
        let enough = CloseFrame { code: 4002.into(), reason: "enough".into() };
        assert_eq!(next(&mut visitor).await, Message::Close(Some(enough.clone())), "{dialect:?}");
        assert!(soon("the end", visitor.next()).await.is_none(), "{dialect:?}");
        assert_eq!(path.told().await, Message::Close(Some(enough)), "{dialect:?}: the answer");
    }
}

#[tokio::test]
async fn the_demo_has_a_websocket() {
    let gateway = GatewayBox::start();
    let _backend = Backend::demo(&gateway).await;
    for dialect in Dialect::BOTH {
        let upgraded = websocket(dialect, &gateway, &[]).await.expect("a WebSocket");
        let mut visitor = visit(upgraded.io).await;
        let message = Message::Binary(vec![7; 1 << 20].into());
        visitor.send(message.clone()).await.expect("the gateway reads");
        assert!(next(&mut visitor).await == message, "{dialect:?}");
        visitor.send(Message::Ping("x".into())).await.expect("the gateway reads");
        assert_eq!(next(&mut visitor).await, Message::Pong("x".into()));
        visitor.close(None).await.expect("the gateway reads");
        assert!(matches!(next(&mut visitor).await, Message::Close(None)), "{dialect:?}");
        assert!(soon("the end", visitor.next()).await.is_none(), "{dialect:?}");
    }
}

/// The subprotocol and the extensions are agreed on from end to end; the key is each hop's own.
#[tokio::test]
async fn the_handshakes_fields_cross() {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            let fields = "Sec-WebSocket-Protocol: chat.v2\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\n\
                          Sec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: a=1\r\n";
            let mut start = [0; 1];
            if socket.peek(&mut start).await.is_ok() && start == *b"O" {
                ptth_test::origin::read_head(&mut socket).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
                return;
            }
            let _ = tell.send(accept(&mut socket, fields).await);
        }
    })
    .await;
    let mut path = Path::new(GatewayBox::start(), origin, told).await;
    for dialect in Dialect::BOTH {
        let fields = [
            ("sec-websocket-protocol", "chat.v2, chat.v1"),
            ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
            ("sec-websocket-version", "13"),
            ("origin", "https://example.test"),
            ("cookie", "a=1"),
        ];
        let fields = if dialect == Dialect::H1 {
            [&fields[..2], &fields[3..]].concat()
        } else {
            fields.to_vec()
        };
        let upgraded = websocket(dialect, &path.gateway, &fields).await.expect("a WebSocket");
        assert_eq!(upgraded.fields["sec-websocket-protocol"], "chat.v2", "{dialect:?}");
        assert_eq!(upgraded.fields["sec-websocket-extensions"], "permessage-deflate");
        assert_eq!(upgraded.fields["set-cookie"], "a=1", "{dialect:?}");
        assert_eq!(upgraded.fields["x-mine"], "1", "{dialect:?}");
        assert!(!upgraded.fields.contains_key("keep-alive"), "{dialect:?}");
        let proof = upgraded.fields.contains_key("sec-websocket-accept");
        assert_eq!(proof, dialect == Dialect::H1, "{dialect:?}");
        let head = path.told().await.into_bytes();
        for (name, value) in fields {
            assert_eq!(texts(&head, name), [value], "{dialect:?}");
        }
        assert_eq!(texts(&head, "upgrade"), ["websocket"], "{dialect:?}");
        assert_eq!(texts(&head, "connection"), ["upgrade"], "{dialect:?}");
        assert_eq!(texts(&head, "sec-websocket-version"), ["13"], "{dialect:?}");
        assert_eq!(texts(&head, "host"), ["example.test"], "{dialect:?}");
        assert_eq!(values(&head, "x-forwarded-for").len(), 1, "{dialect:?}");
        assert!(values(&head, "content-length").is_empty(), "{dialect:?}");
        assert!(values(&head, "transfer-encoding").is_empty(), "{dialect:?}");
        // RFC 6455 §11.3.1: the sample's key stays with the visitor.
        assert_ne!(texts(&head, "sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    }
}

#[tokio::test]
async fn a_refusal_arrives_with_its_status_and_body() {
    let refusal =
        "HTTP/1.1 403 Forbidden\r\nx-why: it is late\r\ncontent-length: 8\r\n\r\nnot you\n";
    let path = answering(refusal).await;
    for dialect in Dialect::BOTH {
        let answer = websocket(dialect, &path.gateway, &[]).await.expect_err("a refusal");
        assert_eq!((answer.status, answer.text().as_str()), (403, "not you\n"), "{dialect:?}");
        assert_eq!(answer.field("x-why"), "it is late", "{dialect:?}");
        assert!(answer.complete, "{dialect:?}");
    }
    // The connection of the refused one goes on.
    let mut visitor = H1::connect(&path.gateway).await;
    for _ in 0..2 {
        visitor
            .send(
                "GET / HTTP/1.1\r\nHost: example.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        assert_eq!(visitor.answer().await.text(), "not you\n");
    }
}

/// Over HTTP/2, 200 would mean that it is a WebSocket.
#[tokio::test]
async fn a_page_instead_of_a_websocket_is_no_success() {
    let path = answering("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\na page\n").await;
    for dialect in Dialect::BOTH {
        let answer = websocket(dialect, &path.gateway, &[]).await.expect_err("no WebSocket");
        assert_eq!((answer.status, answer.text().as_str()), (501, "a page\n"), "{dialect:?}");
    }
}

#[tokio::test]
async fn an_origin_that_botches_the_proof_is_to_blame() {
    let path = answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await;
    for dialect in Dialect::BOTH {
        let gateway = &path.gateway;
        // The harness's first request is answered with 101 out of the blue.
        let answer = websocket(dialect, gateway, &[]).await.expect_err("no WebSocket");
        assert_eq!(answer.status, 502, "{dialect:?}");
    }
    assert_eq!(H1::get(&path.gateway, "/").await.status, 502, "nobody asked for an upgrade");
}

/// Any other upgrade crosses, too.
#[tokio::test]
async fn other_protocols_cross_from_http1() {
    let mut path = answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo/2\r\n\r\nfirst!",
    )
    .await;
    let mut upgraded = upgrade(&path.gateway, "foo/2", &[]).await.expect("the upgrade");
    let mut first = [0; 6];
    let read = tokio::io::AsyncReadExt::read_exact(&mut upgraded.io, &mut first);
    soon("the origin's first bytes", read).await.expect("bytes");
    assert_eq!(&first, b"first!");
    let head = path.told().await;
    assert_eq!(texts(&head, "upgrade"), ["foo/2"]);
    upgraded.io.write_all(b"raw bytes\r\n\r\n").await.expect("the gateway reads");
    assert_eq!(path.told().await, b"raw bytes\r\n\r\n");
    let visitor = H2::connect(&path.gateway).await;
    let answer = extended(visitor, "foo", &[]).await.expect_err("a refusal");
    assert_eq!(answer.status, 501);
}

/// An upgrade is a GET's (RFC 8441 §5 has no method to carry another one).
#[tokio::test]
async fn a_wish_that_can_not_cross_leaves_the_request_as_it_is() {
    let mut path = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for (method, token) in
        [("DELETE", "foo"), ("OPTIONS", "websocket"), ("GET", "\u{fc}"), ("GET", "h2c")]
    {
        let request = format!(
            "{method} /x HTTP/1.1\r\nHost: example.test\r\nConnection: upgrade\r\nUpgrade: {token}\r\n\r\n"
        );
        assert_eq!(H1::ask(&path.gateway, request).await.status, 200, "{method} {token}");
        let head = path.told().await;
        assert_eq!(request_line(&head), format!("{method} /x HTTP/1.1"));
        assert!(values(&head, "upgrade").is_empty(), "{method} {token}");
        assert!(values(&head, "transfer-encoding").is_empty(), "{method} {token}");
    }
    let answer = H1::ask(&path.gateway, Ask::get("/").text()).await;
    assert_eq!(answer.status, 200);
}
