//! The configuration as it is applied: which route a request takes, and what a backend may serve.
//!
//! Made whole from a checked [`Config`] and exchanged whole; what outlives an exchange (pools, live
//! dynamic names) is handed from one to the next, by host and path.
//!
//! Invariant: no visitor can reach this with anything but a host and a path.

mod admits;
mod desk;
mod names;
mod narrow;
mod route;
mod urls;
mod wish;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use ptth_link::token::PublicKey;

use crate::auth::{Claim, Credential, Known};
use crate::config::{Config, NameGrant, NoBackend, Route as Settings, WhenTaken};
use crate::identity::Grant;
use crate::identity::{Identity, Mark};
use crate::live::Tunnel;
use crate::pool::{Patience, Pool};
use crate::quota::Gauge;
use crate::router::RouteId;
use crate::router::{HostPattern, Table};

use admits::{Admits, Scope};
use desk::Desk;
use names::Names;
use narrow::Narrow;
use wish::{at_path, forbidden};

pub use route::Route;
pub use wish::{Refused, Wish};

/// Where a request goes.
#[derive(Debug)]
pub struct Found {
    /// The site.
    pub route: Arc<Route>,
    /// How many bytes of the path are the prefix to strip.
    pub strip: usize,
    /// Other names have the same host, and are told apart by their paths.
    pub confined: bool,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// No route for this host and path.
    Unrouted,
    /// A dynamic name that nobody serves.
    Nobody(NoBackend),
}

/// The table in force.
pub struct Policy {
    table: Table<Target>,
    /// One for each host of each configured route.
    routes: Vec<Arc<Route>>,
    /// Whom each of `routes` admits.
    admits: Vec<Arc<Admits>>,
    /// Where each site stands in them.
    indices: HashMap<RouteId, usize>,
    narrow: Narrow,
    names: Option<Names>,
}

