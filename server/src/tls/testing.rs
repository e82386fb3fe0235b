//! TLS handshakes in memory, and certificates of every kind to have them with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::Acceptor;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme,
    SupportedProtocolVersion, version,
};

use ptth_link::crypto;
use ptth_link::token::Token;

use super::{Side, Stranger, Tls};
use crate::config::{Admission, CertificateSource, Config};

pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// A self-signed gateway that knows these tokens.
pub(crate) fn gateway(tokens: &[&Token]) -> Tls {
    let keys = tokens.iter().map(|token| token.public()).collect();
    with(Admission::Keys { keys, file: None, made: None })
}

/// A self-signed gateway.
pub(crate) fn with(admission: Admission) -> Tls {
    let source = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    Tls::new(&Config::new(source, admission)).unwrap()
}

/// Shows one certificate, or none, and counts how often it was asked.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) key: Option<Arc<CertifiedKey>>,
    pub(crate) asked: AtomicUsize,
}

impl Shown {
    pub(crate) fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Self {
        let key = crypto::provider().key_provider.load_private_key(key).unwrap();
        // Not `from_der`: some tests want a certificate and the key of another.
        let key = Some(Arc::new(CertifiedKey::new(vec![certificate], key)));
        Self { key, asked: AtomicUsize::new(0) }
    }

    pub(crate) fn token(token: &Token) -> Self {
        let (certificate, key) = token.certificate("laptop-x7.0", []).unwrap();
        Self::new(certificate, key)
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// A certificate for `key` whose details `change` decides.
pub(crate) fn certificate(
    key: &PrivateKeyDer<'static>,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "odd");
    change(&mut params);
    params.self_signed(&KeyPair::try_from(key).unwrap()).unwrap().into()
}

/// A client that offers these labels in one version of TLS.
pub(crate) fn client(
    version: &'static SupportedProtocolVersion,
    labels: &[&[u8]],
    shown: Arc<Shown>,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_client_cert_resolver(shown);
    config.alpn_protocols = labels.iter().map(|label| label.to_vec()).collect();
    config
}

/// Both ends after a handshake, or after it failed.
pub(crate) struct Pair {
    pub(crate) side: Side,
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<rustls::Error>,
    pub(crate) server_error: Option<rustls::Error>,
}

impl Pair {
    pub(crate) fn done(&self) -> bool {
        let handshaking = self.client.is_handshaking() || self.server.is_handshaking();
        !handshaking && self.client_error.is_none() && self.server_error.is_none()
    }

    /// Carries bytes to and fro until both are silent.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            feed(&mut self.server, &wire, &mut self.server_error);
            let mut back = Vec::new();
            while self.server.wants_write() {
                self.server.write_tls(&mut back).unwrap();
            }
            feed(&mut self.client, &back, &mut self.client_error);
            if wire.is_empty() && back.is_empty() {
                break;
            }
        }
    }
}

fn feed<C, D>(connection: &mut C, mut wire: &[u8], error: &mut Option<rustls::Error>)
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    D: rustls::SideData,
{
    while !wire.is_empty() && error.is_none() {
        connection.read_tls(&mut wire).unwrap();
        *error = connection.process_new_packets().err();
    }
}

/// Has a handshake, in the way in which the listener has it: ClientHello first, then the choice.
pub(crate) fn shake(tls: &Tls, config: ClientConfig, name: &str) -> Pair {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut wire.as_slice()).unwrap();
    let accepted = acceptor.accept().unwrap_or_else(|(error, _)| panic!("{error}")).unwrap();
    let stranger = Stranger::default();
    let (side, chosen) = tls.side(&accepted.client_hello(), tls.known.clone(), &stranger).unwrap();
    match accepted.into_connection(chosen) {
        Ok(server) => {
            let mut pair = Pair { side, client, server, client_error: None, server_error: None };
            pair.settle();
            pair
        }
        Err((error, mut alert)) => {
            let mut wire = Vec::new();
            alert.write_all(&mut wire).unwrap();
            let mut client_error = None;
            feed(&mut client, &wire, &mut client_error);
            let server = ServerConnection::new(Arc::clone(&tls.visitor.read())).unwrap();
            Pair { side, client, server, client_error, server_error: Some(error) }
        }
    }
}

/// A directory that goes when the test does.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let name = format!("2ptth-{}", crypto::hex(&crypto::random::<8>()));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        // As one keeps secrets, whatever the machine's umask is.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        fs::remove_dir_all(path).ok();
    }
}

/// Takes every certificate, as these tests aren't about that.
#[derive(Debug)]
pub(crate) struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto::provider().signature_verification_algorithms.supported_schemes()
    }
}
