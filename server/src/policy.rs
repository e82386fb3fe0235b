//! The configuration as it is applied: which route a request takes, and what a backend may serve.
//!
//! Made whole from a checked [`Config`] and exchanged whole. The pools of its routes outlive the exchange: a route
//! is a host and a path, and its name in the configuration is a label for logs.
//!
//! Invariant: a visitor reaches this with a host and a path, and with nothing else.

mod evaluation;
mod names;
mod route;

#[cfg(feature = "acme")]
use std::collections::BTreeSet;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ptth_link::lock::RwLock;
use ptth_link::token::PublicKey;
use rustls::pki_types::CertificateDer;

use crate::auth::{Admits, Credential, Known};
use crate::config::{Config, Names, NoBackend, Route as Settings};
use crate::identity::{Grant, Key};
use crate::live::Tunnel;
use crate::quota::Gauge;
use crate::router::{self, HostPattern, RouteId, Table};

use route::{Configured, Pools};

pub use evaluation::Refused;
pub(crate) use route::Route;

#[derive(Clone, Debug)]
pub struct Found {
    pub route: Arc<Route>,
    /// How many bytes of the path are the prefix to strip.
    pub strip: usize,
    /// The path of a dynamic name that was found by it: other names have the same host.
    pub confined: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    Unrouted,
    Nobody(NoBackend),
}

/// The table in force.
#[derive(Debug)]
pub struct Policy {
    table: Table<Target>,
    /// The configured routes in their order, each once for all its hosts.
    configured: Vec<Arc<Configured>>,
    /// Dynamic names, and single hosts of a pattern, each while a backend serves it. Such a host comes before its
    /// pattern.
    made: RwLock<HashMap<RouteId, Arc<Route>>>,
    names: Option<Names>,
    /// For the routes of all dynamic names.
    named: Arc<Configured>,
    /// The keys that single routes and names admit.
    keys: HashSet<PublicKey>,
    known: Arc<Known>,
    pools: Arc<Pools>,
}

#[derive(Debug)]
enum Target {
    Route(Arc<Route>),
    Names,
}

impl Admits for Policy {
    fn is_open(&self) -> bool {
        self.known.is_open()
    }

    fn names(&self, key: &Key) -> bool {
        self.known.names(key) || matches!(key, Key::Ed25519(key) if self.keys.contains(key))
    }

    /// The verdict of the first authority that accepts it, else of the last.
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Option<Result<(), rustls::Error>> {
        let mut verdict = None;
        for credential in self.credentials() {
            verdict = credential.verify(chain).or(verdict);
            if let Some(Ok(())) = verdict {
                break;
            }
        }
        verdict
    }
}

impl Policy {
    /// `known`: the keys that the gateway as a whole admits. The pools of the policy `before` go on, with the requests
    /// that wait.
    pub fn new(config: &Config, known: &Arc<Known>, shards: usize, before: Option<&Self>) -> Self {
        let named = config.names.as_ref().map(|names| names.route.clone());
        let named = named.unwrap_or_else(|| Settings::new("", Vec::new()));
        let mut policy = Self {
            table: Table::default(),
            configured: Vec::new(),
            made: RwLock::default(),
            names: config.names.clone(),
            // Its own grants admit, and nothing else.
            named: Configured::new(named, &Arc::default(), &[]),
            keys: HashSet::new(),
            known: known.clone(),
            pools: before.map_or_else(|| Pools::new(shards), |before| before.pools.clone()),
        };
        let before = before.map_or(&[][..], |before| &before.configured);
        config.routes.iter().for_each(|settings| policy.add(settings.clone(), before));
        if config.routes.is_empty() && config.names.is_none() {
            let any = Settings::new("", vec![HostPattern::Any]);
            let gate = config.gate.clone();
            policy.add(Settings { queue: QUEUE_TIMEOUT, gate, ..any }, before);
        }
        if let Some(names) = policy.names.as_ref().filter(|names| !names.domain.is_empty()) {
            // As if a route had the domain as a wildcard. A twin among the routes comes first.
            let hosts = HostPattern::Under(names.domain.as_str().into());
            let _ = policy.table.insert(&hosts, "/", Target::Names);
        }
        let keys = policy.credentials().flat_map(|credential| credential.keys()).copied();
        policy.keys = keys.collect();
        policy
    }

