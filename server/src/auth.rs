//! Who a backend is: the check of its key inside the TLS handshake, and what its certificate says.
//!
//! Invariant: the key admits, nothing else. Chain, dates and names of a backend's certificate are
//! its own claims; the name tells tunnels of one key apart and goes into logs.

mod attempts;
pub mod authorization;
mod basic;
mod bearer;
mod credential;
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
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConnection, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use ptth_link::crypto;
use ptth_link::token::{ORGANIZATION, PublicKey};

pub use attempts::Attempts;
pub use credential::{Checking, Claim, Credential, Mark, Pass, Refusal};
pub use kinds::Settings;
pub use secret::{Digest, Files, LoadError, Secret};

/// A backend's key. Tokens are Ed25519; in open mode a certificate may carry any other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Key {
    /// The public half of a token, or any other Ed25519 key.
    Ed25519(PublicKey),
    /// The SHA-256 of the SubjectPublicKeyInfo of a key of another type.
    Other([u8; 32]),
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
        let name = subject.iter_common_name().next().map(text).map(|n| bounded(&n));
        let name = name.unwrap_or_default();
        let instance = name.rsplit_once('.').map_or(name.as_str(), |(instance, _)| instance);
        let ours = subject.iter_organization().any(|o| text(o) == ORGANIZATION);
        Self { key, instance: instance.to_owned(), name, ours, sni: None }
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
#[derive(Debug)]
pub(crate) enum Known {
    /// These.
    Keys(RwLock<HashSet<PublicKey>>),
    /// Any.
    Open,
}

impl Known {
    pub(crate) fn keys(keys: &[PublicKey]) -> Self {
        Self::Keys(RwLock::new(keys.iter().copied().collect()))
    }

    pub(crate) fn admits(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Open, _) => true,
            // Public keys aren't secrets, so how long the look-up takes may tell about them.
            (Self::Keys(known), Key::Ed25519(key)) => {
                known.read().unwrap_or_else(PoisonError::into_inner).contains(key)
            }
            (Self::Keys(_), Key::Other(_)) => false,
        }
    }

    /// Whether anything changed.
    pub(crate) fn replace(&self, keys: &[PublicKey]) -> bool {
        let Self::Keys(known) = self else {
            return false;
        };
        let new: HashSet<_> = keys.iter().copied().collect();
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != new;
        *known = new;
        changed
    }
}

/// Lets TLS ask a backend for its certificate and decide by its key.
#[derive(Debug)]
pub(crate) struct Verifier {
    known: Arc<Known>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) fn new(known: Arc<Known>) -> Self {
        Self { known, algorithms: crypto::provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !matches!(*self.known, Known::Open)
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
        if self.known.admits(&Key::of(end_entity)?) {
            Ok(ClientCertVerified::assertion())
        } else {
            // The one error that reaches the backend as the alert access_denied.
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
