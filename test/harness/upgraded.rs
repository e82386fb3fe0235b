//! Visitors and origins past an upgrade: two byte streams, whatever the dialect.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use ptth_link::upgrade;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

use crate::h2::{read, read_body, send};
use crate::origin::read_head;
use crate::{Answer, Ask, Dialect, GatewayBox, H1, H2, soon};

/// A visitor who was let through.
#[derive(Debug)]
pub struct Upgraded {
    /// The two streams. Shutting down closes one half.
    pub io: DuplexStream,
    /// The fields of the response that let him through.
    pub fields: HeaderMap,
    #[allow(dead_code, reason = "held for its drop")]
    held: (Option<H2>, JoinSet<()>),
}

/// Asks for a WebSocket with `fields` of its own.
///
/// # Errors
/// The response that refused it.
pub async fn websocket(
    dialect: Dialect,
    gateway: &GatewayBox,
    fields: &[(&str, &str)],
) -> Result<Upgraded, Answer> {
    match dialect {
        Dialect::H1 => {
            let key = "dGhlIHNhbXBsZSBub25jZQ==";
            let key = [("sec-websocket-version", "13"), ("sec-websocket-key", key)];
            let upgraded = upgrade(gateway, "websocket", &[&key, fields].concat()).await?;
            let accept = upgraded.fields.get("sec-websocket-accept").expect("a proof");
            // The example of RFC 6455 §1.3.
            assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            Ok(upgraded)
        }
        Dialect::H2 => extended(H2::connect(gateway).await, "websocket", fields).await,
    }
}

/// Asks for an upgrade over HTTP/1.1.
///
/// # Errors
/// The response that refused it.
pub async fn upgrade(
    gateway: &GatewayBox,
    token: &str,
    fields: &[(&str, &str)],
) -> Result<Upgraded, Answer> {
    let mut ask = format!(
        "GET /up?grade HTTP/1.1\r\nHost: example.test\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: {token}\r\n"
    );
    for (name, value) in fields {
        ask.push_str(&format!("{name}: {value}\r\n"));
    }
    ask.push_str("\r\n");
    let mut visitor = H1::connect(gateway).await;
    visitor.send(ask).await;
    let answer = visitor.answer().await;
    if answer.status != 101 {
        return Err(answer);
    }
    assert_eq!(answer.field("upgrade"), token);
    assert!(answer.field("connection").eq_ignore_ascii_case("upgrade"));
    // Bytes that came with the head are the stream's first ones.
    let mut first = visitor.take_unread();
    let (near, far) = duplex(64 * 1024);
    let mut tasks = JoinSet::new();
    let (mut reader, mut writer) = tokio::io::split(visitor.stream);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    tasks.spawn(async move {
        let _ = far_writer.write_all(&std::mem::take(&mut first)).await;
        let _ = tokio::io::copy(&mut reader, &mut far_writer).await;
        let _ = far_writer.shutdown().await;
    });
    tasks.spawn(async move {
        let _ = tokio::io::copy(&mut far_reader, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    Ok(Upgraded { io: near, fields: answer.fields, held: (None, tasks) })
}

/// Asks for an upgrade over HTTP/2 (RFC 8441 §4).
///
/// # Errors
/// The response that refused it.
pub async fn extended(
    visitor: H2,
    protocol: &'static str,
    fields: &[(&str, &str)],
) -> Result<Upgraded, Answer> {
    // The gateway's SETTINGS are here when its first response is.
    visitor.ask(&Ask::new("OPTIONS", "/first")).await;
    assert!(visitor.sender.is_extended_connect_protocol_enabled());
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "https://example.test/up?grade".parse().expect("a target");
    request.extensions_mut().insert(::h2::ext::Protocol::from_static(protocol));
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        request.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let (response, mut stream) = visitor.open(request, false).await;
    let response = match soon("the answer to CONNECT", response).await {
        Ok(response) if response.status() == 200 => response,
        Ok(response) => return Err(read_body(response).await),
        Err(_) => return Err(read(visitor.get("/").await).await),
    };
    let (head, mut body) = response.into_parts();
    let (near, far) = duplex(64 * 1024);
    let (mut reader, mut writer) = tokio::io::split(far);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    tasks.spawn(async move {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = reader.read(&mut chunk).await {
            if !send(&mut stream, Bytes::copy_from_slice(&chunk[..read]), false).await {
                return;
            }
        }
        let _ = stream.send_data(Bytes::new(), true);
        // Held, or it would be reset.
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    });
    Ok(Upgraded { io: near, fields: head.headers, held: (Some(visitor), tasks) })
}

/// Accepts a WebSocket as an origin does, with `fields` of its own, and returns the head that asked.
pub async fn accept(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), fields: &str) -> String {
    let head = read_head(socket).await;
    let lower = head.to_ascii_lowercase();
    let key = lower.find("\r\nsec-websocket-key: ").map(|at| at + "\r\nsec-websocket-key: ".len());
    let key = key.and_then(|at| head.get(at..at + 24)).expect("a key of 16 bytes in base64");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
        upgrade::accept(key.as_bytes())
    );
    socket.write_all(answer.as_bytes()).await.expect("the client reads");
    head
}
