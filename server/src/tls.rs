//! TLS of the public port: certificates by name, and two configurations to show them with.
//!
//! In:  a ClientHello. Out: the configuration for a visitor or for a backend. The choice is made
//! before the handshake goes on, so a browser is never asked for a certificate.
//!
//! Invariant: ALPN selects, it never proves. A backend's configuration speaks backend labels only
//! and asks for the key, so a peer that got through it as a backend was admitted.

mod certificate;
// What orders certificates may be left out.
#[cfg_attr(not(feature = "acme"), allow(dead_code))]
mod certificates;
#[cfg_attr(not(feature = "acme"), allow(dead_code))]
mod challenges;
#[cfg(feature = "acme")]
mod ordered;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{KeyLog, ServerConfig, version};

use ptth_link::explain::keys;
use ptth_link::lock::{Mutex, RwLock};
use ptth_link::settings::read_token_file;
use ptth_link::token::PublicKey;
use ptth_link::token::parse_keys;
use ptth_link::{alpn, crypto};

use crate::auth::{Admits, Known, Stranger, Verifier};
use crate::config::{Admission, Config};
use crate::demux::Side;

pub(crate) use certificates::Certificates;
pub(crate) use challenges::Challenges;
#[cfg(feature = "acme")]
pub(crate) use ordered::{Held, Ordered};
/// Why a certificate or a token file can't be used: one sentence, equal for equal causes.
pub use ptth_link::settings::Mistake as TlsError;

/// The certificates now in use, the keys now known, and the configurations made of them.
#[derive(Debug)]
pub struct Tls {
    /// With ticket keys of its own, so that what was resumed under one certificate isn't under the next.
    visitor: RwLock<Arc<ServerConfig>>,
    labels: Vec<Vec<u8>>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) challenges: Challenges,
    key_log: Arc<dyn KeyLog>,
    /// The keys that the gateway as a whole admits.
    pub known: Arc<Known>,
    /// The public half of a token made at the start, which the operator was shown.
    made: Option<PublicKey>,
    /// The token file, if there is one. Held while reloading, so that two reloads don't overlap.
    tokens: Mutex<Option<PathBuf>>,
}

