//! One route, as visitors' requests meet it, and the backends that it admits.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::auth::{Admits, Credential, Known};
use crate::config::{Route as Settings, WhenTaken};
use crate::gate::Gate;
use crate::identity::{Grant, Identity, Key};
use crate::observe::{Observe, RouteCounts};
use crate::pool::Pool;
use crate::quota::{Gauge, Permit, shared};
use crate::router::{HostPattern, RouteId};

use ptth_link::bandwidth::{Bandwidth, Turns};
use ptth_link::lock::Mutex;

/// A host of a configured route, one host of its pattern, or a dynamic name.
#[derive(Clone, Debug)]
pub struct Route {
    pub id: RouteId,
    pub pool: Arc<Pool>,
    /// Of one host of a pattern: the pool of the pattern, whose tunnels serve it while it has none of its own.
    pub wide: Option<Arc<Pool>>,
    pub(super) configured: Arc<Configured>,
}

impl Route {
    /// Where its exchanges are counted.
    pub(crate) fn counts(&self, observe: &Observe) -> Arc<RouteCounts> {
        let counts = || observe.counts.route(&self.name);
        self.configured.counts.get_or_init(counts).clone()
    }
}

impl Deref for Route {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.configured.settings
    }
}

/// A route of the configuration, for all its hosts; or the dynamic names, which have no hosts and grants of their own.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) settings: Settings,
    pub(super) ids: Vec<RouteId>,
    pub(super) hosts: Vec<String>,
    /// Admits where the settings don't.
    pub(super) known: Arc<Known>,
    counts: OnceLock<Arc<RouteCounts>>,
    gate: Option<Arc<Gate>>,
    /// The requests that are under way.
    streams: Gauge,
    bandwidth: Option<Arc<Bandwidth>>,
}

impl Route {
    /// What a request must pass before anything of it reaches a backend.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.configured.gate.as_ref()
    }

    /// The right to be one of the requests that the route may have at a time; where that is unlimited, nothing.
    ///
    /// # Errors
    /// It has them all.
    pub(crate) fn begin(&self) -> Result<Option<Permit>, ()> {
        let Some(most) = self.max_streams else { return Ok(None) };
        self.configured.streams.take(most).map(Some).ok_or(())
    }

    /// A new body's part of the route's bandwidth, where that is limited.
    pub(crate) fn turns(&self) -> Option<Turns> {
        self.configured.bandwidth.as_ref().map(Turns::new)
    }
}

impl Configured {
    /// What the gate of the same hosts and paths knew `before` goes on, if its settings are the same.
    pub(super) fn new(
        mut settings: Settings,
        known: &Arc<Known>,
        before: &[Arc<Self>],
    ) -> Arc<Self> {
        // Where any backend may serve it, one at a time does.
        if settings.allow.is_none() && known.is_open() {
            settings.when_taken = WhenTaken::Reject;
        }
        let id = |host: &HostPattern| RouteId::Host(host.clone(), settings.path.as_str().into());
        let ids: Vec<_> = settings.hosts.iter().map(id).collect();
        let before = before.iter().find(|it| it.ids == ids);
        let gate = settings.gate.as_ref().map(|settings| {
            let same = before.and_then(|it| it.gate.clone()).filter(|it| it.is_of(settings));
            same.unwrap_or_else(|| Gate::new(settings))
        });
        let bandwidth = settings.rate_bytes.map(|rate| {
            let same = before.and_then(|it| it.bandwidth.clone()).filter(|it| it.rate() == rate);
            same.unwrap_or_else(|| Bandwidth::new(rate))
        });
        let streams = before.map(|it| it.streams.clone()).unwrap_or_default();
        Arc::new(Self {
            ids,
            gate,
            streams,
            bandwidth,
            hosts: settings.hosts.iter().map(HostPattern::to_string).collect(),
            known: known.clone(),
            counts: OnceLock::new(),
            settings,
        })
    }

    /// The routes that a grant is still good for: all, if its credential is judged here; else what the authorizer was
    /// asked.
    pub(super) fn keeps<'a>(&'a self, grant: &'a Grant, identity: &Identity) -> &'a [RouteId] {
        let Some(credentials) = &self.settings.allow else {
            let fine = self.known.admits_generally(identity.key.as_ref());
            return if fine { &self.ids } else { &[] };
        };
        let mut good = credentials.iter().filter(|it| lets_in(it, grant, identity));
        // An authority vouches for the names of a certificate, and for nothing beyond them.
        let whole =
            |it: &Arc<dyn Credential>| !it.is_abroad() && it.verify(&identity.chain).is_none();
        match good.clone().any(whole) {
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
    identity: &Identity,
) -> bool {
    match (grant.mark(), identity.key) {
        (Some(mark), _) => credential.keeps(mark),
        (None, Some(Key::Ed25519(key))) if credential.keys().contains(&key) => true,
        (None, _) => matches!(credential.verify(&identity.chain), Some(Ok(()))),
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
    /// A route, and for a dynamic name its domain: the same name under another one is another host.
    known: Mutex<HashMap<(RouteId, String), Arc<Pool>>>,
}

impl Pools {
    pub(super) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self { shards, held: Gauge::default(), known: Mutex::default() })
    }

    /// The pool of a route; a new one counts the requests that wait in `held`.
    pub(super) fn of(&self, id: &RouteId, domain: &str, held: &Gauge) -> Arc<Pool> {
        let make = || Pool::holding(self.shards, held.clone());
        shared(&mut self.known.lock(), (id.clone(), domain.to_owned()), make)
    }

    pub(super) fn forget(&self, id: &RouteId) {
        self.known.lock().remove(&(id.clone(), String::new())).iter().for_each(|pool| pool.close());
    }

    /// Sends away all requests that wait for what isn't kept; the others look whether they are to wait elsewhere.
    pub(super) fn close(&self, keeps: impl Fn(&RouteId, &str) -> bool) {
        self.known.lock().retain(|(id, domain), pool| {
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
