//! A network in memory, whose far ends do what a test says: gateways, fronts and proxies that never were.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use ptth_client::config::Gateway;
use ptth_client::dial::Network;
use ptth_link::crypto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Certificate;

type Serve =
    Arc<dyn Fn(DuplexStream, usize) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Who is where. Clones are the same network; dropping the last one ends all connections.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Hosts>>);

#[derive(Default)]
struct Hosts {
    /// By `host:port`.
    hosts: BTreeMap<String, Serve>,
    addresses: Vec<SocketAddr>,
    dialled: Vec<String>,
    connections: JoinSet<()>,
}

impl Fake {
    /// Puts somebody to `host:port`, in place of whoever was there. Each connection has a number from 0.
    pub fn put<F>(
        &self,
        place: &str,
        serve: impl Fn(DuplexStream, usize) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let serve: Serve = Arc::new(move |io, n| Box::pin(serve(io, n)));
        self.with(|hosts| hosts.hosts.insert(place.to_owned(), serve));
    }

    /// Has nobody there any more.
    pub fn clear(&self, place: &str) {
        self.with(|hosts| hosts.hosts.remove(place));
    }

    /// What every name resolves to from now on.
    pub fn resolve(&self, addresses: &[SocketAddr]) {
        self.with(|hosts| hosts.addresses = addresses.to_vec());
    }

    /// What was dialled so far.
    pub fn dialled(&self) -> Vec<String> {
        self.with(|hosts| hosts.dialled.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Hosts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.dialled()).finish()
    }
}

impl Network for Fake {
    type Io = DuplexStream;

    async fn connect(&self, gateway: &Gateway) -> io::Result<(DuplexStream, SocketAddr)> {
        let place = gateway.to_string();
        self.with(|hosts| {
            let number = hosts.dialled.iter().filter(|dialled| **dialled == place).count();
            hosts.dialled.push(place.clone());
            let serve = hosts.hosts.get(&place).ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, far) = duplex(PIPE);
            let serving = serve(far, number);
            hosts.connections.spawn(serving);
            let address = place.parse().unwrap_or((Ipv4Addr::LOCALHOST, gateway.port).into());
            Ok((near, address))
        })
    }

    async fn addresses(&self, _: &Gateway) -> io::Result<Vec<SocketAddr>> {
        let found = self.with(|hosts| hosts.addresses.clone());
        if found.is_empty() { Err(io::ErrorKind::HostUnreachable.into()) } else { Ok(found) }
    }
}

/// TLS of somebody who isn't our gateway, with a certificate of his own.
#[derive(Clone)]
pub struct Tls {
    /// By which he is known.
    pub pin: [u8; 32],
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("pin", &self.pin).finish_non_exhaustive()
    }
}

impl Tls {
    /// Speaks these protocols; with none of them he knows nothing of ALPN.
    pub fn speaking(alpn: &[&[u8]]) -> Self {
        Self::showing(&Certificate::of(&["example.test"]), alpn)
    }

    /// The same, with that certificate.
    pub fn showing(certificate: &Certificate, alpn: &[&[u8]]) -> Self {
        let der = CertificateDer::from(certificate.der.clone());
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(crypto::provider())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .expect("a certificate");
        config.alpn_protocols = alpn.iter().map(|label| label.to_vec()).collect();
        Self { pin: certificate.pin(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(io).await
    }
}

/// Carries bytes both ways until both have ended.
pub async fn splice<A, B>(mut near: A, mut far: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let _ = copy_bidirectional(&mut near, &mut far).await;
    let _ = near.shutdown().await;
    let _ = far.shutdown().await;
}

/// Bytes that one pipe holds, as a socket's buffer does.
const PIPE: usize = 256 * 1024;
