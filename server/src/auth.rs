//! Who a backend is: the check of its key inside the TLS handshake, and what its certificate says.
//!
//! Invariant: the key admits, nothing else. Chain, dates and names of a backend's certificate are
//! its own claims; the name tells tunnels of one key apart and goes into logs.

mod attempts;
pub mod authorization;
mod basic;
mod bearer;
mod credential;
mod external;
mod jwt;
mod key;
mod kinds;
mod secret;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, ServerConnection};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use ptth_link::crypto;
use ptth_link::token::{ORGANIZATION, PublicKey};

pub use attempts::Attempts;
pub use credential::{Checking, Claim, Credential, Mark, Pass, Refusal};
pub use kinds::{KINDS, Settings};
pub(crate) use secret::is_exposed;
pub use secret::{Content, Digest, Files, LoadError, Secret};

/// A backend's key. Tokens are Ed25519; in open mode a certificate may carry any other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Key {
    /// The public half of a token, or any other Ed25519 key.
    Ed25519(PublicKey),
    /// The SHA-256 of the SubjectPublicKeyInfo of a key of another type.
    Other([u8; 32]),
    /// No key at all, but a secret (door B): its digest.
    Secret(Mark),
}

impl Key {
    /// The key of a SubjectPublicKeyInfo.
    pub fn from_spki(der: &[u8]) -> Self {
        PublicKey::from_spki(der).map_or_else(|| Self::Other(crypto::sha256(der)), Self::Ed25519)
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self::from_spki(&parsed.subject_public_key_info()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519(key) => write!(f, "{key}"),
            Self::Other(digest) => f.write_str(&crypto::pin_text(digest)),
            // A digest of a weak password would give it away.
            Self::Secret(_) => f.write_str("(a secret)"),
        }
    }
}

/// What a backend's certificate and ClientHello say. The key is proven, the rest is claimed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// The key that it proved to hold; `None` only in open mode.
    pub key: Option<Key>,
    /// The certificate's CN: printable, 64 characters at most, empty if there is none.
    pub name: String,
    /// The process: `name` up to its last dot.
    pub instance: String,
    /// Whether it says that it is this project's client.
    pub ours: bool,
    /// The public host that it wants to serve.
    pub sni: Option<String>,
    /// The dynamic name that it wants to serve: the certificate's OU.
    pub wish: Option<String>,
    /// The path that it wants to serve alone: another OU, which begins with `/`.
    pub path: Option<String>,
}

impl Identity {
    /// Reads it off a connection whose handshake is done.
    pub fn of(connection: &ServerConnection) -> Self {
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let mut identity = certificate.map(Self::claimed).unwrap_or_default();
        identity.sni = connection.server_name().map(str::to_owned);
        identity
    }

    /// Whether a tunnel of `other` takes the place of one of this: the same key, process and slot.
    pub fn is_same_tunnel(&self, other: &Self) -> bool {
        self.key.is_some()
            && !self.name.is_empty()
            && self.key == other.key
            && self.name == other.name
    }

    /// Whether both belong to one process, which may hold several tunnels.
    pub fn is_same_backend(&self, other: &Self) -> bool {
        self.key.is_some()
            && !self.instance.is_empty()
            && self.key == other.key
            && self.instance == other.instance
    }

    /// The key as logs show it.
    pub fn key_text(&self) -> String {
        self.key.map_or_else(|| "none".to_owned(), |key| key.to_string())
    }

    fn claimed(certificate: &CertificateDer<'_>) -> Self {
        let key = Key::of(certificate).ok();
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Self { key, ..Self::default() };
        };
        let subject = parsed.subject();
        let name = subject.iter_common_name().next().map(text).unwrap_or_default();
        let ours = subject.iter_organization().any(|o| text(o) == ORGANIZATION);
        let (paths, wishes): (Vec<_>, Vec<_>) =
            subject.iter_organizational_unit().map(text).partition(|text| text.starts_with('/'));
        let (wish, path) = (wishes.into_iter().next(), paths.into_iter().next().filter(|_| ours));
        Self { key, ours, wish, path, ..Self::called(&name) }
    }

    /// A backend that calls itself `<instance>.<slot>`, of which nothing else is known.
    pub fn called(name: &str) -> Self {
        let name = bounded(name);
        let instance = name.rsplit_once('.').map_or(name.as_str(), |(instance, _)| instance);
        Self { instance: instance.to_owned(), name, ..Self::default() }
    }
}

