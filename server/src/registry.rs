//! Everybody who is in: the live tunnels, and the policy by which they are.
//!
//! Invariant: a tunnel stands in the pools of exactly those routes that the policy in force grants it,
//! whichever of the two came last; so joining and the policy's exchange exclude each other.

mod replaced;
mod succession;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use log::{info, warn};
use ptth_link::h2::goaway::{REPLACED, WITHDRAWN};
use tokio::sync::Notify;

use crate::config::WhenTaken;
use crate::fallback::Fallbacks;
use crate::identity::{Grant, Identity};
use crate::live::{Tunnel, TunnelId};
use crate::policy::{Policy, Route};
use crate::quota::{Gauge, Permit};
use crate::router::RouteId;

use replaced::Replaced;
use succession::Succession;

/// The tunnels of the whole gateway.
#[derive(Debug)]
pub struct Registry {
    policy: RwLock<Arc<Policy>>,
    members: Mutex<Members>,
    changed: Notify,
    /// Tunnels that one credential may have on one route.
    most: usize,
    succession: Succession,
    /// The origins in the place of backends that are away.
    pub(crate) fallbacks: Fallbacks,
    /// Tunnels of each shard, from the end of their TLS handshake on.
    booked: Mutex<Vec<Gauge>>,
}

/// Joining and leaving look only at the tunnel's own routes and process, never at all members.
#[derive(Debug, Default)]
struct Members {
    present: BTreeMap<TunnelId, Member>,
    /// The tunnels that had to leave a route to another backend; the first has it again when nobody else does.
    losers: HashMap<RouteId, BTreeSet<TunnelId>>,
    replaced: Replaced,
    /// Tunnels that another one of the same process replaced, as long as they last.
    leaving: Vec<Weak<Tunnel>>,
}

/// A tunnel, and where it stands.
#[derive(Debug)]
struct Member {
    tunnel: Arc<Tunnel>,
    routes: ByPool,
    /// Those of its routes that another backend took from it.
    lost: HashSet<RouteId>,
}

/// Routes by the addresses of their pools in memory, to be found among thousands.
type ByPool = HashMap<usize, Arc<Route>>;

fn key(route: &Route) -> usize {
    Arc::as_ptr(&route.pool) as usize
}

fn by_pool(routes: Vec<Arc<Route>>) -> ByPool {
    routes.into_iter().map(|route| (key(&route), route)).collect()
}

impl Member {
    /// Has it stand in the pools of `routes` and in no others.
    fn stand(&mut self, routes: Vec<Arc<Route>>) {
        let before = std::mem::replace(&mut self.routes, by_pool(routes));
        let left = before.iter().filter(|(key, _)| !self.routes.contains_key(key));
        left.for_each(|(_, route)| route.pool.remove(self.tunnel.id));
        self.routes.values().for_each(|route| route.pool.add(&self.tunnel));
    }

    /// Has it leave where `policy` lets it stand no longer.
    fn shrink(&mut self, policy: &Policy) {
        let mut granted = policy.judge(&self.tunnel);
        granted.retain(|route| self.routes.contains_key(&key(route)));
        self.stand(granted);
    }

    /// Has it stand where `policy` lets it, but for what it lost.
    fn sort(&mut self, policy: &Policy) {
        let mut granted = policy.judge(&self.tunnel);
        granted.retain(|route| !self.lost.contains(&route.id));
        self.stand(granted);
    }
}

