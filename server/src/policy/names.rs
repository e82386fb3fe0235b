//! Dynamic names: who may have which, who has them now, and which one a request means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use crate::config::{NameGrant, Names as Settings, NoBackend};
use crate::identity::Grant;
use crate::identity::Identity;
use crate::live::Tunnel;
use crate::pool::Pool;
use crate::quota::{Gauge, InUse};
use crate::router::RouteId;
use crate::router::{self, HostPattern};

use super::admits::{has_key, lets_in};
use super::{Found, Lost, Policy, Route};

/// The names under one domain.
pub(super) struct Names {
    settings: Settings,
    path_hosts: Vec<HostPattern>,
    /// Those that somebody serves.
    live: RwLock<HashMap<String, Arc<Route>>>,
    pools: Arc<Pools>,
}

impl Names {
    /// What `settings` say. Those that are live in `before` go on, if it is the same domain.
    pub(super) fn new(settings: Settings, shards: usize, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.settings.domain == settings.domain);
        let live = before.map(Self::live).unwrap_or_default().into_iter().filter_map(|route| {
            let RouteId::Name(name) = &route.site else { return None };
            Some((name.clone(), Arc::new(Route::named(&settings, name, route.pool.clone()))))
        });
        let live = RwLock::new(live.collect());
        let pools = before.map(|before| before.pools.clone());
        let pools = pools.unwrap_or_else(|| Arc::new(Pools::new(shards)));
        let hosts = settings.path_hosts.iter().map(|host| HostPattern::Name(host.as_str().into()));
        Self { path_hosts: hosts.collect(), settings, live, pools }
    }

    /// The names that somebody serves.
    pub(super) fn live(&self) -> Vec<Arc<Route>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Route>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The name's route, which begins to exist if it doesn't. Only for names that were granted, and for a
    /// tunnel that joins now: the next [`Self::tidy`] takes out whoever has none.
    pub(super) fn make(&self, name: &str) -> Arc<Route> {
        let mut live = self.write();
        live.entry(name.to_owned()).or_insert_with(|| self.route(name)).clone()
    }

    /// Forgets the names that nobody serves. Requests that wait for one have its pool in their hands, and
    /// whoever serves it next finds it by [`Pools`].
    fn tidy(&self) {
        self.write().retain(|_, route| !route.pool.is_empty());
    }

    /// Forgets a name, if nobody serves it.
    fn forget(&self, name: &str) {
        if let Entry::Occupied(live) = self.write().entry(name.to_owned())
            && live.get().pool.is_empty()
        {
            live.remove();
        }
    }

    /// Sends away all who wait, unless `after` goes on where this ended.
    pub(super) fn close(&self, after: Option<&Self>) {
        let gone = after.is_none_or(|after| !Arc::ptr_eq(&self.pools, &after.pools));
        self.pools.each(|pool| if gone { pool.close() } else { pool.stir() });
    }

    /// What the name's route is, or would be.
    pub(super) fn route(&self, name: &str) -> Arc<Route> {
        Arc::new(Route::named(&self.settings, name, self.pools.of(name)))
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Route>>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name that a host spells: `bob.tunnel.example.com` is `bob`.
    pub(super) fn label(&self, host: &str) -> Option<String> {
        router::label(host, self.domain()).map(|name| name.into_owned())
    }

    /// What [`Self::label`] looks at.
    pub(super) fn domain(&self) -> &str {
        &self.settings.domain
    }

    /// Where a request goes whose host is one of the domain's.
    pub(super) fn by_host(&self, host: &str) -> Result<Found, Lost> {
        let name = self.label(host).ok_or(Lost::Unrouted)?;
        self.meet(&name, 0, false, true)
    }

    /// Where a request goes by its path's first segment, on the hosts that have them.
    pub(super) fn by_path(&self, host: &str, path: &str) -> Result<Found, Lost> {
        let hosted = self.path_hosts.iter().any(|known| known.matches(host));
        let prefix = self.settings.path_prefix.as_str();
        let name = path.strip_prefix(prefix).and_then(router::segment);
        let name = name.filter(|name| hosted && self.is_fit(name)).ok_or(Lost::Unrouted)?;
        let strip = if self.settings.strip { prefix.len() + 1 + name.len() } else { 0 };
        // A page's /favicon.ico is nobody's name that might come.
        let may_come = router::is_label(name) || !prefix.is_empty();
        self.meet(name, strip, true, may_come)
    }

    /// Whether this can be a name here: one that is no label of a host is found by path alone.
    pub(super) fn is_fit(&self, name: &str) -> bool {
        self.settings.is_fit(name)
    }

    fn meet(
        &self,
        name: &str,
        strip: usize,
        confined: bool,
        may_come: bool,
    ) -> Result<Found, Lost> {
        if matches!(self.settings.no_backend, NoBackend::Origin(_)) {
            let route = self.get(name).unwrap_or_else(|| self.route(name));
            return Ok(Found { route, strip, confined });
        }
        let await_name = || may_come.then(|| self.await_name(name)).flatten();
        let route = self.get(name).or_else(await_name);
        let route = route.ok_or_else(|| Lost::Nobody(self.settings.no_backend.clone()))?;
        Ok(Found { route, strip, confined })
    }

    /// A route for a name that nobody serves yet, if a request may wait for it. It is the request's own:
    /// a stranger chose the name, and nothing of it stays when he leaves.
    fn await_name(&self, name: &str) -> Option<Arc<Route>> {
        let most = self.settings.hold?.requests;
        (self.pools.held.held() < most).then(|| self.route(name))
    }

    /// What a backend of door A may serve: the name it asks for, or the ones that its key is for.
    pub(super) fn admit(&self, identity: &Identity, name: Option<&str>) -> Vec<RouteId> {
        let grants = self.settings.allow.iter();
        let grants = grants.filter(|grant| has_key(&grant.credential, identity.key.as_ref()));
        let names: Vec<_> = match name {
            Some(name) => {
                let granted = grants.into_iter().any(|grant| self.includes(grant, name));
                granted.then(|| name.to_owned()).into_iter().collect()
            }
            None => grants.filter_map(|grant| grant.names.clone()).flatten().collect(),
        };
        names.into_iter().filter(|name| self.is_fit(name)).map(RouteId::Name).collect()
    }

    /// Whether a backend that once passed may still have the name.
    pub(super) fn keeps(&self, name: &str, granted: &Grant, tunnel: &Tunnel) -> bool {
        if !granted.is_under(self.domain()) {
            return false;
        }
        let key = tunnel.identity.key.as_ref();
        let mut grants = self.settings.allow.iter();
        grants.any(|it| self.includes(it, name) && lets_in(&it.credential, granted, key))
    }

    /// Whether an entry is for that name. One without a list is for all names that no entry lists: a listed
    /// name is reserved.
    pub(super) fn includes(&self, grant: &NameGrant, name: &str) -> bool {
        let lists = |grant: &NameGrant| {
            grant.names.as_ref().is_some_and(|names| names.iter().any(|known| known == name))
        };
        match &grant.names {
            Some(_) => lists(grant),
            None => !self.settings.allow.iter().any(lists),
        }
    }

    pub(super) fn grants(&self) -> &[NameGrant] {
        &self.settings.allow
    }
}

impl Policy {
    /// Takes out the names that nobody serves any more.
    pub fn tidy(&self) {
        self.names.iter().for_each(Names::tidy);
    }

    /// Takes out a name, or a single host of a pattern, if this is one and nobody serves it any more.
    pub fn forget(&self, site: &RouteId) {
        match (site, &self.names) {
            (RouteId::Name(name), Some(names)) => names.forget(name),
            (RouteId::Name(_), None) => {}
            (RouteId::Host(..), _) => self.narrow.forget(site),
        }
    }
}

/// The pools of names, for as long as anybody has them: tunnels' names, and requests that wait.
///
/// They outlive the exchange of the policy, also those that came to be while the next one was made.
struct Pools {
    shards: usize,
    /// Requests that wait for a backend, over all names, since a stranger chooses them.
    held: Gauge,
    known: Mutex<InUse<String, Pool>>,
}

impl Pools {
    fn new(shards: usize) -> Self {
        Self { shards, held: Gauge::default(), known: Mutex::default() }
    }

    fn of(&self, name: &str) -> Arc<Pool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.of(&name.to_owned(), || Pool::holding(self.shards, self.held.clone()))
    }

    fn each(&self, act: impl Fn(&Pool)) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().for_each(|pool| act(pool));
    }
}
