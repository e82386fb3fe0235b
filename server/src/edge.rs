//! How a visitor's connection came in: what that means for each of its requests.

use std::sync::Arc;

use http::uri::Scheme;

use crate::tls::Certificates;

/// What all requests of a connection have in common.
#[derive(Clone, Debug)]
pub struct Edge {
    /// What the connection itself is: https over TLS, http without.
    pub scheme: Scheme,
    /// Which names belong together; `None` without TLS.
    pub certificates: Option<Arc<Certificates>>,
}

impl Default for Edge {
    /// TLS, directly from a stranger, and no certificate to compare names by.
    fn default() -> Self {
        Self { scheme: Scheme::HTTPS, certificates: None }
    }
}

impl Edge {
    /// Whether a request for `host` may come on a connection that was made for the name `sni`.
    pub fn covers(&self, sni: Option<&str>, host: &str) -> bool {
        self.certificates.as_ref().is_none_or(|certificates| certificates.is_same(sni, host))
    }
}
