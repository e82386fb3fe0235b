//! Dynamic names: which backend may have which, and which one a request means; and the addresses of names and routes.

use http::uri::{Authority, Scheme};
use ptth_link::limits::ANNOUNCED_URLS;
use ptth_link::tcp::{HTTP, HTTPS};

use crate::config::{NameGrant, Names};
use crate::identity::{Grant, Identity};
use crate::router::{self, HostPattern, RouteId};

use super::Policy;
use super::route::lets_in;

impl Names {
    /// Whether an entry is for that name, and it can be one.
    pub(super) fn may_have(&self, entry: &NameGrant, name: &str) -> bool {
        self.is_fit(name) && self.includes(entry, name)
    }

    /// The name that a host spells: `bob.tunnel.example.com` is `bob`.
    pub(super) fn label(&self, host: &str) -> Option<String> {
        router::label(host, &self.domain).map(|name| name.into_owned())
    }

    /// The name that a path's first segment is, on the hosts that have names in paths.
    pub(super) fn by_path<'a>(&self, host: &str, path: &'a str) -> Option<&'a str> {
        let HostPattern::Name(host) = router::exact(host)? else { return None };
        let is_known = self.path_hosts.iter().any(|known| **known == *host);
        let name = path.strip_prefix(&self.path_prefix).and_then(router::segment)?;
        (is_known && self.is_fit(name)).then_some(name)
    }

    /// Where visitors find a name, without scheme and port.
    pub(super) fn addresses(&self, name: &str) -> Vec<String> {
        let Self { domain, path_prefix, path_hosts, .. } = self;
        let by_host = router::is_label(name) && !domain.is_empty();
        let by_host = by_host.then(|| format!("{name}.{domain}/"));
        let by_path = path_hosts.iter().map(|host| format!("{host}{path_prefix}/{name}/"));
        by_host.into_iter().chain(by_path).collect()
    }

    /// Whether a backend that once passed may still have the name.
    pub(super) fn keeps(&self, name: &str, granted: &Grant, identity: &Identity) -> bool {
        let keeps =
            |it: &NameGrant| self.includes(it, name) && lets_in(&it.credential, granted, identity);
        granted.is_under(&self.domain) && self.allow.iter().any(keeps)
    }

    /// Whether an entry is for that name; without a list, it is for all names that no entry lists.
    pub(super) fn includes(&self, grant: &NameGrant, name: &str) -> bool {
        let lists = |it: &NameGrant| it.names.iter().flatten().any(|known| known == name);
        match &grant.names {
            Some(_) => lists(grant),
            None => !self.allow.iter().any(lists),
        }
    }
}

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
