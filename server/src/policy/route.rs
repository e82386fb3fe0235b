//! One route, as visitors' requests meet it, and the backends that it admits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    pub id: RouteId,
    pub pool: Arc<Pool>,
    /// Of one host of a pattern: the pool of the pattern, whose tunnels serve it while it has none of its own.
    pub wide: Option<Arc<Pool>>,
    /// Whether the path's prefix that chose it is taken off.
    pub strip: bool,
    pub when_taken: WhenTaken,
    pub no_backend: NoBackend,
    pub patience: Patience,
    pub respond: Option<Respond>,
    /// The path of a dynamic name, where it is found by path.
    pub base: String,
    /// The backends that it admits; none, if it is a dynamic name, which has grants of its own.
    pub(super) allow: Arc<Allow>,
}

impl Route {
    pub(super) fn of(
        settings: &Settings,
        allow: &Arc<Allow>,
        id: &RouteId,
        pool: Arc<Pool>,
    ) -> Self {
        // Where any backend may serve it, one at a time does.
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

/// The backends that the configuration admits to a route, on all its hosts alike.
#[derive(Debug, Default)]
pub(super) struct Allow {
    /// One for each host.
    pub(super) ids: Vec<RouteId>,
    pub(super) hosts: Vec<String>,
    /// `None`: those that the gateway as a whole admits.
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

    /// The routes that a grant, made once, is good for now: all hosts of the route, if it was made for a credential that is
    /// judged here; what an authorizer outside was asked about is good for that alone.
    pub(super) fn keeps<'a>(
        &'a self,
        grant: &'a Grant,
        key: Option<&identity::Key>,
    ) -> &'a [RouteId] {
        let Some(credentials) = &self.credentials else {
            return if self.known.admits_generally(key) { &self.ids } else { &[] };
        };
        let mut good = credentials.iter().filter(|it| lets_in(it, grant, key));
        match good.clone().any(|it| !it.is_abroad()) {
            true => &self.ids,
            false if good.next().is_some() => std::slice::from_ref(grant.route()),
            false => &[],
        }
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

/// The pools of all routes, each for as long as a policy, a tunnel, or a request that waits has it.
///
/// They outlive the exchange of the policy, also those that were made while the next policy was made.
#[derive(Debug)]
pub(super) struct Pools {
    shards: usize,
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

    /// The pool of a route; a new one counts the requests that wait in `held`.
    pub(super) fn of(&self, id: &RouteId, domain: &str, held: &Gauge) -> Arc<Pool> {
        let make = || Pool::holding(self.shards, held.clone());
        self.lock().of(&(id.clone(), domain.to_owned()), make)
    }

    fn lock(&self) -> MutexGuard<'_, InUse<Key, Pool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends away all requests that wait for a host.
    pub(super) fn forget(&self, id: &RouteId) {
        self.lock().remove(&(id.clone(), String::new())).iter().for_each(|pool| pool.close());
    }

    /// Sends away all requests that wait for what isn't kept; the others look whether they are to wait elsewhere.
    pub(super) fn close(&self, keeps: impl Fn(&RouteId, &str) -> bool) {
        self.lock().retain(|(id, domain), pool| {
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
