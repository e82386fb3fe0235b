//! The live tunnels, and the policy in force.
//!
//! Invariant: a tunnel is in the pools of exactly those routes that the policy in force grants it,
//! whichever of the two came last; so joining and the policy's exchange exclude each other.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use log::{info, warn};
use ptth_link::h2::goaway::Why;
use ptth_link::lock::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::config::WhenTaken;
use crate::fallback::Fallbacks;
use crate::identity::{Grant, Identity, Key};
use crate::live::{Tunnel, TunnelId};
use crate::policy::{Policy, Route};
use crate::quota::{Gauge, Permit, Recent};
use crate::router::RouteId;

#[derive(Debug)]
pub struct Registry {
    policy: RwLock<Arc<Policy>>,
    members: Mutex<Members>,
    /// Told when a tunnel comes or goes, or serves other routes.
    changed: Notify,
    /// Tunnels that one credential may have on one route.
    most: usize,
    /// If this process took over from another one, the end of the time in which its backends are expected.
    expected: OnceLock<Instant>,
    /// The origins in the place of backends that are away.
    pub(crate) fallbacks: Fallbacks,
    /// Tunnels of each shard, from the end of their TLS handshake on.
    booked: Mutex<Vec<Gauge>>,
}

/// Joining and leaving look only at the tunnel's own routes and process, never at all members.
#[derive(Debug, Default)]
struct Members {
    present: BTreeMap<TunnelId, Member>,
    /// The tunnels that lost a route to another backend; the first has it again when no other backend does.
    losers: Losers,
    /// Backends that another one replaced, and that may not take the route back at once. Our own client ends when it is
    /// told so; another program dials again, and would replace the backend that replaced it, and so on for ever.
    replaced: Recent<Replaced, MOST_REPLACED, MEMORY>,
    /// Tunnels that another one of the same process replaced, as long as they last.
    leaving: Vec<Weak<Tunnel>>,
}

/// A tunnel, and exactly those routes whose pools it is in.
#[derive(Debug)]
struct Member {
    tunnel: Arc<Tunnel>,
    /// By the addresses of their pools in memory, to be found among thousands.
    routes: HashMap<usize, Arc<Route>>,
}

/// A route, and the backend that lost it: with an empty instance, known by its key alone.
type Replaced = (RouteId, Option<Key>, String);

fn replaced(route: &Route, who: &Identity) -> Replaced {
    (route.id.clone(), who.key, who.instance.clone())
}

type Losers = HashMap<RouteId, BTreeSet<TunnelId>>;

fn key(route: &Route) -> usize {
    Arc::as_ptr(&route.pool) as usize
}

impl Member {
    /// Puts it into the pools of these routes alone.
    fn set_routes(&mut self, routes: Vec<Arc<Route>>) {
        let routes = routes.into_iter().map(|route| (key(&route), route)).collect();
        let before = std::mem::replace(&mut self.routes, routes);
        let left = before.iter().filter(|(key, _)| !self.routes.contains_key(key));
        left.for_each(|(_, route)| route.pool.remove(&self.tunnel));
        let joined = self.routes.iter().filter(|(key, _)| !before.contains_key(key));
        joined.for_each(|(_, route)| route.pool.add(&self.tunnel));
    }

    /// Puts it where `policy` grants it, of the routes that are to be kept.
    fn sort(&mut self, policy: &Policy, keep: impl Fn(&Self, &Route) -> bool) {
        let mut granted = policy.judge(&self.tunnel);
        granted.retain(|route| keep(self, route));
        self.set_routes(granted);
    }
}

fn has_kept(losers: &Losers) -> impl Fn(&Member, &Route) -> bool {
    |it, route| losers.get(&route.id).is_none_or(|lost| !lost.contains(&it.tunnel.id))
}

impl Members {
    /// Takes out of a route every tunnel that `tunnel` replaces there.
    fn replace(&mut self, route: &Route, tunnel: &Tunnel) {
        self.replaced.forget(&replaced(route, &tunnel.identity));
        let replaces = route.when_taken == WhenTaken::Replace;
        let others =
            if replaces { route.pool.all() } else { route.pool.siblings(&tunnel.identity) };
        for it in others {
            if it.is_draining() {
                continue;
            }
            if it.identity.is_same_tunnel(&tunnel.identity) {
                info!("tunnel: {} replaced by {}", it.id, tunnel.id);
                it.drain();
                self.leaving.push(Arc::downgrade(&it));
                if let Some(member) = self.present.get_mut(&it.id) {
                    member.set_routes(Vec::new());
                }
            } else if replaces && !it.identity.is_same_backend(&tunnel.identity) {
                let (old, new, id) = (it.id, tunnel.id, &route.id);
                info!("tunnel: {old} replaced by {new}, of another backend, {id}");
                self.lose(route, &it);
            }
        }
    }

