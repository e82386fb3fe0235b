//! Whom a configured route admits.

use std::ops::Range;
use std::sync::Arc;

use crate::auth::{Credential, Known};
use crate::config::Route as Settings;
use crate::identity::Grant;
use crate::identity::Key;
use crate::router::HostPattern;

use super::{Policy, Target, Wish};

/// Whom a route admits, on all its hosts alike.
pub(super) struct Admits {
    /// Where its hosts stand among the policy's routes.
    pub(super) indices: Range<usize>,
    /// Its hosts, as text.
    pub(super) hosts: Vec<String>,
    /// `None`: whom the gateway as a whole admits.
    credentials: Option<Vec<Arc<dyn Credential>>>,
    known: Arc<Known>,
}

/// How much a credential is good for that is good for one site.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    /// All hosts of the site's route: the configuration says so.
    Route,
    /// The site alone: somebody outside was asked about that.
    Host,
}

impl Scope {
    pub(super) fn of(credential: &dyn Credential) -> Self {
        if credential.is_abroad() { Self::Host } else { Self::Route }
    }
}

impl Admits {
    /// Those of a route whose hosts begin at `first`.
    pub(super) fn new(settings: &Settings, first: usize, known: &Arc<Known>) -> Self {
        Self {
            indices: first..first + settings.hosts.len(),
            hosts: settings.hosts.iter().map(HostPattern::to_string).collect(),
            credentials: settings.allow.clone(),
            known: known.clone(),
        }
    }

    /// What lets somebody in; `None`: what lets in at the gateway as a whole.
    pub(super) fn credentials(&self) -> Option<&Vec<Arc<dyn Credential>>> {
        self.credentials.as_ref()
    }

    /// Whether a backend may serve this that proved `key` to TLS, or nothing.
    pub(super) fn admits_key(&self, key: Option<&Key>) -> bool {
        match &self.credentials {
            Some(credentials) => credentials.iter().any(|it| has_key(it, key)),
            None => self.known.admits_generally(key),
        }
    }

    /// Whether what was granted once would be granted now, and how much with it.
    pub(super) fn keeps(&self, grant: &Grant, key: Option<&Key>) -> Option<Scope> {
        let Some(credentials) = &self.credentials else {
            return self.known.admits_generally(key).then_some(Scope::Route);
        };
        let keeping = credentials.iter().filter(|it| lets_in(it, grant, key));
        let mut scopes = keeping.map(|it| Scope::of(&**it));
        let first = scopes.next()?;
        Some(if scopes.any(|it| it == Scope::Route) { Scope::Route } else { first })
    }
}

/// Whether a credential is what this was granted for: the proven key, or the secret that was shown.
pub(super) fn lets_in(credential: &Arc<dyn Credential>, grant: &Grant, key: Option<&Key>) -> bool {
    match grant.mark() {
        Some(mark) => credential.keeps(mark),
        None => has_key(credential, key),
    }
}

pub(super) fn has_key(credential: &Arc<dyn Credential>, key: Option<&Key>) -> bool {
    matches!(key, Some(Key::Ed25519(key)) if credential.keys().contains(key))
}

impl Policy {
    /// What is guessed at by asking for that, as text: routes, by their first hosts, and names. What is nowhere in
    /// the configuration is nothing, since a stranger makes up as much of it as it likes.
    pub fn targets(&self, wish: &Wish) -> Vec<String> {
        let first = |admits: &Arc<Admits>| admits.hosts.first().cloned().unwrap_or_default();
        let mut found: Vec<String> = match wish {
            Wish::Any => vec!["*".to_owned()],
            Wish::Name(_) => vec!["a name".to_owned()],
            Wish::Hosts(hosts) => hosts
                .iter()
                .flat_map(|host| self.table.at(host))
                .map(|target| match target {
                    Target::Route(index) => self.admits.get(*index).map(first).unwrap_or_default(),
                    Target::Names => "a name".to_owned(),
                })
                .collect(),
        };
        found.sort_unstable();
        found.dedup();
        found
    }
}