impl Members {
    /// Has every tunnel leave a route whose place `tunnel` takes there.
    fn make_way(&mut self, route: &Route, tunnel: &Tunnel) {
        self.replaced.forget(&route.id, &tunnel.identity);
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
                self.present
                    .get_mut(&it.id)
                    .into_iter()
                    .for_each(|member| member.stand(Vec::new()));
            } else if replaces && !it.identity.is_same_backend(&tunnel.identity) {
                let (old, new, id) = (it.id, tunnel.id, &route.id);
                info!("tunnel: {old} replaced by {new}, of another backend, {id}");
                self.lose(route, &it);
            }
        }
    }

    /// Takes a route from a tunnel.
    fn lose(&mut self, route: &Route, tunnel: &Tunnel) {
        self.replaced.note(&route.id, &tunnel.identity);
        let Some(member) = self.present.get_mut(&tunnel.id) else { return };
        member.lost.insert(route.id.clone());
        self.losers.entry(route.id.clone()).or_default().insert(tunnel.id);
        member.routes.remove(&key(route));
        route.pool.remove(tunnel.id);
        if member.routes.is_empty() {
            tunnel.dismiss(REPLACED, "another backend took this name over");
        }
    }

    /// Takes a tunnel out. What nobody serves then falls back to the first that had to leave it.
    fn leave(&mut self, id: TunnelId, policy: &Policy) {
        let Some(mut member) = self.present.remove(&id) else { return };
        let served = std::mem::take(&mut member.routes);
        served.values().for_each(|route| route.pool.remove(id));
        for route in &member.lost {
            if let Some(losers) = self.losers.get_mut(route) {
                losers.remove(&id);
            }
        }
        let left: Vec<_> = served.values().map(|route| &route.id).collect();
        let left = || left.iter().copied().chain(member.tunnel.grants.iter().map(Grant::route));
        let mut heirs = BTreeSet::new();
        for id in left() {
            let free = !policy.has_backend(id);
            let first = self.losers.get_mut(id).filter(|_| free).and_then(BTreeSet::pop_first);
            if self.losers.get(id).is_some_and(BTreeSet::is_empty) {
                self.losers.remove(id);
            }
            if let Some(heir) = first.and_then(|first| self.present.get_mut(&first)) {
                heir.lost.remove(id);
                heirs.insert(heir.tunnel.id);
            }
        }
        // Each once, however many routes it has again.
        for heir in heirs {
            self.present.get_mut(&heir).into_iter().for_each(|heir| heir.sort(policy));
        }
        left().for_each(|id| policy.forget(id));
    }

    /// Whether a credential has all the tunnels on one of the routes that it may have, but for those that `tunnel`
    /// replaces; or as many that were replaced and still carry something.
    fn is_full(&mut self, routes: &[Arc<Route>], identity: &Identity, most: usize) -> bool {
        self.leaving.retain(|it| it.upgrade().is_some_and(|it| it.in_flight() > 0));
        let leaving = self.leaving.iter().filter_map(Weak::upgrade);
        if leaving.filter(|it| it.identity.key == identity.key).count() >= most {
            return true;
        }
        routes.iter().any(|route| {
            let siblings = || route.pool.siblings(identity);
            let held = match route.when_taken {
                WhenTaken::Balance => route.pool.held_by(identity),
                // All others go, or none comes.
                WhenTaken::Replace | WhenTaken::Reject => siblings().len(),
            };
            held >= most && !siblings().iter().any(|it| it.identity.is_same_tunnel(identity))
        })
    }
}

