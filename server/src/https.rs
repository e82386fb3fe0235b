//! Requests to one HTTP server that the operator named by a URL: an authorizer, a directory of certificates.
//!
//! In:  the URL and the certificates to know its server by; then requests.
//! Out: the head of each response, and its body as far as the caller wants one. The caller has the deadline.
//!
//! Invariant: the address that is dialled is the URL's, whatever a peer or a redirect says.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use http::header::HOST;
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri};
use ptth_client::config::OriginAddress;
use ptth_client::tls;
use ptth_link::crypto;
use ptth_link::h1::{self, ResponseReader};
use ptth_link::tcp::is_near;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What is dialled.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    origin: OriginAddress,
    /// What the certificate is checked for.
    name: ServerName<'static>,
    port: u16,
}

impl Server {
    /// Reads `https://host[:port]/path` or the same with `http://`, without user and password. The request is one for
    /// that URL.
    pub(crate) fn read(url: &[u8]) -> Option<(Self, Request<()>)> {
        let uri = Uri::try_from(url).ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
        let origin = OriginAddress::parse(&format!("{scheme}://{authority}")).ok()?;
        let (OriginAddress::Https { host, port } | OriginAddress::Http { host, port }) = &origin
        else {
            return None;
        };
        let (name, port) = (ServerName::try_from(host.clone()).ok()?, *port);
        let target = uri.path_and_query().cloned();
        let target = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let question = Request::builder().uri(target).header(HOST, authority).body(()).ok()?;
        Some((Self { origin, name, port }, question))
    }

    pub(crate) fn is_https(&self) -> bool {
        matches!(self.origin, OriginAddress::Https { .. })
    }

    /// Whether it is a public address, by its URL.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self.name, ServerName::IpAddress(address) if !is_near(address.into()))
    }

    /// The host, and the port unless it is the scheme's own.
    pub(crate) fn authority(&self) -> String {
        self.origin.authority()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

/// Why there is no answer. Nothing of it comes from a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HttpsError {
    #[error("it isn't there")]
    Absent,
    #[error("it can't be reached")]
    Unreachable,
    #[error("its name leads to a public address, and its URL is `http://`")]
    Public,
    #[error("its certificate isn't trusted")]
    Untrusted,
    #[error("it breaks the TLS handshake off")]
    Handshake,
    #[error("it gives no proper answer")]
    Answer,
}

pub(crate) struct HttpsClient {
    pub(crate) server: Server,
    tls: Option<TlsConnector>,
    /// Whether `http://` may leave this machine and its private network.
    anywhere: bool,
}

impl HttpsClient {
    /// Without `roots`, the server is known by the system's.
    pub(crate) fn new(
        server: Server,
        roots: Option<RootCertStore>,
        anywhere: bool,
    ) -> Result<Self, rustls::Error> {
        let tls = server.is_https().then(|| connector(roots)).transpose()?;
        Ok(Self { server, tls, anywhere })
    }

    /// Asks once, on a connection of its own, and reads a body of at most `most` bytes; with 0, the head alone.
    /// Cancel safe: the connection is closed.
    pub(crate) async fn ask(
        &self,
        request: &Request<()>,
        body: &[u8],
        most: usize,
    ) -> Result<(Parts, Vec<u8>), HttpsError> {
        self.ask_for(request, body, |_| most).await
    }

    /// The same; how much of the body is wanted depends on the status.
    pub(crate) async fn ask_for(
        &self,
        request: &Request<()>,
        body: &[u8],
        most: impl FnOnce(StatusCode) -> usize,
    ) -> Result<(Parts, Vec<u8>), HttpsError> {
        let Server { name, port, .. } = &self.server;
        let socket = TcpStream::connect((&*name.to_str(), *port)).await;
        let socket = socket.map_err(|err| match err.kind() {
            io::ErrorKind::ConnectionRefused => HttpsError::Absent,
            _ => HttpsError::Unreachable,
        })?;
        let Some(tls) = &self.tls else {
            // The name may lead anywhere, and change: what counts is where the socket ended.
            if self.anywhere || socket.peer_addr().is_ok_and(|peer| is_near(peer.ip())) {
                return converse(socket, request, body, most).await;
            }
            return Err(HttpsError::Public);
        };
        let secured = tls.connect(name.clone(), socket).await;
        let secured =
            secured.map_err(|err| match err.get_ref().and_then(|err| err.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_)) => HttpsError::Untrusted,
                _ => HttpsError::Handshake,
            })?;
        converse(secured, request, body, most).await
    }
}

fn connector(roots: Option<RootCertStore>) -> Result<TlsConnector, rustls::Error> {
    // Read once in the process's life: each reload of the configuration asks for them.
    static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| tls::system_roots().into());
    let roots = roots.map_or_else(|| SYSTEM.clone(), Arc::new);
    let tls = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?;
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls).into())
}

/// Sends the request and waits for the response. The rest is dropped with the connection.
async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    request: &Request<()>,
    body: &[u8],
    most: impl FnOnce(StatusCode) -> usize,
) -> Result<(Parts, Vec<u8>), HttpsError> {
    let mut input = BytesMut::new();
    let reader = ResponseReader::within(MAX_HEAD, MAX_FIELDS);
    let answer = h1::ask(&mut io, (request, body), (&mut input, reader)).await;
    let mut answer = answer.map_err(|_| HttpsError::Answer)?;
    let body = match most(answer.parts.status) {
        0 => Vec::new(),
        most => {
            answer.body.whole(&mut io, &mut input, most).await.map_err(|_| HttpsError::Answer)?
        }
    };
    Ok((answer.parts, body))
}

/// A head of more is none that these servers have.
const MAX_HEAD: usize = 16 << 10;
pub(crate) const MAX_FIELDS: usize = 100;
