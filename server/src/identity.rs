//! The identity of a backend and what it was granted, as tunnels, pools and logs know it.
//!
//! Invariant: the key is proven, everything else that a certificate says is claimed; the name tells tunnels
//! of one key apart and goes into logs.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use ptth_link::crypto;
use ptth_link::token::{ORGANIZATION, PublicKey};

use crate::router::RouteId;

/// A backend's key. Tokens are Ed25519; in open mode a certificate may carry any other.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// The public half of a token, or any other Ed25519 key.
    Ed25519(PublicKey),
    /// The SHA-256 of the SubjectPublicKeyInfo of a key of another type.
    Other([u8; 32]),
    /// No key at all, but a secret (door B): its digest.
    Secret(Mark),
}

impl Key {
    /// # Errors
    /// The certificate can't be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let ed25519 = PublicKey::from_spki(&spki).map(Self::Ed25519);
        Ok(ed25519.unwrap_or_else(|| Self::Other(crypto::sha256(&spki))))
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
    /// The certificate of that key, and its intermediates.
    pub chain: Arc<[CertificateDer<'static>]>,
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
    /// Reads it from a connection that finished its handshake.
    pub fn of(connection: &ServerConnection) -> Self {
        let chain = connection.peer_certificates().unwrap_or_default();
        let mut identity = chain.first().map(Self::claimed).unwrap_or_default();
        identity.chain = chain.into();
        identity.sni = connection.server_name().map(str::to_owned);
        identity
    }

    /// Whether a tunnel of `other` replaces one of this: the same key, process and slot.
    pub fn is_same_tunnel(&self, other: &Self) -> bool {
        let named = self.key.is_some() && !self.name.is_empty();
        named && (self.key, &self.name) == (other.key, &other.name)
    }

    /// Whether both belong to one process, which may hold several tunnels.
    pub fn is_same_backend(&self, other: &Self) -> bool {
        self.process().is_some() && self.process() == other.process()
    }

    /// The key and the instance that tell a process from others; `None` if either is missing.
    pub(crate) fn process(&self) -> Option<(Key, &str)> {
        self.key.filter(|_| !self.instance.is_empty()).map(|key| (key, &*self.instance))
    }

    pub(crate) fn key_text(&self) -> String {
        self.key.map_or_else(|| "none".to_owned(), |key| key.to_string())
    }

    pub(crate) fn claimed(certificate: &CertificateDer<'_>) -> Self {
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

/// A digest of the secret that admitted a backend, by which its tunnel is judged again after a reload.
///
/// It can't be inverted, not even by guessing: each process mixes its own randomness into it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mark([u8; 32]);

impl Mark {
    /// The mark of a credential of `kind` that is made of `parts`.
    pub fn of(kind: &str, parts: &[&[u8]]) -> Self {
        static SALT: LazyLock<[u8; 32]> = LazyLock::new(crypto::random);
        let mut material = SALT.to_vec();
        // Each part is hashed by itself: otherwise "ab" and "c" would be "a" and "bc".
        for part in [&[kind.as_bytes()], parts].concat() {
            material.extend(crypto::sha256(part));
        }
        Self(crypto::sha256(&material))
    }

    /// The mark of the principal that a credential with this mark names by `words`.
    #[must_use]
    pub fn of_principal(&self, words: &[&[u8]]) -> Self {
        Self::of("principal", &[&[&self.0[..]], words].concat())
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark(redacted)")
    }
}

/// One route that a backend may serve, and the credential that allows it: what was asked, and nothing wider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    route: RouteId,
    /// The secret, and the domain of dynamic names at that time. `None`: the key that TLS proved, which is judged again
    /// by the policy in force.
    by: Option<(Mark, Box<str>)>,
}

impl Grant {
    /// By the key that TLS proved.
    pub fn by_key(route: RouteId) -> Self {
        Self { route, by: None }
    }

    /// By a secret that was found good for exactly this. A dynamic name is a host only together with its `domain`.
    pub(crate) fn by_secret(route: RouteId, mark: Mark, domain: &str) -> Self {
        Self { route, by: Some((mark, domain.into())) }
    }

    pub(crate) fn is_under(&self, domain: &str) -> bool {
        self.by.as_ref().is_none_or(|(_, known)| **known == *domain)
    }

    /// The route that may be served.
    pub fn route(&self) -> &RouteId {
        &self.route
    }

    pub(crate) fn mark(&self) -> Option<Mark> {
        self.by.as_ref().map(|(mark, _)| *mark)
    }
}
