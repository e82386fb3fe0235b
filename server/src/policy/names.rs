//! Dynamic names: who may have which, and which one a request means.

use crate::config::{NameGrant, Names as Settings};
use crate::identity::{Grant, Key};
use crate::router::{self, HostPattern};

use super::route::lets_in;

/// The names under one domain.
pub(super) struct Names {
    pub(super) settings: Settings,
    path_hosts: Vec<HostPattern>,
}

/// A name that a request means.
pub(super) struct Meant<'a> {
    pub(super) name: &'a str,
    /// How many bytes of the path are the prefix to strip.
    pub(super) strip: usize,
    /// Whether requests may wait for it to come: a page's /favicon.ico is nobody's name that might.
    pub(super) may_come: bool,
}

impl Names {
    pub(super) fn new(settings: Settings) -> Self {
        let hosts = settings.path_hosts.iter().map(|host| HostPattern::Name(host.as_str().into()));
        Self { path_hosts: hosts.collect(), settings }
    }

    /// What [`Self::label`] looks at.
    pub(super) fn domain(&self) -> &str {
        &self.settings.domain
    }

    /// The name that a host spells: `bob.tunnel.example.com` is `bob`.
    pub(super) fn label(&self, host: &str) -> Option<String> {
        router::label(host, self.domain()).map(|name| name.into_owned())
    }

    /// The name that a path's first segment is, on the hosts that have them.
    pub(super) fn by_path<'a>(&self, host: &str, path: &'a str) -> Option<Meant<'a>> {
        if !self.path_hosts.iter().any(|known| known.matches(host)) {
            return None;
        }
        let prefix = self.settings.path_prefix.as_str();
        let name = path.strip_prefix(prefix).and_then(router::segment)?;
        let strip = if self.settings.strip { prefix.len() + 1 + name.len() } else { 0 };
        let may_come = router::is_label(name) || !prefix.is_empty();
        self.settings.is_fit(name).then_some(Meant { name, strip, may_come })
    }

    /// Where visitors find a name, without scheme and port.
    pub(super) fn addresses(&self, name: &str) -> Vec<String> {
        let Settings { domain, path_prefix, path_hosts, .. } = &self.settings;
        let by_host =
            (router::is_label(name) && !domain.is_empty()).then(|| format!("{name}.{domain}/"));
        let by_path = path_hosts.iter().map(|host| format!("{host}{path_prefix}/{name}/"));
        by_host.into_iter().chain(by_path).collect()
    }

    /// Whether a backend that once passed may still have the name.
    pub(super) fn keeps(&self, name: &str, granted: &Grant, key: Option<&Key>) -> bool {
        let keeps =
            |it: &NameGrant| self.includes(it, name) && lets_in(&it.credential, granted, key);
        granted.is_under(self.domain()) && self.grants().iter().any(keeps)
    }

    /// Whether an entry is for that name. One without a list is for all names that no entry lists: a listed
    /// name is reserved.
    pub(super) fn includes(&self, grant: &NameGrant, name: &str) -> bool {
        let lists = |grant: &NameGrant| {
            grant.names.as_ref().is_some_and(|names| names.iter().any(|known| known == name))
        };
        match &grant.names {
            Some(_) => lists(grant),
            None => !self.grants().iter().any(lists),
        }
    }

    pub(super) fn grants(&self) -> &[NameGrant] {
        &self.settings.allow
    }
}
