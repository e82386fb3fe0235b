//! TLS of the public port: certificates by name, and two configurations to show them with.
//!
//! In:  a ClientHello. Out: the configuration for a visitor or for a backend. The choice is made
//! before the handshake goes on, so a browser is never asked for a certificate.
//!
//! Invariant: ALPN selects, it never proves. A backend's configuration speaks backend labels only
//! and asks for the key; so who got through it as a backend was admitted.

mod certificate;
mod certificates;
mod error;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::{ServerConfig, version};

use ptth_link::keys::parse_keys;
use ptth_link::settings::read_token_file;
use ptth_link::token::{PublicKey, Token};
use ptth_link::{alpn, crypto};

use crate::auth::{Admits, Known, Stranger, Verifier};
use crate::config::{Admission, Config};
use crate::demux::Side;

pub(crate) use certificates::Certificates;
pub use error::TlsError;

/// The certificates now in use, the keys now known, and the configurations made of them.
#[derive(Debug)]
pub struct Tls {
    /// With ticket keys of its own, so that what was resumed under one certificate isn't under the next.
    visitor: RwLock<Arc<ServerConfig>>,
    labels: Vec<Vec<u8>>,
    certificates: Arc<Certificates>,
    known: Arc<Known>,
    /// The public half of a token made at the start, which the operator was shown.
    made: Option<PublicKey>,
    /// Held while reloading, so that two don't overlap.
    tokens: Mutex<TokenFile>,
}

/// The token file, if there is one.
#[derive(Debug)]
struct TokenFile {
    path: Option<PathBuf>,
    /// The digest of what is in use of it.
    seen: Option<[u8; 32]>,
}

