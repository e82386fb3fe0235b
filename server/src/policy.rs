//! The configuration as it is applied: which route a request takes, and what a backend may serve.
//!
//! Made whole from a checked [`Config`] and exchanged whole; what outlives an exchange (pools, live
//! dynamic names) is handed from one to the next, by name.
//!
//! Invariant: no visitor can reach this with anything but a host and a path.

mod desk;
mod names;
mod route;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::uri::Authority;
use ptth_link::token::PublicKey;

use crate::auth::{Claim, Credential, Identity, Key, Known, Mark};
use crate::config::{Config, NameGrant, NoBackend, Route as Settings, WhenTaken};
use crate::live::Tunnel;
use crate::pool::{Patience, Pool};
use crate::router::{HostPattern, Table, is_label};
use crate::site::Site;

use desk::Desk;
use names::Names;

pub use route::Route;

/// Where a request goes.
#[derive(Debug)]
pub struct Found {
    /// The site.
    pub route: Arc<Route>,
    /// How many bytes of the path are the prefix to strip.
    pub strip: usize,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// No route for this host and path.
    Unrouted,
    /// A dynamic name that nobody serves.
    Nobody(NoBackend),
}

/// Why a backend isn't let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Nothing that it showed is known; and the schemes that might be (RFC 9110 §11.6.1).
    Unknown {
        /// For WWW-Authenticate.
        challenges: Vec<&'static str>,
        /// For the gateway's log alone.
        why: String,
    },
    /// It is known, and this isn't its to serve.
    Forbidden(String),
    /// Whoever decides about it can't be asked.
    Unavailable,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { why, .. } => write!(f, "not admitted: {why}"),
            Self::Forbidden(what) => write!(f, "not allowed to serve {what}"),
            Self::Unavailable => f.write_str("the authorizer can't be asked"),
        }
    }
}

/// What a backend asks to serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Whatever its credential is good for.
    Any,
    /// Exactly these hosts.
    Hosts(Vec<String>),
    /// A dynamic name.
    Name(String),
}

/// The table in force.
pub struct Policy {
    table: Table<Target>,
    routes: Vec<Arc<Route>>,
    /// Whom each of `routes` admits.
    admits: Vec<Admits>,
    names: Option<Names>,
}

/// What the table leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target {
    /// The route at that place.
    Route(usize),
    /// Whoever has the dynamic name.
    Names,
}

/// Whom a route admits.
struct Admits {
    /// Its hosts, as text.
    names: Vec<String>,
    /// `None`: whom the gateway as a whole admits.
    credentials: Option<Vec<Arc<dyn Credential>>>,
    known: Arc<Known>,
}

impl Admits {
    /// Whether a backend that TLS knows, or that passed before, may serve this.
    fn keeps(&self, identity: &Identity) -> bool {
        match &self.credentials {
            Some(credentials) => credentials.iter().any(|it| lets_in(it, identity)),
            None => self.known.admits_generally(identity.key.as_ref()),
        }
    }
}

/// Whether this is what a backend came in by: its proven key, or a secret that it showed.
fn lets_in(credential: &Arc<dyn Credential>, identity: &Identity) -> bool {
    let by_key = match identity.key {
        Some(Key::Ed25519(key)) => credential.keys().contains(&key),
        _ => false,
    };
    by_key || identity.marks.iter().any(|mark| credential.keeps(*mark))
}

