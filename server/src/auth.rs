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
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName};

use ptth_link::token::PublicKey;

use crate::identity::Key;

pub use credential::{Checking, Claim, Credential, Pass, Refusal};
pub use kinds::{KINDS, Settings};
pub use secret::Files;
#[cfg(test)]
pub(crate) use secret::LoadError;
pub(crate) use secret::{Content, Secret};

/// Which keys TLS lets in, at the moment of a handshake.
pub trait Admits: fmt::Debug + Send + Sync {
    /// Whether anybody may come in.
    fn is_open(&self) -> bool;

    /// Whether the configuration names this key: not just anybody has it.
    fn names(&self, key: &Key) -> bool;
}

/// Whom the gateway as a whole admits. Shared between all policies and whoever reads the keys again.
#[derive(Debug, Default)]
pub struct Known(RwLock<Keys>);

#[derive(Debug, Default)]
struct Keys {
    open: bool,
    general: HashSet<PublicKey>,
}

impl Known {
    /// Those with these keys, or anybody.
    pub fn new(open: bool, keys: &[PublicKey]) -> Self {
        Self(RwLock::new(Keys { open, general: keys.iter().copied().collect() }))
    }

    /// Whether it may serve the routes that say nothing of their own.
    pub fn admits_generally(&self, key: Option<&Key>) -> bool {
        self.is_open() || key.is_some_and(|key| self.names(key))
    }

    /// Exchanges them. Whether anything changed.
    pub fn replace(&self, open: bool, keys: &[PublicKey]) -> bool {
        let general = keys.iter().copied().collect();
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = (keys.open, &keys.general) != (open, &general);
        (keys.open, keys.general) = (open, general);
        changed
    }

    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admits for Known {
    fn is_open(&self) -> bool {
        self.read().open
    }

    fn names(&self, key: &Key) -> bool {
        // Public keys aren't secrets, so how long the look-up takes may tell about them.
        matches!(key, Key::Ed25519(key) if self.read().general.contains(key))
    }
}

/// The key that one handshake's backend showed, if it isn't known: the operator may have to add it.
pub(crate) type Stranger = Arc<OnceLock<Key>>;

/// Lets TLS ask a backend for its certificate and decide by its key, in one handshake.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: Arc<dyn Admits>,
    stranger: Stranger,
}

impl Verifier {
    pub(crate) fn new(keys: Arc<dyn Admits>, stranger: Stranger) -> Self {
        Self { keys, stranger }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.keys.is_open()
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
        if self.keys.is_open() || self.keys.names(&key) {
            Ok(ClientCertVerified::assertion())
        } else {
            let _ = self.stranger.set(key);
            // The one error that reaches the backend as the alert access_denied.
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    ptth_link::verify_signatures!();
}
