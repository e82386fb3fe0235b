//! One question to an authorizer: dial, TLS if it is `https`, a request, the head of the response.
//!
//! Errors are texts for the gateway's log. They hold nothing that anybody sent.

use std::io;
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use http::{Request, Response};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use ptth_client::tls;
use ptth_link::crypto;
use ptth_link::h1::{self, ResponseReader};
use ptth_link::tcp::is_near;

use super::address::Address;
use crate::auth::secret::LoadError;

pub(super) async fn dial(address: &Address) -> Result<TcpStream, &'static str> {
    let dialled = TcpStream::connect((address.host.as_str(), address.port)).await;
    dialled.map_err(|err| match err.kind() {
        io::ErrorKind::ConnectionRefused => "the authorizer isn't there",
        _ => "the authorizer can't be reached",
    })
}

/// Whether plain text on this socket stays on this machine or the private network.
pub(super) fn stays_near(socket: &TcpStream) -> bool {
    socket.peer_addr().is_ok_and(|peer| is_near(peer.ip()))
}

pub(super) async fn secure(
    address: &Address,
    tls: &Arc<ClientConfig>,
    socket: TcpStream,
) -> Result<TlsStream<TcpStream>, &'static str> {
    let connector = TlsConnector::from(Arc::clone(tls));
    let secured = connector.connect(address.name.clone(), socket).await;
    secured.map_err(|err| match err.get_ref().and_then(|err| err.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => "the authorizer's certificate isn't trusted",
        _ => "the authorizer breaks the TLS handshake off",
    })
}

/// Sends the request and waits for the response's head. The rest is dropped with the connection.
pub(super) async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<()>,
) -> Result<Response<()>, &'static str> {
    let mut input = BytesMut::new();
    let reader = ResponseReader::within(MAX_HEAD, MAX_FIELDS);
    let answer = h1::ask(&mut io, &request, (&mut input, reader)).await;
    let answer = answer.map_err(|_| "the authorizer gives no proper answer")?;
    Ok(Response::from_parts(answer.parts, ()))
}

/// A head of more is none that says yes or no.
const MAX_HEAD: usize = 16 << 10;
pub(super) const MAX_FIELDS: usize = 100;

pub(super) fn connector(roots: Arc<RootCertStore>) -> Result<Arc<ClientConfig>, LoadError> {
    let tls = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|err| LoadError::settings(format!("`external`: TLS can't be set up: {err}")))?;
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// The system's roots, read once in the process's life: each reload of the configuration asks for them.
pub(super) fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| Arc::new(tls::system_roots()));
    Arc::clone(&ROOTS)
}