impl Registry {
    /// Nobody yet, on that many shards; a credential may have `most` tunnels on one route.
    pub fn new(policy: Policy, shards: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            policy: RwLock::new(Arc::new(policy)),
            members: Mutex::default(),
            changed: Notify::new(),
            most,
            succession: Succession::default(),
            fallbacks: Fallbacks::new(shards),
            booked: Mutex::new((0..shards).map(|_| Gauge::default()).collect()),
        })
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `holds` of the tunnels. Cancel safe.
    pub async fn until(&self, holds: impl Fn(&[Arc<Tunnel>]) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds(&self.all()) {
                return;
            }
            changed.await;
        }
    }

    /// Every tunnel, draining ones included.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.lock().present.values().map(|member| member.tunnel.clone()).collect()
    }

    /// The tunnels that would keep one of these routes from a backend, if they answer.
    pub fn keepers(&self, identity: &Identity, grants: &[Grant]) -> Vec<Arc<Tunnel>> {
        let mut members = self.lock();
        let routes = self.policy().granted(grants);
        routes.iter().flat_map(|route| members.replaced.keepers(route, identity)).collect()
    }

    /// Whether a backend has all the tunnels on one of these routes that its credential may have.
    pub fn is_full(&self, identity: &Identity, grants: &[Grant]) -> bool {
        let mut members = self.lock();
        let routes = self.policy().granted(grants);
        members.is_full(&routes, identity, self.most)
    }

    /// Lets a tunnel take requests for its routes. One of the same credential and name is replaced at
    /// once, and told: after a network change nobody waits for the dead one to be found dead.
    ///
    /// # Errors
    /// [`Turned`]: what was true when it was admitted no longer is.
    pub fn enroll(self: &Arc<Self>, tunnel: &Arc<Tunnel>) -> Result<Registration, Turned> {
        let mut members = self.lock();
        let policy = self.policy();
        let joined = self.join(&mut members, tunnel, policy.judge(tunnel));
        if joined.is_err() {
            // What began to exist for it.
            tunnel.grants.iter().for_each(|grant| policy.forget(grant.route()));
        }
        joined
    }

    fn join(
        self: &Arc<Self>,
        members: &mut Members,
        tunnel: &Arc<Tunnel>,
        routes: Vec<Arc<Route>>,
    ) -> Result<Registration, Turned> {
        if routes.is_empty() {
            return Err(Turned::Withdrawn);
        }
        let identity = &tunnel.identity;
        if routes.iter().any(|route| !members.replaced.keepers(route, identity).is_empty()) {
            return Err(Turned::Taken);
        }
        if members.is_full(&routes, identity, self.most) {
            return Err(Turned::Full);
        }
        routes.iter().for_each(|route| members.make_way(route, tunnel));
        let (routes_of, lost) = (ByPool::new(), HashSet::new());
        let mut member = Member { tunnel: tunnel.clone(), routes: routes_of, lost };
        member.stand(routes);
        members.present.insert(tunnel.id, member);
        self.changed.notify_waiters();
        Ok(Registration { registry: self.clone(), tunnel: tunnel.clone() })
    }

    /// Puts another policy in force. Tunnels that it grants something live on; the others finish what
    /// they do, and are told why. Requests that wait go on to wait, unless what they wait for is no more.
    pub fn swap(&self, policy: Policy) {
        let mut members = self.lock();
        let policy = Arc::new(policy);
        // Before any request goes by the policy: none is to meet who isn't in it.
        members.present.values_mut().for_each(|member| member.shrink(&policy));
        let mut current = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, policy.clone());
        drop(current);
        old.close(&policy);
        sort(&mut members, &policy);
    }

    /// Judges every tunnel again: the keys that the policy goes by have changed.
    pub fn judge(&self) {
        sort(&mut self.lock(), &self.policy());
    }

    /// The shard that drives the fewest tunnels, those on their way there included; `near` if it is
    /// one of them. And the permit that has the tunnel count there.
    pub fn emptiest_shard(&self, near: usize) -> (usize, Option<Permit>) {
        let booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let fewest = booked.iter().enumerate().min_by_key(|(n, count)| (count.held(), *n != near));
        fewest.map_or((near, None), |(shard, count)| (shard, Some(count.permit())))
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a tunnel that was admitted can't join after all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turned {
    /// Another backend came first, and keeps its place.
    Taken,
    /// Its credential has all the tunnels that it may have.
    Full,
    /// A new policy grants it nothing.
    Withdrawn,
}

fn sort(members: &mut Members, policy: &Policy) {
    for member in members.present.values_mut() {
        member.sort(policy);
        let tunnel = &member.tunnel;
        if member.routes.is_empty() && !tunnel.is_draining() {
            warn!("tunnel: {} drained: its credential was withdrawn", tunnel.id);
            tunnel.dismiss(WITHDRAWN, "the credential was withdrawn, or its names were");
        }
    }
    policy.tidy();
}

impl Replaced {
    /// The tunnels of others that keep a route from a backend, if they answer.
    fn keepers(&mut self, route: &Route, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let bars = match route.when_taken {
            WhenTaken::Balance => false,
            WhenTaken::Reject => true,
            WhenTaken::Replace => self.has(&route.id, identity),
        };
        let mut rivals = if bars { route.pool.rivals(identity) } else { Vec::new() };
        if let (WhenTaken::Reject, Some(wide)) = (route.when_taken, &route.wide) {
            rivals.extend(wide.rivals(identity));
        }
        if !rivals.is_empty() && route.when_taken == WhenTaken::Replace {
            self.note(&route.id, identity);
        }
        rivals
    }
}

/// Proof that a tunnel takes requests. Dropping it takes the tunnel out of all pools.
#[must_use = "dropping the registration removes the tunnel at once"]
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    tunnel: Arc<Tunnel>,
}

impl Registration {
    /// Wakes those who wait for room: the backend allows more streams than before.
    pub fn note_room(&self) {
        self.tunnel.note_room();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().leave(self.tunnel.id, &self.registry.policy());
        self.registry.changed.notify_waiters();
    }
}