    fn lose(&mut self, route: &Route, tunnel: &Tunnel) {
        self.replaced.note(replaced(route, &tunnel.identity));
        let Some(member) = self.present.get_mut(&tunnel.id) else { return };
        self.losers.entry(route.id.clone()).or_default().insert(tunnel.id);
        member.routes.remove(&key(route)).iter().for_each(|it| it.pool.remove(tunnel));
        if member.routes.is_empty() {
            tunnel.dismiss(Why::Replaced, "another backend took this name over");
        }
    }

    /// Takes a tunnel out. A route without a tunnel then falls back to the first one that lost it.
    fn leave(&mut self, id: TunnelId, policy: &Policy) {
        let Some(member) = self.present.remove(&id) else { return };
        let served = || member.routes.values();
        served().for_each(|route| route.pool.remove(&member.tunnel));
        let granted = member.tunnel.grants.iter().map(Grant::route);
        let left: HashSet<_> = granted.chain(served().map(|route| &route.id)).collect();
        self.losers.retain(|_, losers| {
            losers.remove(&id);
            !losers.is_empty()
        });
        // Each once, however many routes it has again.
        let mut successors = BTreeSet::new();
        for id in left.iter().filter(|id| !policy.has_backend(id)) {
            successors.extend(self.losers.get_mut(*id).and_then(BTreeSet::pop_first));
        }
        for successor in successors {
            if let Some(successor) = self.present.get_mut(&successor) {
                successor.sort(policy, has_kept(&self.losers));
            }
        }
        left.into_iter().for_each(|id| policy.forget(id));
    }

    /// Puts every tunnel where `policy` grants it, and drains those that it grants nothing.
    fn sort(&mut self, policy: &Policy) {
        for member in self.present.values_mut() {
            member.sort(policy, has_kept(&self.losers));
            let tunnel = &member.tunnel;
            if member.routes.is_empty() && !tunnel.is_draining() {
                warn!("tunnel: {} drained: its credential was withdrawn", tunnel.id);
                tunnel.dismiss(Why::Withdrawn, "the credential was withdrawn, or its names were");
            }
        }
        policy.tidy();
    }

    /// The tunnels of other backends that keep a route from a backend, if they answer.
    fn keepers(&mut self, route: &Route, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let entry = replaced(route, identity);
        let bars = match route.when_taken {
            WhenTaken::Balance => false,
            WhenTaken::Reject => true,
            // A backend without a key can't be recognized.
            WhenTaken::Replace => identity.key.is_some() && self.replaced.has(&entry),
        };
        let mut rivals = if bars { route.pool.rivals(identity) } else { Vec::new() };
        if let (WhenTaken::Reject, Some(wide)) = (route.when_taken, &route.wide) {
            rivals.extend(wide.rivals(identity));
        }
        if !rivals.is_empty() && route.when_taken == WhenTaken::Replace {
            self.replaced.note(entry);
        }
        rivals
    }

    /// Whether a credential has its `most` tunnels on a route, or the route has its own most, but for a tunnel that is replaced; or as many that were
    /// replaced and still carry something.
    fn is_full(&mut self, routes: &[Arc<Route>], identity: &Identity, most: usize) -> bool {
        self.leaving.retain(|it| it.upgrade().is_some_and(|it| it.in_flight() > 0));
        let leaving = self.leaving.iter().filter_map(Weak::upgrade);
        if leaving.filter(|it| it.identity.key == identity.key).count() >= most {
            return true;
        }
        routes.iter().any(|route| {
            let siblings = || route.pool.siblings(identity);
            let (held, all) = match route.when_taken {
                WhenTaken::Balance => (route.pool.held_by(identity), route.pool.len()),
                // All others go, or none comes.
                WhenTaken::Replace | WhenTaken::Reject => (siblings().len(), siblings().len()),
            };
            let full = held >= most || route.max_tunnels.is_some_and(|most| all >= most);
            full && !siblings().iter().any(|it| it.identity.is_same_tunnel(identity))
        })
    }
}

