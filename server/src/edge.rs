//! How a visitor's connection came in: what that means for each of its requests.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::uri::Scheme;
use ptth_link::forwarded::Forwarded;

use crate::config::Trusted;
use crate::tls::Certificates;

/// What all requests of a connection have in common.
#[derive(Clone, Debug)]
pub struct Edge {
    /// What the connection itself is: https over TLS, http without.
    pub scheme: Scheme,
    /// Which names belong together; `None` without TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Whom to believe what they say of others.
    pub trusted: Trusted,
}

impl Default for Edge {
    /// TLS, with no certificate to compare names by, and nobody trusted.
    fn default() -> Self {
        Self { scheme: Scheme::HTTPS, certificates: None, trusted: Trusted::default() }
    }
}

impl Edge {
    /// Whether a request for `host` may come on a connection that was made for the name `sni`.
    pub fn covers(&self, sni: Option<&str>, host: &str) -> bool {
        self.certificates.as_ref().is_none_or(|certificates| certificates.is_same(sni, host))
    }

    /// What `peer` says of a visitor whom it brings; `None` if `peer` is no trusted proxy.
    ///
    /// `peer` is who the PROXY protocol says it is, where that is spoken: a proxy that passes bytes through
    /// can't vouch for what is in them.
    pub fn said(&self, peer: IpAddr, fields: &HeaderMap) -> Option<Forwarded> {
        let trusted = |address| self.trusted.contains(address);
        trusted(peer).then(|| Forwarded::read(fields, peer, trusted))
    }
}
