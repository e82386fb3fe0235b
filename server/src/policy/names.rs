//! Dynamic names: who may have which, who has them now, and which one a request means.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::Identity;
use crate::config::{NameGrant, Names as Settings};
use crate::pool::Pool;
use crate::router::{self, HostPattern};
use crate::site::Site;

use super::{Found, Lost, Route, lets_in};

/// The names under one domain.
pub(super) struct Names {
    settings: Settings,
    path_hosts: Vec<HostPattern>,
    shards: usize,
    live: Mutex<HashMap<String, Arc<Route>>>,
}

impl Names {
    /// What `settings` say. Those that are live in `before` go on.
    pub(super) fn new(settings: Settings, shards: usize, before: Option<&Self>) -> Self {
        let live = before.map(|before| before.lock().clone()).unwrap_or_default();
        let renewed = live.into_iter().map(|(name, route)| {
            let route = Route::named(&settings, &name, route.pool.clone());
            (name, Arc::new(route))
        });
        let live = Mutex::new(renewed.collect());
        let hosts = settings.path_hosts.iter().map(|host| HostPattern::Name(host.as_str().into()));
        Self { path_hosts: hosts.collect(), settings, shards, live }
    }

    /// The names that somebody serves, or waits for.
    pub(super) fn live(&self) -> Vec<Arc<Route>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Route>> {
        self.lock().get(name).cloned()
    }

    /// The name's route, which begins to exist if it doesn't. Only for names that were granted.
    pub(super) fn make(&self, name: &str) -> Arc<Route> {
        let mut live = self.lock();
        let route = live.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Route::named(&self.settings, name, Pool::new(self.shards)))
        });
        route.clone()
    }

    /// Forgets the names that nobody serves and no request waits for.
    pub(super) fn tidy(&self) {
        let wanted = |route: &Arc<Route>| !route.pool.is_empty() || Arc::strong_count(route) > 1;
        self.lock().retain(|_, route| wanted(route));
    }

    /// The name that a host spells: `bob.tunnel.example.com` is `bob`.
    pub(super) fn label(&self, host: &str) -> Option<String> {
        router::label(host, &self.settings.domain).map(|name| name.into_owned())
    }

    /// Where a request goes: by host, or by the path's first segment on the hosts that have them.
    pub(super) fn find(&self, host: &str, path: &str) -> Result<Found, Lost> {
        if let Some(name) = self.label(host) {
            return self.meet(&name, 0);
        }
        let hosted = self.path_hosts.iter().any(|known| known.matches(host));
        let name = router::segment(path).filter(|name| hosted && router::is_label(name));
        let name = name.ok_or(Lost::Unrouted)?;
        let prefix = if self.settings.strip { name.len() + 1 } else { 0 };
        self.meet(name, prefix)
    }

    fn meet(&self, name: &str, strip: usize) -> Result<Found, Lost> {
        let route = self.get(name).or_else(|| self.await_name(name));
        let route = route.ok_or_else(|| Lost::Nobody(self.settings.no_backend.clone()))?;
        Ok(Found { route, strip })
    }

    /// A route for a name that nobody serves yet, if requests may wait for it: no more such names
    /// than requests, since a stranger chooses them.
    fn await_name(&self, name: &str) -> Option<Arc<Route>> {
        let most = self.settings.hold?.requests;
        self.tidy();
        let unserved = self.lock().values().filter(|route| route.pool.is_empty()).count();
        (unserved < most).then(|| self.make(name))
    }

    /// What a backend of door A may serve: the name it asks for, or the ones that its key is for.
    pub(super) fn admit(&self, identity: &Identity, name: Option<&str>) -> Vec<Site> {
        let grants = self.settings.allow.iter();
        let grants = grants.filter(|grant| lets_in(&grant.credential, identity));
        let names: Vec<_> = match name {
            Some(name) => {
                let granted = grants.into_iter().any(|grant| includes(grant, name));
                granted.then(|| name.to_owned()).into_iter().collect()
            }
            None => grants.filter_map(|grant| grant.names.clone()).flatten().collect(),
        };
        names.into_iter().filter(|name| router::is_label(name)).map(Site::Name).collect()
    }

    /// Whether a backend that once passed may still have the name.
    pub(super) fn keeps(&self, name: &str, identity: &Identity) -> bool {
        let mut grants = self.settings.allow.iter();
        grants.any(|grant| includes(grant, name) && lets_in(&grant.credential, identity))
    }

    pub(super) fn grants(&self) -> &[NameGrant] {
        &self.settings.allow
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Route>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a grant is for that name.
pub(super) fn includes(grant: &NameGrant, name: &str) -> bool {
    grant.names.as_ref().is_none_or(|names| names.iter().any(|known| known == name))
}