impl Registry {
    /// No tunnel yet, on that many shards; a credential may have `most` tunnels on one route.
    pub fn new(policy: Policy, shards: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            policy: RwLock::new(Arc::new(policy)),
            members: Mutex::default(),
            changed: Notify::new(),
            most,
            expected: OnceLock::new(),
            fallbacks: Fallbacks::new(shards),
            booked: Mutex::new((0..shards).map(|_| Gauge::default()).collect()),
        })
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// Has requests wait for the backends of the process before this one.
    pub fn expect_backends(&self) {
        let _ = self.expected.set(Instant::now() + SUCCESSION);
    }

    /// How long a request waits for a backend of a route, and how many requests may.
    pub(crate) fn hold(&self, route: &Route) -> Option<(Duration, usize)> {
        let left = self.expected.get().map(|until| until.saturating_duration_since(Instant::now()));
        let expecting = left.filter(|left| !left.is_zero()).map(|left| (left, EXPECTING));
        route.hold.map(|hold| (hold.time, hold.requests)).or(expecting)
    }

    /// Waits until a tunnel comes or goes, or serves other routes; made before a look, it misses no change after that.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.members.lock().present.values().map(|member| member.tunnel.clone()).collect()
    }

    pub fn keepers(&self, identity: &Identity, grants: &[Grant]) -> Vec<Arc<Tunnel>> {
        let mut members = self.members.lock();
        let routes = self.policy().granted(grants);
        routes.iter().flat_map(|route| members.keepers(route, identity)).collect()
    }

    pub fn is_full(&self, identity: &Identity, grants: &[Grant]) -> bool {
        let mut members = self.members.lock();
        let routes = self.policy().granted(grants);
        members.is_full(&routes, identity, self.most)
    }

    /// Lets a tunnel take requests for its routes. It replaces the one of the same credential and name at once: after a
    /// network change no request waits until the old one is found dead.
    ///
    /// # Errors
    /// What was true when it was admitted no longer is: [`Why::Withdrawn`], [`Why::Taken`] or [`Why::OverLimit`].
    pub fn enroll(self: &Arc<Self>, tunnel: &Arc<Tunnel>) -> Result<Registration, Why> {
        let (mut members, policy) = (self.members.lock(), self.policy());
        let (routes, identity) = (policy.judge(tunnel), &tunnel.identity);
        let refused = if routes.is_empty() {
            Some(Why::Withdrawn)
        } else if routes.iter().any(|route| !members.keepers(route, identity).is_empty()) {
            Some(Why::Taken)
        } else {
            members.is_full(&routes, identity, self.most).then_some(Why::OverLimit)
        };
        if let Some(why) = refused {
            // Routes that were made for it.
            tunnel.grants.iter().for_each(|grant| policy.forget(grant.route()));
            return Err(why);
        }
        routes.iter().for_each(|route| members.replace(route, tunnel));
        let mut member = Member { tunnel: tunnel.clone(), routes: HashMap::new() };
        member.set_routes(routes);
        members.present.insert(tunnel.id, member);
        self.changed.notify_waiters();
        Ok(Registration { registry: self.clone(), tunnel: tunnel.clone() })
    }

    /// Puts another policy in force. Tunnels that it grants something live on; the others finish what
    /// they do, and are told why. Requests that wait go on to wait, unless their route is no more.
    pub fn swap(&self, policy: Policy) {
        let mut members = self.members.lock();
        let policy = Arc::new(policy);
        // Before any request goes by the policy: none may meet a tunnel that the policy doesn't admit.
        let here = |it: &Member, route: &Route| it.routes.contains_key(&key(route));
        members.present.values_mut().for_each(|member| member.sort(&policy, here));
        let mut current = self.policy.write();
        let old = std::mem::replace(&mut *current, policy.clone());
        drop(current);
        old.close(&policy);
        members.sort(&policy);
        self.changed.notify_waiters();
    }

    /// Judges every tunnel again: the keys that the policy goes by have changed.
    pub fn judge(&self) {
        self.members.lock().sort(&self.policy());
        self.changed.notify_waiters();
    }

    /// The shard that drives the fewest tunnels, `near` if it is one of them; and the permit that has the tunnel count
    /// there.
    pub fn emptiest_shard(&self, near: usize) -> (usize, Option<Permit>) {
        let booked = self.booked.lock();
        let fewest = booked.iter().enumerate().min_by_key(|(n, count)| (count.held(), *n != near));
        fewest.map_or((near, None), |(shard, count)| (shard, Some(count.permit())))
    }
}

/// Proof that a tunnel takes requests. Dropping it takes the tunnel out of all pools.
#[must_use = "dropping the registration removes the tunnel at once"]
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    tunnel: Arc<Tunnel>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.members.lock().leave(self.tunnel.id, &self.registry.policy());
        self.registry.changed.notify_waiters();
    }
}

/// Clients are back within two seconds of a gateway.
const SUCCESSION: Duration = Duration::from_secs(10);
/// Requests that wait for a route's backend then.
const EXPECTING: usize = 1000;
/// Longer than any backend waits before it dials again, in seconds; each attempt begins it anew.
const MEMORY: u64 = 60;
/// Each entry is a backend that was admitted, so filling this needs a credential.
const MOST_REPLACED: usize = 1024;
