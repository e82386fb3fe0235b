//! Where visitors find what a backend serves, as its client is told.

use http::uri::{Authority, Scheme};
use ptth_link::limits::ANNOUNCED_URLS;

use crate::identity::Grant;
use crate::router::RouteId;

use super::{HTTP, HTTPS, Policy};

impl Policy {
    /// The public addresses of what was granted, as URLs with that scheme and port. `called`: what the backend calls
    /// this gateway, which stands for every host. [`ANNOUNCED_URLS`] at most, and how many more there are.
    pub fn urls(
        &self,
        grants: &[Grant],
        called: Option<&Authority>,
        at: (&Scheme, u16),
    ) -> (Vec<String>, usize) {
        let (scheme, port) = at;
        let usual = port == if *scheme == Scheme::HTTPS { HTTPS } else { HTTP };
        let port = if usual { String::new() } else { format!(":{port}") };
        let addresses = grants.iter().flat_map(|grant| match (grant.route(), &self.names) {
            (RouteId::Name(name), Some(names)) => names.addresses(name),
            (RouteId::Name(_), None) => Vec::new(),
            (id, _) => self.owner(id).map(|_| id.to_string()).into_iter().collect(),
        });
        let mut urls = addresses.filter_map(|address| {
            let (host, path) = address.split_once('/')?;
            let host = if host == "*" { called?.host() } else { host };
            Some(format!("{scheme}://{host}{port}/{path}"))
        });
        let shown = urls.by_ref().take(ANNOUNCED_URLS).collect();
        (shown, urls.count())
    }
}