fn forbidden(what: String) -> Refused {
    Refused::Forbidden(what)
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Policy {
    /// What `config` says, for a gateway of so many shards; `known` are the keys that TLS lets in. Pools
    /// and live names of the policy `before` go on.
    pub fn new(config: &Config, known: &Arc<Known>, shards: usize, before: Option<&Self>) -> Self {
        let mut routes = Vec::new();
        let mut admits = Vec::new();
        let mut table = Table::default();
        let unnamed = (config.routes.is_empty() && config.names.is_none())
            .then(|| Settings::new("", vec![HostPattern::Any]));
        for settings in config.routes.iter().chain(&unnamed) {
            for host in &settings.hosts {
                // The configuration was checked for twins; the first would stay.
                let _ = table.insert(host, &settings.path, Target::Route(routes.len()));
            }
            let mut route = Route::of(settings, Pool::new(shards));
            // What waits there waits for these addresses. If they are others now, nobody inherits it.
            let same = before.and_then(|before| before.route(&route.site));
            if let Some(same) = same.filter(|same| same.addresses == route.addresses) {
                route.pool = same.pool.clone();
            }
            if settings.allow.is_none() && known.is_open() {
                // Whoever comes may serve it, so one at a time.
                route.when_taken = WhenTaken::Reject;
            }
            if unnamed.is_some() {
                route.patience = Patience::default();
            }
            routes.push(Arc::new(route));
            admits.push(Admits {
                names: settings.hosts.iter().map(HostPattern::to_string).collect(),
                credentials: settings.allow.clone(),
                known: known.clone(),
            });
        }
        let live = before.and_then(|before| before.names.as_ref());
        let names = config.names.clone().map(|names| Names::new(names, shards, live));
        if let Some(names) = &names {
            // Its domain is theirs as if a route had it as a wildcard. A twin among the routes comes first.
            let hosts = HostPattern::Under(names.domain().into());
            let _ = table.insert(&hosts, "/", Target::Names);
        }
        Self { table, routes, admits, names }
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
        let routes = self.admits.iter().filter_map(|admits| admits.credentials.as_ref()).flatten();
        routes.chain(self.name_grants().iter().map(|grant| &grant.credential)).collect()
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
            (Target::Route(place), _) => {
                let route = self.routes.get(place).ok_or(Lost::Unrouted)?.clone();
                let strip = if route.strip { found.prefix } else { 0 };
                Ok(Found { route, strip })
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
    pub fn live(&self, sites: &[Site]) -> Vec<Arc<Route>> {
        sites.iter().filter_map(|site| self.route(site)).collect()
    }

    /// Whether anybody serves the site.
    pub fn has_backend(&self, site: &Site) -> bool {
        self.route(site).is_some_and(|route| !route.pool.is_empty())
    }

    /// Sends away those requests that wait for what `after` has no more, or has for other addresses.
    pub fn close(&self, after: &Self) {
        let kept = |pool| after.routes.iter().any(|route| Arc::ptr_eq(&route.pool, pool));
        let gone = self.routes.iter().filter(|route| !kept(&route.pool));
        gone.for_each(|route| route.pool.close());
        if let Some(names) = &self.names {
            names.close(after.names.as_ref());
        }
    }

    /// The public addresses of these sites, as URLs with that port. `called`: what the backend calls this
    /// gateway, which stands for every host.
    pub fn urls(&self, sites: &[Site], called: Option<&Authority>, port: u16) -> Vec<String> {
        let port = if port == HTTPS { String::new() } else { format!(":{port}") };
        let routes = sites.iter().filter_map(|site| self.shown(site));
        let addresses: Vec<_> = routes.flat_map(|route| route.addresses.clone()).collect();
        let urls = addresses.iter().filter_map(|address| {
            let (host, path) = address.split_once('/')?;
            let host = if host == "*" { called?.host() } else { host };
            Some(format!("https://{host}{port}/{path}"))
        });
        urls.collect()
    }

    /// The sites that a tunnel, admitted under whatever policy, may serve under this one.
    pub fn judge(&self, tunnel: &Tunnel) -> Vec<Arc<Route>> {
        let kept = tunnel.sites.iter().filter(|site| self.keeps(site, &tunnel.identity));
        kept.filter_map(|site| self.site(site)).collect()
    }

    /// Door A: what a backend may serve whose key TLS has proven.
    ///
    /// # Errors
    /// [`Refused::Forbidden`]: its key is good for something, but not for what it asks.
    pub fn admit(&self, identity: &Identity) -> Result<Vec<Site>, Refused> {
        let passes = |n: usize| self.admits.get(n).is_some_and(|admits| admits.keeps(identity));
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
        let granted: Vec<_> = (0..self.routes.len()).filter(|n| passes(*n)).collect();
        let sites = self.narrow(&granted, sni);
        let sites = if sites.is_empty() { names(None) } else { sites };
        if sites.is_empty() {
            return Err(forbidden("anything without a name of its choice".to_owned()));
        }
        Ok(sites)
    }

    /// Whether there are dynamic names, and this could be one.
    fn speaks_of(&self, name: &str) -> bool {
        self.names.is_some() && is_label(name)
    }

    /// The dynamic name that a host spells, unless a route has that host.
    fn name_at(&self, host: &str) -> Option<String> {
        let theirs = self.table.at(host).any(|target| *target == Target::Names);
        self.names.as_ref().filter(|_| theirs)?.label(host)
    }

    /// Of several routes those that visitors of that host come to, if it is one of theirs; else all.
    fn narrow(&self, granted: &[usize], host: Option<&str>) -> Vec<Site> {
        let at: Vec<_> = host.into_iter().flat_map(|host| self.table.at(host)).collect();
        let has = |n: &&usize| at.contains(&&Target::Route(**n));
        let fitting: Vec<_> = granted.iter().filter(has).collect();
        let chosen = if fitting.is_empty() { granted.iter().collect() } else { fitting };
        let sites = chosen.into_iter().filter_map(|n| self.routes.get(*n));
        sites.map(|route| route.site.clone()).collect()
    }

    /// Door B: what a backend may serve that shows `claim`, of what it asks for; and the digest of the
    /// secret by which. May ask an authorizer outside, under its deadline. Cancel safe.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn register(
        &self,
        claim: &Claim<'_>,
        wish: &Wish,
    ) -> Result<(Vec<Mark>, Vec<Site>), Refused> {
        let mut desk = Desk::new(claim);
        let mut sites = Vec::new();
        match wish {
            Wish::Name(name) => sites = desk.name(self, name).await?,
            Wish::Any => sites = desk.anything(self).await?,
            Wish::Hosts(hosts) => {
                // Every one of them (draft-kazuho-ptth-ptth-01), or nothing.
                for host in hosts {
                    sites.extend(desk.host(self, host).await?);
                }
            }
        }
        let mut seen = HashSet::new();
        sites.retain(|site| seen.insert(site.clone()));
        Ok((desk.marks(), sites))
    }

    fn route(&self, site: &Site) -> Option<Arc<Route>> {
        match site {
            Site::Route(_) => self.routes.iter().find(|route| route.site == *site).cloned(),
            Site::Name(name) => self.names.as_ref()?.get(name),
        }
    }

    /// The site, also where it is a name that nobody serves yet.
    fn shown(&self, site: &Site) -> Option<Arc<Route>> {
        self.route(site).or_else(|| match site {
            Site::Name(name) => Some(self.names.as_ref()?.route(name)),
            Site::Route(_) => None,
        })
    }

    fn site(&self, site: &Site) -> Option<Arc<Route>> {
        match site {
            Site::Route(_) => self.route(site),
            Site::Name(name) => Some(self.names.as_ref()?.make(name)),
        }
    }

    fn keeps(&self, site: &Site, identity: &Identity) -> bool {
        match site {
            Site::Route(_) => {
                let place = self.routes.iter().position(|route| route.site == *site);
                let admits = place.and_then(|n| self.admits.get(n));
                admits.is_some_and(|admits| admits.keeps(identity))
            }
            Site::Name(name) => {
                self.names.as_ref().is_some_and(|names| names.keeps(name, identity))
            }
        }
    }
}

/// The port that a URL leaves out.
pub const HTTPS: u16 = 443;
