//! Which backends may come in: the check of the key inside the TLS handshake, and the kinds of credentials.
//!
//! Invariant: the key admits, nothing else. Chain, dates and names of a backend's certificate are
//! its own claims.

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
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use ptth_link::crypto;
use ptth_link::token::PublicKey;

use crate::identity::Key;

pub use credential::{Checking, Claim, Credential, Pass, Refusal};
pub use kinds::Settings;
pub(crate) use secret::is_exposed;
pub use secret::{Content, Digest, Files, LoadError, Secret};

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
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) fn new(known: Arc<Known>, stranger: Stranger) -> Self {
        let algorithms = crypto::provider().signature_verification_algorithms;
        Self { known, stranger, algorithms }
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
