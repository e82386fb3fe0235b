//! Which backends may come in: the check of the key inside the TLS handshake, and the kinds of credentials.
//!
//! Invariant: the key admits, or an authority that the operator named (`client_ca`). Where a key admits, chain, dates
//! and names of the certificate are the backend's own claims.

mod authority;
pub mod authorization;
mod credential;
mod external;
mod jwt;
mod key;
mod kinds;
mod password;
mod secret;
mod shared_secret;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName};

use ptth_link::lock::RwLock;
use ptth_link::token::PublicKey;

use crate::identity::Key;

pub use credential::{Checking, Claim, Credential, Pass, Refusal};
pub use kinds::{KINDS, Settings};
pub(crate) use password::{Password, User};
pub use secret::Files;
pub(crate) use secret::{Secret, about, ensure};

/// Which keys TLS lets in, at the moment of a handshake.
pub trait Admits: fmt::Debug + Send + Sync {
    fn is_open(&self) -> bool;

    fn names(&self, key: &Key) -> bool;

    /// Whether an authority vouches for a certificate, with its intermediates; `None` where there are no authorities.
    fn verify(&self, _: &[CertificateDer<'_>]) -> Option<Result<(), rustls::Error>> {
        None
    }
}

/// What the gateway as a whole admits, exchanged by a reload and shared by all policies: these keys, or any.
#[derive(Debug, Default)]
pub struct Known(RwLock<Keys>);

#[derive(Debug, Default, PartialEq)]
struct Keys {
    open: bool,
    general: HashSet<PublicKey>,
}

impl Known {
    /// Whether a backend with this key may serve the routes that have no `allow`.
    pub fn admits_generally(&self, key: Option<&Key>) -> bool {
        self.is_open() || key.is_some_and(|key| self.names(key))
    }

    /// Whether anything changed.
    pub fn replace(&self, open: bool, keys: &[PublicKey]) -> bool {
        let new = Keys { open, general: keys.iter().copied().collect() };
        let mut keys = self.0.write();
        std::mem::replace(&mut *keys, new) != *keys
    }
}

impl Admits for Known {
    fn is_open(&self) -> bool {
        self.0.read().open
    }

    fn names(&self, key: &Key) -> bool {
        // Public keys aren't secrets, so how long the look-up takes may tell about them.
        matches!(key, Key::Ed25519(key) if self.0.read().general.contains(key))
    }
}

/// The key that one handshake's backend showed, if it isn't known: the operator may have to add it.
pub(crate) type Stranger = Arc<OnceLock<Key>>;

/// Lets TLS ask a backend for its certificate and decide by its key, in one handshake.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) keys: Arc<dyn Admits>,
    pub(crate) stranger: Stranger,
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
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let key = Key::of(end_entity)?;
        if self.keys.is_open() || self.keys.names(&key) {
            return Ok(ClientCertVerified::assertion());
        }
        let chain = [std::slice::from_ref(end_entity), intermediates].concat();
        match self.keys.verify(&chain) {
            Some(Ok(())) => Ok(ClientCertVerified::assertion()),
            None
            | Some(Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))) => {
                let _ = self.stranger.set(key);
                // The one error that reaches the backend as the alert access_denied.
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(Err(err)) => Err(err),
        }
    }

    ptth_link::verify_signatures!();
}