impl Tls {
    /// Loads or makes the certificates. Reads files, so it blocks.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::new(&config.certificates)?);
        let (known, token_file, made) = match &config.admission {
            Admission::Keys { keys, file, made } => {
                (Known::new(false, keys), file.clone(), made.as_ref().map(Token::public))
            }
            Admission::Open => (Known::new(true, &[]), None, None),
        };
        let known = Arc::new(known);
        // Nothing of it can fail later.
        backend(&certificates, known.clone(), &config.backend_alpn, Stranger::default())?;
        Ok(Self {
            visitor: RwLock::new(Arc::new(visitor(&certificates)?)),
            labels: config.backend_alpn.clone(),
            certificates,
            known,
            made: made.filter(|_| config.at_large()),
            tokens: Mutex::new(TokenFile { path: token_file, seen: None }),
        })
    }

    /// Chooses the configuration with which the handshake goes on; a backend's key is to be one of `keys`. If it isn't,
    /// it will be in `stranger`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn side(
        &self,
        hello: &ClientHello<'_>,
        keys: Arc<dyn Admits>,
        stranger: &Stranger,
    ) -> Result<(Side, Arc<ServerConfig>), TlsError> {
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.any(|label| self.labels.iter().any(|known| known == label)) {
            let config = backend(&self.certificates, keys, &self.labels, stranger.clone())?;
            Ok((Side::Backend, Arc::new(config)))
        } else {
            let visitor = self.visitor.read().unwrap_or_else(PoisonError::into_inner);
            Ok((Side::Visitor, Arc::clone(&visitor)))
        }
    }

    /// The pin by which a client may know this gateway: of the first certificate, as it is now. `None`
    /// where there is none, behind somebody else's TLS.
    pub fn pin(&self) -> Option<String> {
        let first = self.certificates.first()?;
        Some(crypto::pin_text(&crypto::sha256(first.key.cert.first()?)))
    }

    /// The first name of the first certificate that a client could dial.
    pub fn first_name(&self) -> Option<String> {
        certificate::first_name(self.certificates.first()?.key.cert.first()?)
    }

    /// Whether the first certificate vouches for itself, so that only its pin does for others.
    pub fn is_self_signed(&self) -> bool {
        let first = self.certificates.first();
        first.is_some_and(|first| first.key.cert.first().is_some_and(certificate::is_self_signed))
    }

    /// What the operator should hear about the certificates now in use; a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.certificates.warnings()
    }

    /// The certificates, for who has to compare names.
    pub fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.certificates)
    }

    /// Whom the gateway as a whole admits.
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Reads the certificates and the token file again; true if something changed.
    ///
    /// What can't be used is an error, and the old one stays. Certificates and tokens don't hinder
    /// each other. New handshakes get the new one; connections that are there live on. The same
    /// bad file gives an equal error each time. Reads files, so it blocks.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = self.certificates.reload();
        if certificates == Ok(true) {
            self.forget_sessions()?;
        }
        let tokens = self.reload_tokens(&mut tokens);
        Ok(certificates? | tokens?)
    }

    /// Has the certificates and the admission of another configuration from now on. False if that admits
    /// nobody: it says neither who nor that anybody may, and a token that is made then is one that nobody
    /// was shown. Blocks.
    ///
    /// # Errors
    /// [`TlsError`]: a certificate can't be used, and all stays as it is.
    pub fn change(&self, config: &Config) -> Result<bool, TlsError> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // A file without any is of a gateway that has no TLS; until the next start, this one has.
        if !config.certificates.is_empty() {
            self.certificates.change(&config.certificates)?;
            self.forget_sessions()?;
        }
        let (open, keys, file) = match &config.admission {
            Admission::Open => (true, &[][..], &None),
            Admission::Keys { made: Some(_), .. } => (false, self.made.as_slice(), &None),
            Admission::Keys { keys, file, .. } => (false, keys.as_slice(), file),
        };
        *tokens = TokenFile { path: file.clone(), seen: None };
        self.known.replace(open, keys);
        Ok(open || !keys.is_empty())
    }

    /// What the files hold now, whether it can be used or not. Reads them, so it blocks.
    pub fn fingerprint(&self) -> [u8; 32] {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).path.clone();
        let files = self.certificates.files().into_iter().chain(tokens);
        let digests: Vec<_> =
            files.map(|path| fs::read(path).map(|it| crypto::sha256(&it))).collect();
        let digests = digests.into_iter().map(Result::unwrap_or_default).collect::<Vec<_>>();
        crypto::sha256(digests.as_flattened())
    }

    /// Makes new ticket keys and an empty cache: visitors' next handshakes are full ones.
    fn forget_sessions(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(visitor(&self.certificates)?);
        *self.visitor.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn reload_tokens(&self, tokens: &mut TokenFile) -> Result<bool, TlsError> {
        let Some(path) = &tokens.path else {
            return Ok(false);
        };
        let text = read_token_file(path).map_err(TlsError::Tokens)?;
        let digest = Some(crypto::sha256(text.as_bytes()));
        if digest == tokens.seen {
            return Ok(false);
        }
        let wrong = |why| TlsError::Tokens(format!("the token file {}: {why}", path.display()));
        let keys = parse_keys(&text).map_err(wrong)?;
        tokens.seen = digest;
        Ok(self.known.replace(false, &keys))
    }
}

/// What visitors get: HTTP, tickets, no question about a certificate.
fn visitor(certificates: &Arc<Certificates>) -> Result<ServerConfig, TlsError> {
    let mut config =
        common()?.with_no_client_auth().with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = vec![alpn::H2.to_vec(), alpn::HTTP_1_1.to_vec()];
    config.ticketer = crypto::ticketer().map_err(TlsError::Rustls)?;
    prefer_ours(&mut config);
    Ok(config)
}

/// What backends get: their labels alone, and a question. Without tickets or sessions, so that each
/// connection proves the key anew.
fn backend(
    certificates: &Arc<Certificates>,
    keys: Arc<dyn Admits>,
    labels: &[Vec<u8>],
    stranger: Stranger,
) -> Result<ServerConfig, TlsError> {
    let verifier = Arc::new(Verifier::new(keys, stranger));
    let mut config = common()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(certificates) as _);
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