    fn add(&mut self, settings: Settings, before: &[Arc<Configured>]) {
        let configured = Configured::new(settings, &self.known, before);
        // All its hosts together hold no more requests than the route may.
        let held = Gauge::default();
        for (host, id) in configured.settings.hosts.iter().zip(&configured.ids) {
            let (pool, configured) = (self.pools.of(id, "", &held), configured.clone());
            let route = Arc::new(Route { id: id.clone(), pool, wide: None, configured });
            // The configuration was checked for twins; the first would stay.
            let _ = self.table.insert(host, &route.path.clone(), Target::Route(route));
        }
        self.configured.push(configured);
    }

    pub fn routes(&self) -> Vec<Arc<Route>> {
        let ids = self.configured.iter().flat_map(|configured| &configured.ids);
        ids.filter_map(|id| self.owner(id)).cloned().collect()
    }

    fn credentials(&self) -> impl Iterator<Item = &Arc<dyn Credential>> {
        let routes = self.configured.iter().filter_map(|it| it.settings.allow.as_ref()).flatten();
        let names = self.names.iter().flat_map(|names| &names.allow);
        routes.chain(names.map(|grant| &grant.credential))
    }

    /// The dynamic name that a host spells, unless a route has that host.
    fn name_at(&self, host: &str) -> Option<String> {
        let theirs = self.table.at(host).any(|target| matches!(target, Target::Names));
        self.names.as_ref().filter(|_| theirs)?.label(host)
    }

    /// Where a request for this Host or `:authority` and this path goes. By path, a configured route comes before a
    /// dynamic name, so that no backend can take a part of the route by its choice of a name.
    pub fn find(&self, host: &str, path: &str) -> Result<Found, Lost> {
        match (self.table.find(host, path), &self.names) {
            (Some((Target::Route(route), prefix)), _) => {
                let strip = if route.strip { prefix } else { 0 };
                let route = self.single(route, host).unwrap_or_else(|| route.clone());
                Ok(Found { route, strip, confined: None })
            }
            (Some((Target::Names, _)), Some(names)) => {
                self.find_name(names, &names.label(host).ok_or(Lost::Unrouted)?, false)
            }
            (None, Some(names)) => {
                self.find_name(names, names.by_path(host, path).ok_or(Lost::Unrouted)?, true)
            }
            (_, None) => Err(Lost::Unrouted),
        }
    }

    /// The route of `host` alone, if it has one.
    fn single(&self, wide: &Route, host: &str) -> Option<Arc<Route>> {
        if !wide.id.is_wide() {
            return None;
        }
        let made = self.made.read();
        if made.is_empty() { None } else { made.get(&wide.id.at(host)?).cloned() }
    }

    fn find_name(&self, names: &Names, name: &str, by_path: bool) -> Result<Found, Lost> {
        let confined = by_path.then(|| format!("{}/{name}/", names.path_prefix));
        // Without the slash at its end.
        let strip = confined.as_ref().filter(|_| names.route.strip).map_or(0, |it| it.len() - 1);
        let id = RouteId::Name(name.to_owned());
        // A route for a name that no backend serves yet, if a request may wait for it, is the request's own: a stranger
        // chose the name, and nothing stays of the route when the request ends.
        let waits = || {
            // A page's /favicon.ico is no name that a backend might take.
            let may_come = router::is_label(name) || !names.path_prefix.is_empty();
            let most = names.route.hold.filter(|_| may_come).map_or(0, |hold| hold.requests);
            matches!(names.route.no_backend, NoBackend::Origin(_)) || self.pools.held.held() < most
        };
        let would_be = || waits().then(|| self.would_be(&id)).flatten().map(Arc::new);
        let route = self.made(&id).or_else(would_be);
        let route = route.ok_or_else(|| Lost::Nobody(names.route.no_backend.clone()))?;
        Ok(Found { route, strip, confined })
    }

    /// Whether the table has a route there. A path that only begins with a possible dynamic name is none.
    pub fn has_place(&self, host: &str, path: &str) -> bool {
        self.table.find(host, path).is_some()
    }

    /// The configured route of a host and path, or the one of the pattern that stands for a single host.
    fn owner(&self, id: &RouteId) -> Option<&Arc<Route>> {
        let RouteId::Host(host, path) = id else { return None };
        self.table.at(&host.to_string()).find_map(|target| match target {
            Target::Route(it) if it.id == *id || !id.is_wide() && it.path == **path => Some(it),
            _ => None,
        })
    }

