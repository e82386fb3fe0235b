//! Visitors: a TLS connection with the ALPN that a test wants, and enough HTTP/1.1 to read a response.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ::h2::client::SendRequest;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use ptth_link::crypto;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{GatewayBox, Hello, soon};

/// Trusts everybody: these tests are about what comes after.
#[derive(Debug)]
pub struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client configuration that trusts anybody and offers `alpn`.
pub fn tls(alpn: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|label| label.to_vec()).collect();
    config
}

/// A visitor's TLS connection to `gateway` that offers `alpn`.
///
/// # Errors
/// Those of the handshake.
pub async fn connect(
    gateway: &GatewayBox,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_to(gateway.address, alpn).await
}

/// The same, to whoever listens at `address`.
///
/// # Errors
/// Those of the handshake.
pub async fn connect_to(
    address: SocketAddr,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    shake(TcpStream::connect(address).await?, alpn).await
}

/// The same, coming from another address of the loopback network than everybody else.
///
/// # Errors
/// Those of the handshake.
pub async fn connect_from(
    own: Ipv4Addr,
    address: SocketAddr,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    shake(tcp_from(own, address).await?, alpn).await
}

/// A TCP connection that comes from that address of the loopback network.
///
/// # Errors
/// Those of the socket.
pub async fn tcp_from(own: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((own, 0)))?;
    let socket = socket.connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// TLS on a TCP connection that is there already.
///
/// # Errors
/// Those of the handshake.
pub async fn shake(socket: TcpStream, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("example.test").expect("a name");
    TlsConnector::from(Arc::new(tls(alpn))).connect(name, socket).await
}

/// A visitor's HTTP/2 connection to `gateway`, driven by a task of `tasks`.
pub async fn connect_h2(gateway: &GatewayBox, tasks: &mut JoinSet<()>) -> SendRequest<Bytes> {
    handshake(connect(gateway, &[b"h2"]).await.expect("TLS"), tasks).await
}

/// A visitor's HTTP/2 connection over `stream`, driven by a task of `tasks`.
pub async fn handshake<IO>(stream: IO, tasks: &mut JoinSet<()>) -> SendRequest<Bytes>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = ::h2::client::Builder::new()
        .initial_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(stream)
        .await
        .expect("HTTP/2");
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender.ready().await.expect("HTTP/2")
}

/// A visitor's HTTP/1.1 connection, by hand: what is sent is what the test wrote.
#[derive(Debug)]
pub struct H1<IO = TlsStream<TcpStream>> {
    /// The TLS stream, or what stands for it.
    pub stream: IO,
    unread: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The fields, in order.
    pub fields: HeaderMap,
    /// The body, chunks put together.
    pub body: Vec<u8>,
    /// Whether the body came to the end that its framing announced.
    pub complete: bool,
    /// Trailers after the last chunk.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field's value as text; empty if there is none.
    pub fn field(&self, name: &str) -> String {
        let value = self.fields.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }
}

impl H1 {
    /// Connects.
    pub async fn connect(gateway: &GatewayBox) -> Self {
        let stream = connect(gateway, &[b"http/1.1"]).await.expect("TLS");
        Self::over(stream)
    }

    /// Connects to a gateway that is no box.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn to(address: SocketAddr) -> std::io::Result<Self> {
        let stream = Hello::offering(&[b"http/1.1"]).connect(address).await?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// One request on a connection of its own.
    pub async fn ask(gateway: &GatewayBox, request: impl AsRef<[u8]>) -> Answer {
        let mut visitor = Self::connect(gateway).await;
        visitor.send(request).await;
        visitor.answer().await
    }

    /// GET on a connection of its own.
    pub async fn get(gateway: &GatewayBox, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n");
        Self::ask(gateway, request).await
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> H1<IO> {
    /// A visitor on a connection that is there already.
    pub fn over(stream: IO) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Writes bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the gateway reads");
    }

    /// Writes bytes to a gateway that may have closed.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Reads a final response with its body; 1xx ones are skipped.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// The same, to a request of that method: HEAD has no body.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        soon("a response", async {
            loop {
                let (status, fields) = self.head().await;
                if !(100..200).contains(&status) || status == 101 {
                    return self.body(status, fields, method).await;
                }
            }
        })
        .await
    }

    /// Reads a head: the status, 0 if the connection ended before, and the fields.
    pub async fn head(&mut self) -> (u16, HeaderMap) {
        let Some(head) = self.until(b"\r\n\r\n").await else { return (0, HeaderMap::new()) };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let fields = fields(lines);
        // Twice, even equal, is a message that two readers frame in two ways (RFC 9112 §6.3).
        for once in ["content-length", "transfer-encoding", "date"] {
            assert!(fields.get_all(once).iter().count() <= 1, "{head}");
        }
        (status.expect("a status line"), fields)
    }

    /// Reads what follows a head.
    pub async fn rest(&mut self, status: u16, fields: HeaderMap, method: &str) -> Answer {
        self.body(status, fields, method).await
    }

    async fn body(&mut self, status: u16, fields: HeaderMap, method: &str) -> Answer {
        let mut answer =
            Answer { status, fields, body: Vec::new(), complete: true, trailers: HeaderMap::new() };
        if method == "HEAD" || matches!(status, 0 | 101 | 204 | 304) {
            return answer;
        }
        if answer.field("transfer-encoding").eq_ignore_ascii_case("chunked") {
            answer.complete = self.chunks(&mut answer).await.is_some();
        } else if let Ok(length) = answer.field("content-length").parse::<usize>() {
            while self.unread.len() < length && self.fill().await {}
            let here = length.min(self.unread.len());
            answer.body = self.unread.drain(..here).collect();
            answer.complete = here == length;
        } else {
            while self.fill().await {}
            answer.body = std::mem::take(&mut self.unread);
        }
        answer
    }

    async fn chunks(&mut self, answer: &mut Answer) -> Option<()> {
        loop {
            let line = self.until(b"\r\n").await?;
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            if size == 0 {
                let mut text = String::new();
                loop {
                    let line = self.until(b"\r\n").await?;
                    if line == b"\r\n" {
                        answer.trailers = fields(text.split("\r\n"));
                        return Some(());
                    }
                    text.push_str(&String::from_utf8_lossy(&line));
                }
            }
            while self.unread.len() < size + 2 {
                if !self.fill().await {
                    answer.body.append(&mut self.unread);
                    return None;
                }
            }
            answer.body.extend(self.unread.drain(..size));
            self.unread.drain(..2);
        }
    }

    /// Reads up to and including `end`; `None` if the connection ended first.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads at least `count` bytes more than a head, or what came before the end.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count && self.fill().await {}
        let here = count.min(self.unread.len());
        self.unread.drain(..here).collect()
    }

    /// Whether the gateway has closed the connection, with nothing left to read.
    pub async fn is_closed(&mut self) -> bool {
        soon("the gateway's close", async { self.unread.is_empty() && !self.fill().await }).await
    }

    /// What came and was not asked for yet.
    pub fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = Vec::with_capacity(64 * 1024);
        match self.stream.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => false,
            Ok(_) => {
                self.unread.append(&mut chunk);
                true
            }
        }
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a field name");
        fields.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).expect("a value"));
    }
    fields
}
