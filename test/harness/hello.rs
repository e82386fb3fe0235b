//! A TLS client whose every choice is the test's: labels, version, name, certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ptth_link::crypto;
use ptth_link::token::Token;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::visitor::Anybody;

/// What a ClientHello says, and what is shown if the gateway asks.
#[derive(Clone, Debug)]
pub struct Hello {
    alpn: Vec<Vec<u8>>,
    name: Option<&'static str>,
    versions: Vec<&'static SupportedProtocolVersion>,
    certificate: Option<Arc<CertifiedKey>>,
}

impl Hello {
    /// Offers `alpn`; nothing at all if it is empty.
    pub fn offering(alpn: &[&[u8]]) -> Self {
        Self {
            alpn: alpn.iter().map(|label| label.to_vec()).collect(),
            name: Some("example.test"),
            versions: vec![&version::TLS13, &version::TLS12],
            certificate: None,
        }
    }

    /// A backend by name, with the key of `token`.
    pub fn backend(token: &Token, name: &str) -> Self {
        let (certificate, key) = token.certificate(name, []).expect("a certificate");
        Self::offering(&[b"2ptth"]).showing(vec![certificate], key)
    }

    /// Offers these labels in place of the ones before.
    #[must_use]
    pub fn offering_instead(mut self, alpn: &[&[u8]]) -> Self {
        self.alpn = alpn.iter().map(|label| label.to_vec()).collect();
        self
    }

    /// Names that host in place of the usual one.
    #[must_use]
    pub fn naming(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Names no host.
    #[must_use]
    pub fn without_name(mut self) -> Self {
        self.name = None;
        self
    }

    /// Speaks that version and no other.
    #[must_use]
    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Shows this certificate and its intermediates if it is asked.
    #[must_use]
    pub fn showing(
        mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let provider = crypto::provider();
        let key = provider.key_provider.load_private_key(key).expect("a key");
        self.certificate = Some(Arc::new(CertifiedKey::new(chain, key)));
        self
    }

    /// For rustls.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(crypto::provider())
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_cert_resolver(Arc::new(Shown(self.certificate.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = self.name.is_some();
        config
    }

    /// The name that the certificate is checked for: SNI, unless there is none.
    pub fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.name.unwrap_or("example.test")).expect("a name")
    }

    /// Shakes hands with whoever is at `address`.
    ///
    /// # Errors
    /// Those of the handshake.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        TlsConnector::from(Arc::new(self.config())).connect(self.server_name(), socket).await
    }
}

/// Shows the same certificate to everybody, whatever issuers they like.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
