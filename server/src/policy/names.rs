//! Dynamic names: which backend may have which, and which one a request means.

use crate::config::{NameGrant, Names};
use crate::identity::{Grant, Key};
use crate::router::{self, HostPattern};

use super::route::lets_in;

/// A name that a request means.
pub(super) struct Meant<'a> {
    pub(super) name: &'a str,
    /// How many bytes of the path are the prefix to strip.
    pub(super) strip: usize,
    /// Whether requests may wait for its backend: a page's /favicon.ico is no name that one might take.
    pub(super) may_come: bool,
}

impl Names {
    /// The name that a host spells: `bob.tunnel.example.com` is `bob`.
    pub(super) fn label(&self, host: &str) -> Option<String> {
        router::label(host, &self.domain).map(|name| name.into_owned())
    }

    /// The name that a path's first segment is, on the hosts that have them.
    pub(super) fn by_path<'a>(&self, host: &str, path: &'a str) -> Option<Meant<'a>> {
        let Some(HostPattern::Name(host)) = router::exact(host) else { return None };
        if !self.path_hosts.iter().any(|known| **known == *host) {
            return None;
        }
        let prefix = self.path_prefix.as_str();
        let name = path.strip_prefix(prefix).and_then(router::segment)?;
        let strip = if self.strip { prefix.len() + 1 + name.len() } else { 0 };
        let may_come = router::is_label(name) || !prefix.is_empty();
        self.is_fit(name).then_some(Meant { name, strip, may_come })
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
    pub(super) fn keeps(&self, name: &str, granted: &Grant, key: Option<&Key>) -> bool {
        let keeps =
            |it: &NameGrant| self.includes(it, name) && lets_in(&it.credential, granted, key);
        granted.is_under(&self.domain) && self.allow.iter().any(keeps)
    }

    /// Whether an entry is for that name. An entry without a list is for all names that no entry lists: a listed
    /// name is reserved.
    pub(super) fn includes(&self, grant: &NameGrant, name: &str) -> bool {
        let lists = |it: &NameGrant| it.names.iter().flatten().any(|known| known == name);
        match &grant.names {
            Some(_) => lists(grant),
            None => !self.allow.iter().any(lists),
        }
    }
}
