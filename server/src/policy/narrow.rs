//! Single hosts of a pattern: `t1.w.test`, where a route has `*.w.test`.
//!
//! A backend that was found good for one of them alone must not get the requests of the others. So the host has a
//! route of its own as long as such a backend is there, which comes before the pattern's as an exact host does.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::router::RouteId;
use crate::router::{self, HostPattern};

use super::{Policy, Route, Target};

/// The single hosts that somebody serves.
#[derive(Default)]
pub(super) struct Narrow {
    live: RwLock<HashMap<RouteId, Arc<Route>>>,
}

impl Narrow {
    pub(super) fn get(&self, site: &RouteId) -> Option<Arc<Route>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(site).cloned()
    }

    /// The route of `host` alone, if it has one and `wide` is the one of its pattern.
    pub(super) fn at(&self, wide: &Route, host: &str) -> Option<Arc<Route>> {
        let RouteId::Host(HostPattern::Any | HostPattern::Under(_), path) = &wide.site else {
            return None;
        };
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if live.is_empty() {
            return None;
        }
        live.get(&RouteId::Host(router::exact(host)?, path.clone())).cloned()
    }

    /// Forgets a host that nobody serves. Who waits for one is sent away: the pattern's backends come next.
    pub(super) fn forget(&self, site: &RouteId) {
        let mut live = self.write();
        if live.get(site).is_some_and(|route| route.pool.is_empty())
            && let Some(route) = live.remove(site)
        {
            route.pool.close();
        }
    }

    /// Sends away those who wait for what `after` has no more.
    pub(super) fn close(&self, after: &Self) {
        for (site, route) in self.write().iter() {
            let same = after.get(site).is_some_and(|it| Arc::ptr_eq(&it.pool, &route.pool));
            if same { route.pool.stir() } else { route.pool.close() }
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<RouteId, Arc<Route>>> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy {
    /// The route whose pattern stands for a single host that no route names, with the same path.
    pub(super) fn wider(&self, site: &RouteId) -> Option<usize> {
        let RouteId::Host(host @ (HostPattern::Name(_) | HostPattern::Literal(_)), path) = site
        else {
            return None;
        };
        self.table.at(&host.to_string()).find_map(|target| {
            let Target::Route(index) = *target else { return None };
            let same = matches!(&self.routes.get(index)?.site, RouteId::Host(_, it) if it == path);
            same.then_some(index)
        })
    }

    /// What is to be granted to a backend that asks for `host`, of the route at `index`: that host alone.
    pub(super) fn single(&self, index: usize, host: &str) -> Option<RouteId> {
        match &self.routes.get(index)?.site {
            RouteId::Host(HostPattern::Any | HostPattern::Under(_), path) => {
                Some(RouteId::Host(router::exact(host)?, path.clone()))
            }
            site => Some(site.clone()),
        }
    }

    /// The route of a single host, as it would be.
    pub(super) fn narrowed(&self, site: &RouteId) -> Option<Route> {
        let RouteId::Host(host, path) = site else { return None };
        Some(self.routes.get(self.wider(site)?)?.narrowed(host.clone(), path))
    }

    /// The route of a single host, which begins to exist if it doesn't.
    pub(super) fn make_narrow(&self, site: &RouteId) -> Option<Arc<Route>> {
        let route = Arc::new(self.narrowed(site)?);
        Some(self.narrow.write().entry(site.clone()).or_insert(route).clone())
    }

    /// Goes on with the pools of those that are served under the policy `before`.
    pub(super) fn inherit_narrow(&self, before: &Self) {
        let live = before.narrow.live.read().unwrap_or_else(PoisonError::into_inner);
        for (site, old) in live.iter().filter(|(_, old)| !old.pool.is_empty()) {
            if let Some(route) = self.narrowed(site) {
                let route = Arc::new(Route { pool: old.pool.clone(), ..route });
                self.narrow.write().insert(site.clone(), route);
            }
        }
    }
}