/// The text of an attribute, whatever string type it has, without what a terminal would obey.
fn text(attribute: &AttributeTypeAndValue<'_>) -> String {
    let text = String::from_utf8_lossy(attribute.as_slice());
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Cuts a name that is longer than X.520 allows. The digest keeps two that differ in the end
/// apart: otherwise the tunnels of one process would replace each other.
fn bounded(name: &str) -> String {
    if name.chars().count() <= MAX_NAME {
        return name.to_owned();
    }
    let digest = &crypto::hex(&crypto::sha256(name.as_bytes()))[..16];
    let kept: String = name.chars().take(MAX_NAME - 17).collect();
    format!("{kept}~{digest}")
}

/// X.520's bound for a common name, in characters.
const MAX_NAME: usize = 64;

/// The keys that may come in. Shared between the TLS configuration and whoever replaces them.
#[derive(Debug, Default)]
pub struct Known(RwLock<Keys>);

#[derive(Debug, Default)]
struct Keys {
    open: bool,
    general: HashSet<PublicKey>,
    /// Those that single routes admit.
    granted: HashSet<PublicKey>,
}

impl Known {
    /// Those whom the gateway as a whole admits.
    pub fn new(open: bool, keys: &[PublicKey]) -> Self {
        let known = Self::default();
        known.replace(open, keys);
        known
    }

    /// Whether a backend with this key may come in at all.
    pub fn admits(&self, key: &Key) -> bool {
        self.is_open() || self.names(key)
    }

    /// Whether the configuration names this key: not just anybody has it.
    pub fn names(&self, key: &Key) -> bool {
        let keys = self.read();
        matches!(key, Key::Ed25519(key) if keys.general.contains(key) || keys.granted.contains(key))
    }

    /// Whether it may serve the routes that say nothing of their own.
    pub fn admits_generally(&self, key: Option<&Key>) -> bool {
        let keys = self.read();
        // Public keys aren't secrets, so how long the look-up takes may tell about them.
        keys.open || matches!(key, Some(Key::Ed25519(key)) if keys.general.contains(key))
    }

    /// Whether anybody may come in.
    pub fn is_open(&self) -> bool {
        self.read().open
    }

    /// Exchanges those whom the gateway as a whole admits. Whether anything changed.
    pub fn replace(&self, open: bool, keys: &[PublicKey]) -> bool {
        let general = keys.iter().copied().collect();
        let mut keys = self.write();
        let changed = (keys.open, &keys.general) != (open, &general);
        (keys.open, keys.general) = (open, general);
        changed
    }

    /// Exchanges the keys that single routes admit.
    pub fn grant(&self, granted: HashSet<PublicKey>) {
        self.write().granted = granted;
    }

    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key that one handshake's backend showed, if it isn't known: the operator may have to add it.
pub type Stranger = Arc<OnceLock<Key>>;

/// Lets TLS ask a backend for its certificate and decide by its key, in one handshake.
#[derive(Debug)]
pub(crate) struct Verifier {
    known: Arc<Known>,
    stranger: Stranger,
}

impl Verifier {
    pub(crate) fn new(known: Arc<Known>, stranger: Stranger) -> Self {
        Self { known, stranger }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.known.is_open()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Backends sign for themselves; a hint would make some clients hold their certificate back.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let key = Key::of(end_entity)?;
        if self.known.admits(&key) {
            Ok(ClientCertVerified::assertion())
        } else {
            let _ = self.stranger.set(key);
            // The one error that reaches the backend as the alert access_denied.
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    ptth_link::verify_signatures!();
}