/// What the table leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    /// The route at that index.
    Route(usize),
    /// Whoever has the dynamic name.
    Names,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Policy {
    /// What `config` says, for a gateway of so many shards; `known` are the keys that TLS lets in. Pools
    /// and live names of the policy `before` go on: what waits for a host and path goes on to wait.
    pub fn new(config: &Config, known: &Arc<Known>, shards: usize, before: Option<&Self>) -> Self {
        let live = before.and_then(|before| before.names.as_ref());
        let names = config.names.clone().map(|names| Names::new(names, shards, live));
        let mut policy = Self {
            table: Table::default(),
            routes: Vec::new(),
            admits: Vec::new(),
            indices: HashMap::new(),
            narrow: Narrow::default(),
            names,
        };
        let unnamed = (config.routes.is_empty() && config.names.is_none())
            .then(|| Settings::new("", vec![HostPattern::Any]));
        for settings in config.routes.iter().chain(&unnamed) {
            policy.add(settings, known, (shards, before), unnamed.is_some());
        }
        if let Some(names) = policy.names.as_ref().filter(|names| !names.domain().is_empty()) {
            // Its domain is theirs as if a route had it as a wildcard. A twin among the routes comes first.
            let hosts = HostPattern::Under(names.domain().into());
            let _ = policy.table.insert(&hosts, "/", Target::Names);
        }
        before.into_iter().for_each(|before| policy.inherit_narrow(before));
        policy
    }

    fn add(
        &mut self,
        settings: &Settings,
        known: &Arc<Known>,
        (shards, before): (usize, Option<&Self>),
        unnamed: bool,
    ) {
        let first = self.routes.len();
        let admits = Arc::new(Admits::new(settings, first, known));
        // All its hosts together hold no more requests than the route may.
        let held = Gauge::default();
        for host in &settings.hosts {
            // The configuration was checked for twins; the first would stay.
            let index = self.routes.len();
            let _ = self.table.insert(host, &settings.path, Target::Route(index));
            let mut route = Route::of(settings, host, Pool::holding(shards, held.clone()));
            if let Some(same) = before.and_then(|before| before.route(&route.site)) {
                route.pool = same.pool.clone();
            }
            if settings.allow.is_none() && known.is_open() {
                // Whoever comes may serve it, so one at a time.
                route.when_taken = WhenTaken::Reject;
            }
            if unnamed {
                route.patience = Patience::default();
            }
            self.indices.insert(route.site.clone(), index);
            self.routes.push(Arc::new(route));
            self.admits.push(admits.clone());
        }
    }

    /// The configured routes.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The keys that single routes and names admit: TLS must let them in.
    pub fn keys(&self) -> HashSet<PublicKey> {
        self.credentials().iter().flat_map(|credential| credential.keys()).copied().collect()
    }

    /// Everything that lets somebody in.
    fn credentials(&self) -> Vec<&Arc<dyn Credential>> {
        let routes = self.groups().filter_map(|admits| admits.credentials()).flatten();
        routes.chain(self.name_grants().iter().map(|grant| &grant.credential)).collect()
    }

    /// Whether an entry of the names is for that one.
    fn is_granted(&self, grant: &NameGrant, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.includes(grant, name))
    }

    fn name_grants(&self) -> &[NameGrant] {
        self.names.as_ref().map_or(&[], Names::grants)
    }

    /// Where a request for this Host or `:authority` and this path goes. The names' domain is looked up
    /// like any host; by path, a configured route comes before a dynamic name, so that no backend can take
    /// a part of one by its choice of a name.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn find(&self, host: &str, path: &str) -> Result<Found, Lost> {
        let Some(found) = self.table.find(host, path) else {
            return self.names.as_ref().map_or(Err(Lost::Unrouted), |it| it.by_path(host, path));
        };
        match (*found.value, &self.names) {
            (Target::Route(index), _) => {
                let route = self.routes.get(index).ok_or(Lost::Unrouted)?;
                let route = self.narrow.at(route, host).unwrap_or_else(|| route.clone());
                let strip = if route.strip { found.prefix } else { 0 };
                Ok(Found { route, strip, confined: false })
            }
            (Target::Names, Some(names)) => names.by_host(host),
            (Target::Names, None) => Err(Lost::Unrouted),
        }
    }

    /// Whether the table leads somewhere for that host and path: not only that the path begins with what may
    /// be a dynamic name.
    pub fn has_place(&self, host: &str, path: &str) -> bool {
        self.table.find(host, path).is_some()
    }

    /// Those of the sites that exist; dynamic names only while somebody serves them.
    pub fn live(&self, grants: &[Grant]) -> Vec<Arc<Route>> {
        let single = |site| self.narrowed(site).map(Arc::new);
        let found = grants.iter().map(Grant::route);
        found.filter_map(|site| self.route(site).or_else(|| single(site))).collect()
    }

    /// Whether anybody serves the site.
    pub fn has_backend(&self, site: &RouteId) -> bool {
        self.route(site).is_some_and(|route| !route.pool.is_empty())
    }

    /// Sends away those requests that wait for what `after` has no more, or has for other addresses; and has the
    /// others look whether what they wait for is theirs still.
    pub fn close(&self, after: &Self) {
        let kept: HashSet<_> = after.routes.iter().map(|it| Arc::as_ptr(&it.pool)).collect();
        for Route { pool, .. } in self.routes.iter().map(|route| &**route) {
            if kept.contains(&Arc::as_ptr(pool)) { pool.stir() } else { pool.close() }
        }
        self.narrow.close(&after.narrow);
        if let Some(names) = &self.names {
            names.close(after.names.as_ref());
        }
    }

    /// What a tunnel, admitted under whatever policy, may serve under this one: of what it was granted what its
    /// credential is still good for. A credential that is judged here is good for all hosts of a route, so those
    /// that the route has got since are the tunnel's, too; an authorizer outside was asked about none of them.
    pub fn judge(&self, tunnel: &Tunnel) -> Vec<Arc<Route>> {
        let mut sites = Vec::new();
        let mut seen = HashSet::new();
        for grant in &tunnel.grants {
            let site = grant.route();
            if seen.contains(site) {
                continue;
            }
            let own = [site.clone()];
            let found: &[RouteId] = match (site, self.index(site)) {
                (RouteId::Name(name), _) => {
                    let kept = self.names.as_ref().is_some_and(|it| it.keeps(name, grant, tunnel));
                    if kept { &own } else { &[] }
                }
                (RouteId::Host(..), Some(index)) => {
                    let Some(admits) = self.admits.get(index) else { continue };
                    match admits.keeps(grant, tunnel.identity.key.as_ref()) {
                        Some(Scope::Route) => &self.sites(admits),
                        Some(Scope::Host) => &own,
                        None => &[],
                    }
                }
                (RouteId::Host(..), None) => &[],
            };
            sites.extend(found.iter().filter(|site| seen.insert((*site).clone())).cloned());
        }
        sites.iter().filter_map(|site| self.site(site)).collect()
    }

    /// Door A: what a backend may serve whose key TLS has proven.
    ///
    /// # Errors
    /// [`Refused::Forbidden`]: its key is good for something, but not for what it asks.
    pub fn admit(&self, identity: &Identity) -> Result<Vec<Grant>, Refused> {
        let grants = self.sites_by_key(identity)?.into_iter().map(Grant::by_key).collect();
        at_path(grants, identity.path.as_deref(), Grant::route)
    }

    fn sites_by_key(&self, identity: &Identity) -> Result<Vec<RouteId>, Refused> {
        let names = |name: Option<&str>| match &self.names {
            Some(names) => names.admit(identity, name),
            None => Vec::new(),
        };
        // Another program's certificate may say there what its company has always put there.
        let wish = identity.wish.as_deref();
        if let Some(wish) = wish.filter(|wish| identity.ours || self.speaks_of(wish)) {
            let sites = names(Some(wish));
            return if sites.is_empty() {
                Err(forbidden(format!("the name {wish:?}")))
            } else {
                Ok(sites)
            };
        }
        let sni = identity.sni.as_deref();
        let named = sni.and_then(|host| self.name_at(host));
        let sites = named.map(|name| names(Some(&name))).unwrap_or_default();
        if !sites.is_empty() {
            return Ok(sites);
        }
        let granted: Vec<_> =
            self.groups().filter(|admits| admits.admits_key(identity.key.as_ref())).collect();
        let sites = self.choose(&granted, sni);
        let sites = if sites.is_empty() { names(None) } else { sites };
        if sites.is_empty() {
            return Err(forbidden("anything without a name of its choice".to_owned()));
        }
        Ok(sites)
    }

    /// Whether there are dynamic names, and this could be one.
    fn speaks_of(&self, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.is_fit(name))
    }

    /// The dynamic name that a host spells, unless a route has that host.
    fn name_at(&self, host: &str) -> Option<String> {
        let theirs = self.table.at(host).any(|target| *target == Target::Names);
        self.names.as_ref().filter(|_| theirs)?.label(host)
    }

    /// Of several routes those that visitors of that host come to, if it is one of theirs; else all.
    fn choose(&self, granted: &[&Arc<Admits>], host: Option<&str>) -> Vec<RouteId> {
        let at: Vec<_> = host.into_iter().flat_map(|host| self.table.at(host)).collect();
        let has = |admits: &&&Arc<Admits>| {
            at.iter().any(|it| matches!(it, Target::Route(n) if admits.indices.contains(n)))
        };
        let fitting: Vec<_> = granted.iter().filter(has).collect();
        let chosen = if fitting.is_empty() { granted.iter().collect() } else { fitting };
        chosen.into_iter().flat_map(|admits| self.sites(admits)).collect()
    }

    /// Door B: what a backend may serve that shows `claim`, of what it asks for, of that the `path` alone if it names
    /// one; and who it is, unless the gateway is open. May ask an authorizer outside, under its deadline. Cancel safe.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn register(
        &self,
        claim: &Claim<'_>,
        wish: &Wish,
        path: Option<&str>,
    ) -> Result<(Option<Mark>, Vec<Grant>), Refused> {
        let mut desk = Desk::new(claim);
        let mut grants = Vec::new();
        match wish {
            Wish::Name(name) => grants = desk.name(self, name).await?,
            Wish::Any => grants = desk.anything(self).await?,
            Wish::Hosts(hosts) => {
                // Every one of them (draft-kazuho-ptth-ptth-01), or nothing.
                for host in hosts {
                    grants.extend(desk.host(self, host).await?);
                }
            }
        }
        let mut seen = HashSet::new();
        grants.retain(|grant| seen.insert(grant.route().clone()));
        Ok((desk.who(), at_path(grants, path, Grant::route)?))
    }

    /// The configured routes, each once, with whom they admit.
    fn groups(&self) -> impl Iterator<Item = &Arc<Admits>> {
        let firsts = self.admits.iter().enumerate();
        firsts.filter(|(index, admits)| admits.indices.start == *index).map(|(_, admits)| admits)
    }

    /// All that a configured route serves.
    fn sites(&self, admits: &Admits) -> Vec<RouteId> {
        let routes = self.routes.get(admits.indices.clone()).unwrap_or_default();
        routes.iter().map(|route| route.site.clone()).collect()
    }

    /// The configured route of a site, or of the pattern that a single host belongs to.
    fn index(&self, site: &RouteId) -> Option<usize> {
        self.indices.get(site).copied().or_else(|| self.wider(site))
    }

    fn route(&self, site: &RouteId) -> Option<Arc<Route>> {
        match (site, self.indices.get(site)) {
            (RouteId::Name(name), _) => self.names.as_ref()?.get(name),
            (_, Some(index)) => self.routes.get(*index).cloned(),
            (_, None) => self.narrow.get(site),
        }
    }

    fn site(&self, site: &RouteId) -> Option<Arc<Route>> {
        match site {
            RouteId::Name(name) => Some(self.names.as_ref()?.make(name)),
            RouteId::Host(..) => self.route(site).or_else(|| self.make_narrow(site)),
        }
    }
}

/// The port that a URL leaves out.
pub const HTTPS: u16 = 443;
/// The same without TLS.
pub const HTTP: u16 = 80;
