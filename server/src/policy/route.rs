//! One route, as visitors' requests meet it, and whom it admits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::auth::{Admits, Credential, Known};
use crate::config::{
    Hold, Names as NamesSettings, NoBackend, Respond, Route as Settings, WhenTaken,
};
use crate::identity::{self, Grant};
use crate::pool::{Patience, Pool};
use crate::quota::{Gauge, InUse};
use crate::router::{HostPattern, RouteId};

/// One route, as visitors' requests meet it: a host of a configured route, one host of its pattern, or a dynamic name.
#[derive(Clone, Debug)]
pub struct Route {
    /// What it is.
    pub id: RouteId,
    /// Its tunnels.
    pub pool: Arc<Pool>,
    /// Of one host of a pattern: the tunnels of the pattern, who serve it where nobody has it alone.
    pub wide: Option<Arc<Pool>>,
    /// Whether the path's prefix that chose it is taken off.
    pub strip: bool,
    /// What becomes of the backend that is there when another one comes.
    pub when_taken: WhenTaken,
    /// What a visitor gets while there is no backend.
    pub no_backend: NoBackend,
    /// How long requests wait.
    pub patience: Patience,
    /// Answer at once, deliver later.
    pub respond: Option<Respond>,
    /// The path of a dynamic name, where it is found by path.
    pub base: String,
    /// Whom it admits; nobody, if it is a dynamic name, which has grants of its own.
    pub(super) allow: Arc<Allow>,
}

impl Route {
    pub(super) fn of(
        (settings, allow): (&Settings, &Arc<Allow>),
        (id, pool): (&RouteId, Arc<Pool>),
    ) -> Self {
        // Where whoever comes may serve it, one at a time does.
        let open = allow.credentials.is_none() && allow.known.is_open();
        Self {
            id: id.clone(),
            pool,
            wide: None,
            strip: settings.strip,
            when_taken: if open { WhenTaken::Reject } else { settings.when_taken },
            no_backend: settings.no_backend.clone(),
            patience: patience(settings.queue, settings.hold),
            respond: settings.respond,
            base: String::new(),
            allow: allow.clone(),
        }
    }

    /// The same for one host among those of its pattern.
    pub(super) fn narrowed(&self, id: &RouteId, pool: Arc<Pool>) -> Self {
        Self { id: id.clone(), pool, wide: Some(self.pool.clone()), ..self.clone() }
    }

    pub(super) fn named(settings: &NamesSettings, name: &str, pool: Arc<Pool>) -> Self {
        Self {
            id: RouteId::Name(name.to_owned()),
            pool,
            wide: None,
            // Only the way by path has a prefix.
            strip: settings.strip,
            when_taken: settings.when_taken,
            no_backend: settings.no_backend.clone(),
            patience: patience(settings.queue, settings.hold),
            respond: None,
            base: format!("{}/{name}/", settings.path_prefix),
            allow: Arc::default(),
        }
    }
}

fn patience(queue: Duration, hold: Option<Hold>) -> Patience {
    Patience { queue, hold: hold.map(|hold| (hold.time, hold.requests)) }
}

/// Whom the configuration admits to a route of its own, on all its hosts alike.
#[derive(Debug, Default)]
pub(super) struct Allow {
    /// One for each host.
    pub(super) ids: Vec<RouteId>,
    /// The hosts, as text.
    pub(super) hosts: Vec<String>,
    /// `None`: whom the gateway as a whole admits.
    pub(super) credentials: Option<Vec<Arc<dyn Credential>>>,
    pub(super) known: Arc<Known>,
}

impl Allow {
    pub(super) fn new(settings: &Settings, known: &Arc<Known>) -> Arc<Self> {
        let id = |host: &HostPattern| RouteId::Host(host.clone(), settings.path.as_str().into());
        Arc::new(Self {
            ids: settings.hosts.iter().map(id).collect(),
            hosts: settings.hosts.iter().map(HostPattern::to_string).collect(),
            credentials: settings.allow.clone(),
            known: known.clone(),
        })
    }

    /// What a grant that was made once would be good for now: all hosts of the route, if a credential that is judged here
    /// is what it was made for; what an authorizer outside was asked about is good for `own` alone.
    pub(super) fn keeps<'a>(
        &'a self,
        (own, grant): (&'a [RouteId], &Grant),
        key: Option<&identity::Key>,
    ) -> &'a [RouteId] {
        let Some(credentials) = &self.credentials else {
            return if self.known.admits_generally(key) { &self.ids } else { &[] };
        };
        let mut found: &[_] = &[];
        for credential in credentials.iter().filter(|it| lets_in(it, grant, key)) {
            if !credential.is_abroad() {
                return &self.ids;
            }
            found = own;
        }
        found
    }
}

/// Whether a credential is what this was granted for: the proven key, or the secret that was shown.
pub(super) fn lets_in(
    credential: &Arc<dyn Credential>,
    grant: &Grant,
    key: Option<&identity::Key>,
) -> bool {
    match (grant.mark(), key) {
        (Some(mark), _) => credential.keeps(mark),
        (None, Some(identity::Key::Ed25519(key))) => credential.keys().contains(key),
        (None, _) => false,
    }
}

/// The pools of all routes, each for as long as anybody has it: a policy, a tunnel, or a request that waits.
///
/// They outlive the exchange of the policy, also those that came to be while the next one was made.
#[derive(Debug)]
pub(super) struct Pools {
    /// The gateway's threads.
    pub(super) shards: usize,
    /// Requests that wait for a backend, over all dynamic names, since a stranger chooses them.
    pub(super) held: Gauge,
    known: Mutex<InUse<Key, Pool>>,
}

/// A route, and for a dynamic name its domain: the same name under another one is another host.
type Key = (RouteId, String);

impl Pools {
    pub(super) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self { shards, held: Gauge::default(), known: Mutex::default() })
    }

    pub(super) fn of(
        &self,
        id: &RouteId,
        domain: &str,
        make: impl FnOnce() -> Arc<Pool>,
    ) -> Arc<Pool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.of(&(id.clone(), domain.to_owned()), make)
    }

    /// Sends away all who wait for a host.
    pub(super) fn forget(&self, id: &RouteId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(id.clone(), String::new())).iter().for_each(|pool| pool.close());
    }

    /// Sends away all who wait for what isn't to be kept; the others look whether they are to wait elsewhere.
    pub(super) fn close(&self, keeps: impl Fn(&RouteId, &str) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(id, domain), pool| {
            let kept = keeps(id, domain);
            if kept {
                pool.stir()
            } else {
                pool.close()
            }
            kept
        });
    }
}
