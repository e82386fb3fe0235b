//! TLS of the public port: one certificate, and two configurations to show it with.
//!
//! In:  a ClientHello. Out: the configuration for a visitor or for a backend. The choice is made
//! before the handshake goes on, so a browser is never asked for a certificate.
//!
//! Invariant: ALPN selects, it never proves. A backend's configuration speaks backend labels only
//! and asks for the key; so who got through it as a backend was admitted.

mod certificate;
mod error;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use ptth_link::keys::parse_keys;
use ptth_link::{alpn, crypto};

use crate::auth::{Known, Verifier};
use crate::config::{self, Admission, CertificateSource, Config, ConfigError};
use crate::demux::Side;
use certificate::Loaded;

pub use error::TlsError;

/// The certificate now in use, the keys now known, and the configurations made of them.
#[derive(Debug)]
pub struct Tls {
    visitor: Arc<ServerConfig>,
    backend: Arc<ServerConfig>,
    labels: Vec<Vec<u8>>,
    certificate: Arc<Current>,
    known: Arc<Known>,
    source: CertificateSource,
    token_file: Option<PathBuf>,
    /// The digests of the files in use; held while reloading, so that two don't overlap.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    certificate: [u8; 32],
    tokens: Option<[u8; 32]>,
}

impl Tls {
    /// Loads or makes the certificate. Reads files, so it blocks.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let loaded = match &config.certificate {
            CertificateSource::Files { cert, key } => {
                certificate::check(certificate::read(cert, key)?)?
            }
            CertificateSource::SelfSigned { names } => certificate::make(names)?,
        };
        let (known, token_file) = match &config.admission {
            Admission::Keys { keys, file, .. } => (Known::new(false, keys), file.clone()),
            Admission::Open => (Known::new(true, &[]), None),
        };
        let seen = Mutex::new(Seen { certificate: loaded.digest, tokens: None });
        let certificate = Arc::new(Current(RwLock::new(Arc::new(loaded))));
        let known = Arc::new(known);
        Ok(Self {
            visitor: Arc::new(visitor(&certificate)?),
            backend: Arc::new(backend(&certificate, &known, &config.backend_alpn)?),
            labels: config.backend_alpn.clone(),
            certificate,
            known,
            source: config.certificate.clone(),
            token_file,
            seen,
        })
    }

    /// Chooses the configuration with which the handshake goes on.
    pub fn side(&self, hello: &ClientHello<'_>) -> (Side, Arc<ServerConfig>) {
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.any(|label| self.labels.iter().any(|known| known == label)) {
            (Side::Backend, Arc::clone(&self.backend))
        } else {
            (Side::Visitor, Arc::clone(&self.visitor))
        }
    }

    /// The pin by which a client may know this gateway: of the certificate now in use.
    pub fn pin(&self) -> String {
        let current = self.certificate.get();
        let end_entity = current.key.cert.first();
        crypto::pin_text(&crypto::sha256(end_entity.map_or(&[], |der| der.as_ref())))
    }

    /// The first name of the certificate now in use that a client could dial.
    pub fn first_name(&self) -> Option<String> {
        certificate::first_name(self.certificate.get().key.cert.first()?)
    }

    /// Whether the certificate now in use vouches for itself, so that only its pin does for others.
    pub fn is_self_signed(&self) -> bool {
        let current = self.certificate.get();
        current.key.cert.first().is_some_and(certificate::is_self_signed)
    }

    /// What the operator should hear about the certificate now in use; a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.certificate.get().warnings.clone()
    }

    /// The keys that may come in.
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Reads the certificate and the token file again; true if something changed.
    ///
    /// What can't be used is an error, and the old one stays. Certificate and tokens don't hinder
    /// each other. New handshakes get the new one; connections that are there live on. The same
    /// bad file gives an equal error each time. Reads files, so it blocks.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = self.reload_certificate(&mut seen);
        let tokens = self.reload_tokens(&mut seen);
        Ok(certificate? | tokens?)
    }

    fn reload_certificate(&self, seen: &mut Seen) -> Result<bool, TlsError> {
        let CertificateSource::Files { cert, key } = &self.source else {
            return Ok(false);
        };
        let files = certificate::read(cert, key)?;
        if files.digest() == seen.certificate {
            return Ok(false);
        }
        let loaded = certificate::check(files)?;
        seen.certificate = loaded.digest;
        self.certificate.set(loaded);
        Ok(true)
    }

    fn reload_tokens(&self, seen: &mut Seen) -> Result<bool, TlsError> {
        let Some(path) = &self.token_file else {
            return Ok(false);
        };
        let text = config::read_token_file(path).map_err(TlsError::Tokens)?;
        let digest = Some(crypto::sha256(text.as_bytes()));
        if digest == seen.tokens {
            return Ok(false);
        }
        let keys = parse_keys(&text)
            .map_err(|why| TlsError::Tokens(ConfigError::TokenFile { path: path.clone(), why }))?;
        seen.tokens = digest;
        Ok(self.known.replace(false, &keys))
    }
}

/// What visitors get: HTTP, tickets, no question about a certificate.
fn visitor(certificate: &Arc<Current>) -> Result<ServerConfig, TlsError> {
    let mut config =
        common()?.with_no_client_auth().with_cert_resolver(Arc::clone(certificate) as _);
    config.alpn_protocols = vec![alpn::H2.to_vec(), alpn::HTTP_1_1.to_vec()];
    config.ticketer = crypto::ticketer().map_err(TlsError::Rustls)?;
    prefer_ours(&mut config);
    Ok(config)
}

/// What backends get: their labels alone, and a question. Without tickets or sessions, so that each
/// connection proves the key anew.
fn backend(
    certificate: &Arc<Current>,
    known: &Arc<Known>,
    labels: &[Vec<u8>],
) -> Result<ServerConfig, TlsError> {
    let verifier = Arc::new(Verifier::new(Arc::clone(known)));
    let mut config = common()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certificate) as _);
    config.alpn_protocols = labels.to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    prefer_ours(&mut config);
    Ok(config)
}

fn common() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsError::Rustls)
}

/// rustls and OpenSSL put AES-256 first when they dial, for no reason of theirs; the few peers
/// without AES in hardware pay more for AES-128 than for ChaCha20, but little beside the network.
fn prefer_ours(config: &mut ServerConfig) {
    config.ignore_client_order = true;
}

/// The certificate in use. rustls asks for it in each handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<Loaded>>);

impl Current {
    fn get(&self) -> Arc<Loaded> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, loaded: Loaded) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.get().key))
    }
}
