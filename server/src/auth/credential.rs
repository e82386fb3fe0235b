//! What every kind of credential can do: judge what a backend shows. The policy decides which routes a
//! [`Pass`] is good for.
//!
//! Invariant: nothing here can be printed so that a secret shows.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;

use http::{HeaderValue, StatusCode};

use ptth_link::token::PublicKey;
use rustls::pki_types::CertificateDer;

use crate::identity::{Key, Mark};

/// One way to get in, ready to be asked: `[[route.allow]]` of the configuration.
pub trait Credential: Send + Sync + fmt::Debug {
    /// Judges what a backend shows, in a time that doesn't depend on how much of it is right.
    ///
    /// Cancel safe: dropping the future ends whatever was asked.
    fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
        Box::pin(std::future::ready(self.judge(claim)))
    }

    /// The same, where no authorizer is asked.
    fn judge(&self, _: &Claim<'_>) -> Result<Pass, Refusal> {
        Err(Refusal::Absent)
    }

    /// Whether what once passed with `mark` would pass now: asked after a reload, without the secret.
    fn keeps(&self, mark: Mark) -> bool;

    /// What WWW-Authenticate says of this kind (RFC 9110 §11.6.1); `None` where no field would help.
    fn challenge(&self) -> Option<&'static str> {
        None
    }

    /// Whether an authorizer outside of this process is told what was shown.
    fn is_abroad(&self) -> bool {
        false
    }

    /// Whether the authorizer answers at all, and with which status; `None` where there is none. Cancel safe.
    fn probe(&self) -> Option<Probing<'_>> {
        None
    }

    /// The public keys of door A that pass here, for the TLS handshake.
    fn keys(&self) -> &[PublicKey] {
        &[]
    }

    /// Whether a certificate of door A, with its intermediates, passes here now; `None` where no certificate does.
    fn verify(&self, _: &[CertificateDer<'_>]) -> Option<Result<(), rustls::Error>> {
        None
    }
}

pub(super) type Probing<'a> = Pin<Box<dyn Future<Output = Result<StatusCode, String>> + Send + 'a>>;
pub type Checking<'a> = Pin<Box<dyn Future<Output = Result<Pass, Refusal>> + Send + 'a>>;

#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The key that it proved to hold in the TLS handshake (door A).
    pub key: Option<Key>,
    /// The certificate of that key, and its intermediates.
    pub chain: &'a [CertificateDer<'static>],
    /// The value of Authorization (door B). A request with two such fields is malformed.
    pub authorization: Option<&'a HeaderValue>,
    pub address: IpAddr,
    /// The hosts that it wants to serve: by SNI (door A) or as origins (door B).
    pub hosts: &'a [String],
    pub name: Option<&'a str>,
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("key", &self.key)
            .field("authorization", &self.authorization.map(|_| "redacted"))
            .field("address", &self.address)
            .field("hosts", &self.hosts)
            .field("name", &self.name)
            .finish()
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pass {
    /// The one dynamic name that the credential speaks of, a DNS label in lower case: a claim of a JWT.
    pub name: Option<String>,
    /// The hosts that the credential speaks of, which may be patterns: the DNS names of a certificate.
    pub hosts: Option<Vec<String>>,
    pub mark: Mark,
    /// The principal: two principals of one signing key, or of one authorizer, are two backends.
    pub who: Mark,
}

impl Pass {
    /// By a secret that one party has, which is the principal.
    pub fn of(mark: Mark) -> Self {
        Self { name: None, hosts: None, mark, who: mark }
    }

    /// The same for the principal that the credential names by these words.
    #[must_use]
    pub fn principal(self, words: &[&[u8]]) -> Self {
        Self { who: self.mark.of_principal(words), ..self }
    }
}

/// Why a credential isn't good. The peer hears one answer for all that is [`Refusal::Wrong`]; the
/// texts are for the gateway's log, and hold nothing that the peer sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nothing of this kind was shown.
    #[error("no credential")]
    Absent,
    /// Unknown, wrong or expired.
    #[error("not allowed: {0}")]
    Wrong(&'static str),
    /// The authorizer can't be asked now: not the peer's fault, but no way in either.
    #[error("can't be judged: {0}")]
    Unavailable(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_kinds_parts_and_their_borders_apart() {
        let mark = Mark::of("bearer", &[b"ab", b"c"]);
        assert_eq!(mark, Mark::of("bearer", &[b"ab", b"c"]));
        let others =
            [("basic", &[&b"ab"[..], b"c"][..]), ("bearer", &[b"a", b"bc"]), ("bearer", &[b"abc"])];
        for (kind, parts) in others {
            assert_ne!(mark, Mark::of(kind, parts), "{kind} {parts:?}");
        }
    }

    #[test]
    fn a_claim_and_a_mark_show_no_secret() {
        let authorization = HeaderValue::from_static("Bearer s3cret");
        let claim = Claim {
            key: None,
            chain: &[],
            authorization: Some(&authorization),
            address: [127, 0, 0, 1].into(),
            hosts: &[],
            name: Some("bob"),
        };
        let shown = format!("{claim:?} {:?}", Mark::of("bearer", &[b"s3cret"]));
        assert!(shown.contains("redacted") && shown.contains("bob"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