    /// The route that a dynamic name or a single host of a pattern would have; it isn't configured by itself.
    fn would_be(&self, id: &RouteId) -> Option<Route> {
        if let RouteId::Name(_) = id {
            let domain = &self.names.as_ref()?.domain;
            let (pool, configured) =
                (self.pools.of(id, domain, &self.pools.held), self.named.clone());
            return Some(Route { id: id.clone(), pool, wide: None, configured });
        }
        let wide = self.owner(id)?;
        let pool = self.pools.of(id, "", &wide.pool.held);
        Some(Route { id: id.clone(), pool, wide: Some(wide.pool.clone()), ..Route::clone(wide) })
    }

    fn route(&self, id: &RouteId) -> Option<Arc<Route>> {
        self.owner(id).filter(|route| route.id == *id).cloned().or_else(|| self.made(id))
    }

    fn made(&self, id: &RouteId) -> Option<Arc<Route>> {
        self.made.read().get(id).cloned()
    }

    /// The route, which is made if it doesn't exist. Only for what was granted, and for a tunnel that joins now: the
    /// next [`Self::tidy`] takes out routes without a tunnel.
    fn make(&self, id: &RouteId) -> Option<Arc<Route>> {
        self.route(id).or_else(|| {
            let route = Arc::new(self.would_be(id)?);
            Some(self.made.write().entry(id.clone()).or_insert(route).clone())
        })
    }

    /// The routes of these grants, as they are or would be.
    pub fn granted(&self, grants: &[Grant]) -> Vec<Arc<Route>> {
        let ids = grants.iter().map(Grant::route);
        ids.filter_map(|id| self.route(id).or_else(|| self.would_be(id).map(Arc::new))).collect()
    }

    pub(crate) fn has_backend(&self, id: &RouteId) -> bool {
        self.route(id).is_some_and(|route| !route.pool.is_empty())
    }

    /// The hosts of the dynamic names that a backend serves now.
    #[cfg(feature = "acme")]
    pub(crate) fn named_hosts(&self) -> BTreeSet<String> {
        let domain = self.names.as_ref().map(|it| &it.domain).filter(|domain| !domain.is_empty());
        let made = self.made.read();
        let hosts = made.keys().filter_map(|id| match id {
            RouteId::Name(name) if router::is_label(name) => Some(format!("{name}.{}", domain?)),
            _ => None,
        });
        hosts.collect()
    }

    /// Takes out a dynamic name, or a single host of a pattern, that has no tunnel. Requests that wait for such a host
    /// are sent away, since the backends of its pattern come next.
    pub(crate) fn forget(&self, id: &RouteId) {
        let mut made = self.made.write();
        if made.get(id).is_some_and(|route| route.pool.is_empty()) {
            made.remove(id);
            if matches!(id, RouteId::Host(..)) {
                self.pools.forget(id);
            }
        }
    }

    pub(crate) fn tidy(&self) {
        let made: Vec<_> = self.made.read().keys().cloned().collect();
        made.iter().for_each(|id| self.forget(id));
    }

    /// Sends away the requests that wait for a route that `after` doesn't have, or has at other addresses.
    pub fn close(&self, after: &Self) {
        let same = Arc::ptr_eq(&self.pools, &after.pools);
        // Locked before the pools, as wherever both are.
        let made = after.made.read();
        self.pools.close(|id, domain| {
            same && match id {
                RouteId::Name(_) => after.names.as_ref().is_some_and(|it| it.domain == domain),
                RouteId::Host(..) => {
                    after.owner(id).is_some_and(|it| it.id == *id) || made.contains_key(id)
                }
            }
        });
    }

    /// What a tunnel, admitted under any policy, may serve under this one: the part of its grants that its
    /// credential is still good for. A credential that is judged here is good for all hosts of a route, so those
    /// that the route has got since are the tunnel's, too; an authorizer outside was asked about none of them.
    pub fn judge(&self, tunnel: &Tunnel) -> Vec<Arc<Route>> {
        let identity = &tunnel.identity;
        let (mut ids, mut seen) = (Vec::new(), HashSet::new());
        for grant in &tunnel.grants {
            let id = grant.route();
            if seen.contains(id) {
                continue;
            }
            let kept = match id {
                RouteId::Name(name) => {
                    let names = self.names.as_ref().filter(|it| it.keeps(name, grant, identity));
                    names.map(|_| std::slice::from_ref(id))
                }
                RouteId::Host(..) => self.owner(id).map(|it| it.configured.keeps(grant, identity)),
            };
            ids.extend(kept.into_iter().flatten().filter(|id| seen.insert(*id)));
        }
        ids.into_iter().filter_map(|id| self.make(id)).collect()
    }
}

/// About how long a visitor waits before it loads a page again, which would only lengthen the queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
