//! Where visitors find what a backend serves, as its client is told.

use std::sync::Arc;

use http::uri::{Authority, Scheme};
use ptth_link::limits::ANNOUNCED_URLS;

use crate::identity::Grant;
use crate::router::RouteId;

use super::{HTTP, HTTPS, Policy, Route};

impl Policy {
    /// The public addresses of these sites, as URLs with that scheme and port. `called`: what the backend calls this
    /// gateway, which stands for every host. [`ANNOUNCED_URLS`] at most, and how many more there are.
    pub fn urls(
        &self,
        grants: &[Grant],
        called: Option<&Authority>,
        at: (&Scheme, u16),
    ) -> (Vec<String>, usize) {
        let (scheme, port) = (at.0, at.1);
        let usual = port == if *scheme == Scheme::HTTPS { HTTPS } else { HTTP };
        let port = if usual { String::new() } else { format!(":{port}") };
        let routes = grants.iter().filter_map(|grant| self.shown(grant.route()));
        let mut urls = routes.flat_map(|route| route.addresses.clone()).filter_map(|address| {
            let (host, path) = address.split_once('/')?;
            let host = if host == "*" { called?.host() } else { host };
            Some(format!("{scheme}://{host}{port}/{path}"))
        });
        let shown = urls.by_ref().take(ANNOUNCED_URLS).collect();
        (shown, urls.count())
    }

    /// The site, also where nobody serves it yet.
    fn shown(&self, site: &RouteId) -> Option<Arc<Route>> {
        self.route(site).or_else(|| match site {
            RouteId::Name(name) => Some(self.names.as_ref()?.route(name)),
            RouteId::Host(..) => self.narrowed(site).map(Arc::new),
        })
    }
}