impl Tls {
    /// Loads or makes the certificates. Blocks.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let certificates = Arc::<Certificates>::default();
        let key_log = keys::log(config.key_log);
        let made = match &config.admission {
            Admission::Keys { made: Some(made), .. } if config.at_large() => Some(made.public()),
            _ => None,
        };
        let tls = Self {
            visitor: RwLock::new(Arc::new(visitor(&certificates, &key_log)?)),
            labels: config.backend_alpn.clone(),
            certificates,
            challenges: Challenges::default(),
            key_log,
            known: Arc::default(),
            made,
            tokens: Mutex::default(),
        };
        tls.change(config)?;
        // Nothing of it can fail later.
        tls.backend(tls.known.clone(), Stranger::default())?;
        Ok(tls)
    }

    /// With what the handshake goes on. A backend's key that isn't among `keys` will be in `stranger`.
    pub fn side(
        &self,
        hello: &ClientHello<'_>,
        keys: Arc<dyn Admits>,
        stranger: &Stranger,
    ) -> Result<(Side, Arc<ServerConfig>), TlsError> {
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.any(|label| self.labels.iter().any(|known| known == label)) {
            let config = self.backend(keys, stranger.clone())?;
            Ok((Side::Backend, Arc::new(config)))
        } else if let Some(key) = self.challenges.asked(hello) {
            Ok((Side::Challenge, Arc::new(challenge(key)?)))
        } else {
            // Has no label for a validator whose name isn't being ordered: it gets the alert no_application_protocol.
            let visitor = self.visitor.read();
            Ok((Side::Visitor, Arc::clone(&visitor)))
        }
    }

    /// The pin of the first certificate, as it is now. `None` where there is none, behind a proxy that ends TLS, and
    /// where it only stands in for one that is being ordered.
    pub fn pin(&self) -> Option<String> {
        let first = self.certificates.first().filter(|first| !first.stands_in)?;
        Some(crypto::pin_text(&crypto::sha256(first.key.cert.first()?)))
    }

    /// The first DNS name of the first certificate that isn't a wildcard.
    pub fn first_name(&self) -> Option<String> {
        let first = self.certificates.first()?;
        let is_name = |name: &&String| !name.contains('*') && name.parse::<IpAddr>().is_err();
        first.names.iter().find(is_name).cloned()
    }

    /// Whether the first certificate vouches for itself, so that only its pin does for others.
    pub fn is_self_signed(&self) -> bool {
        self.certificates.first().is_some_and(|first| first.is_self_signed)
    }

    /// The names of each certificate in use, and when it ends, in seconds since 1970.
    pub(crate) fn terms(&self) -> Vec<(Vec<String>, i64)> {
        let table = self.certificates.table();
        table.loaded.iter().map(|it| (it.names.clone(), it.ends.timestamp())).collect()
    }

    /// The same, with the chain that is shown.
    pub(crate) fn shown(&self) -> Vec<(Vec<String>, i64, Arc<CertifiedKey>)> {
        let table = self.certificates.table();
        let all = table.loaded.iter();
        all.map(|it| (it.names.clone(), it.ends.timestamp(), it.key.clone())).collect()
    }

    /// What the operator should hear about the certificates now in use; a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let table = self.certificates.table();
        let own = table.loaded.iter().flat_map(|loaded| loaded.warnings());
        own.chain(table.warnings.iter().cloned()).collect()
    }

    /// Reads the certificates and the token file again; true if something changed. Blocks.
    ///
    /// What can't be used is an error, and the old one stays; certificates and tokens don't hinder each other.
    /// Connections that are there live on. The same bad file gives an equal error each time.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let tokens = self.tokens.lock();
        let certificates = self.certificates.update(None);
        if certificates == Ok(true) {
            self.forget_sessions()?;
        }
        let keys = |path: &PathBuf| {
            let text = read_token_file(path).map_err(TlsError::new)?;
            let wrong = |why| TlsError::new(format!("the token file {}: {why}", path.display()));
            Ok(self.known.replace(false, &parse_keys(&text).map_err(wrong)?))
        };
        let tokens = tokens.as_ref().map_or(Ok(false), keys);
        Ok(certificates? | tokens?)
    }

    /// Has the certificates and the admission of another configuration from now on. False if that admits
    /// no backend: it names no keys, isn't open, and a token that is made then isn't shown. Blocks.
    ///
    /// # Errors
    /// A certificate can't be used, and all stays as it is.
    pub fn change(&self, config: &Config) -> Result<bool, TlsError> {
        let mut tokens = self.tokens.lock();
        // A file without any is of a gateway that has no TLS; until the next start, this one has.
        if !config.certificates.is_empty() {
            self.certificates.update(Some(&config.certificates))?;
            self.forget_sessions()?;
        }
        let (open, keys, file) = match &config.admission {
            Admission::Open => (true, &[][..], &None),
            Admission::Keys { made: Some(_), .. } => (false, self.made.as_slice(), &None),
            Admission::Keys { keys, file, .. } => (false, keys.as_slice(), file),
        };
        tokens.clone_from(file);
        self.known.replace(open, keys);
        Ok(open || !keys.is_empty())
    }

    /// What the files hold now, whether it can be used or not. Blocks.
    pub fn fingerprint(&self) -> [u8; 32] {
        let tokens = self.tokens.lock().clone();
        let files = self.certificates.files().into_iter().chain(tokens);
        let digest = |path| fs::read(path).map(|it| crypto::sha256(&it)).unwrap_or_default();
        crypto::sha256(files.map(digest).collect::<Vec<_>>().as_flattened())
    }

    /// Makes new ticket keys and an empty cache: visitors' next handshakes are full ones.
    fn forget_sessions(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(visitor(&self.certificates, &self.key_log)?);
        *self.visitor.write() = fresh;
        Ok(())
    }

    /// What backends get: their labels alone, a question, and no tickets: each connection proves the key anew.
    fn backend(&self, keys: Arc<dyn Admits>, stranger: Stranger) -> Result<ServerConfig, TlsError> {
        let verifier = Arc::new(Verifier { keys, stranger });
        let mut config = common(self.certificates.clone(), verifier, self.labels.clone())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.key_log = self.key_log.clone();
        Ok(config)
    }
}

/// What visitors get: HTTP, tickets, no question about a certificate.
fn visitor(
    certificates: &Arc<Certificates>,
    key_log: &Arc<dyn KeyLog>,
) -> Result<ServerConfig, TlsError> {
    let labels = vec![alpn::H2.to_vec(), alpn::HTTP_1_1.to_vec()];
    let mut config = common(certificates.clone(), WebPkiClientVerifier::no_client_auth(), labels)?;
    config.ticketer = crypto::ticketer().map_err(refused)?;
    config.key_log = key_log.clone();
    Ok(config)
}

/// What a validator gets: this certificate, and nothing to come back with.
fn challenge(key: Arc<CertifiedKey>) -> Result<ServerConfig, TlsError> {
    let certificates = Arc::new(SingleCertAndKey::from(key));
    let labels = vec![alpn::ACME.to_vec()];
    let mut config = common(certificates, WebPkiClientVerifier::no_client_auth(), labels)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn common(
    certificates: Arc<dyn ResolvesServerCert>,
    verifier: Arc<dyn ClientCertVerifier>,
    labels: Vec<Vec<u8>>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = labels;
    // rustls and OpenSSL put AES-256 first when they dial, for no reason of theirs; the few peers without
    // AES in hardware pay more for AES-128 than for ChaCha20, but little beside the network.
    config.ignore_client_order = true;
    Ok(config)
}

fn refused(why: rustls::Error) -> TlsError {
    TlsError::new(format!("TLS can't be set up: {why}"))
}
