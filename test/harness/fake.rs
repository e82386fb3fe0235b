//! A gateway that does what a test says, for clients that dial it over pipes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ptth_client::config::{Config, Gateway, Trust};
use ptth_client::dial::Network;
use ptth_link::crypto;
use ptth_link::token::Token;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Certificate, Peer, soon};

/// The network on which the gateway is.
#[derive(Clone, Debug)]
pub struct FakeNetwork {
    acceptor: Acceptor,
    tell: mpsc::UnboundedSender<Peer<TlsStream<DuplexStream>>>,
    handshakes: Arc<Mutex<JoinSet<()>>>,
}

#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// The gateway: each tunnel that is dialled, and on which it has begun to ask.
#[derive(Debug)]
pub struct FakeGateway {
    /// How to reach it.
    pub network: FakeNetwork,
    pin: [u8; 32],
    dialled: mpsc::UnboundedReceiver<Peer<TlsStream<DuplexStream>>>,
}

impl FakeGateway {
    /// One that admits anybody.
    pub fn start() -> Self {
        let certificate = Certificate::of(&["example.test"]);
        let chain = vec![CertificateDer::from(certificate.der.clone())];
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        config.alpn_protocols = vec![b"2ptth".to_vec()];
        let (tell, dialled) = mpsc::unbounded_channel();
        let acceptor = Acceptor(TlsAcceptor::from(Arc::new(config)));
        let network = FakeNetwork { acceptor, tell, handshakes: Arc::default() };
        Self { network, pin: certificate.pin(), dialled }
    }

    /// What a client needs to know to hold tunnels to it.
    pub fn client_config(&self) -> Config {
        let mut config = Config::new(Gateway { host: "example.test".to_owned(), port: 443 });
        config.trust = Trust::Pin(self.pin);
        config.token = Some(Token::generate());
        config
    }

    /// Whether there is no tunnel but those that the test has.
    pub fn nobody_dials(&mut self) -> bool {
        self.dialled.try_recv().is_err()
    }

    /// The next tunnel.
    pub async fn tunnel(&mut self) -> Peer<TlsStream<DuplexStream>> {
        soon("a tunnel", self.dialled.recv()).await.expect("the network is there")
    }
}

impl Network for FakeNetwork {
    type Io = DuplexStream;

    async fn connect(&self, _: &Gateway) -> io::Result<(DuplexStream, SocketAddr)> {
        let (near, far) = duplex(PIPE);
        let (acceptor, tell) = (self.acceptor.0.clone(), self.tell.clone());
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.spawn(async move {
            if let Ok(stream) = acceptor.accept(far).await {
                let _ = tell.send(Peer::asking(stream, &[]).await);
            }
        });
        Ok((near, SocketAddr::from((Ipv4Addr::LOCALHOST, 443))))
    }
}

/// What a loopback socket holds, about.
const PIPE: usize = 256 * 1024;
