//! Everybody who is in: the live tunnels, and the policy by which they are.
//!
//! Invariant: a tunnel stands in the pools of exactly those sites that the policy in force grants it,
//! whichever of the two came last; so joining and the policy's exchange exclude each other.

mod replaced;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use log::{info, warn};
use ptth_link::goaway::{REPLACED, WITHDRAWN};
use tokio::sync::Notify;

use crate::auth::Identity;
use crate::config::WhenTaken;
use crate::live::Tunnel;
use crate::policy::{Policy, Route};
use crate::pool::Pool;
use crate::site::Site;

use replaced::Replaced;

/// The tunnels of the whole gateway.
#[derive(Debug)]
pub struct Roster {
    policy: RwLock<Arc<Policy>>,
    members: Mutex<Members>,
    changed: Notify,
    /// Tunnels of each shard, from the end of their TLS handshake on.
    booked: Mutex<Vec<usize>>,
}

#[derive(Debug, Default)]
struct Members {
    present: Vec<Member>,
    replaced: Replaced,
}

/// A tunnel, and where it stands.
#[derive(Debug)]
struct Member {
    tunnel: Arc<Tunnel>,
    pools: Vec<Arc<Pool>>,
}

impl Member {
    /// Has it stand in the pools of `routes` and in no others.
    fn stand(&mut self, routes: &[Arc<Route>]) {
        let stays = |pool: &Arc<Pool>| routes.iter().any(|route| Arc::ptr_eq(&route.pool, pool));
        for pool in self.pools.iter().filter(|pool| !stays(pool)) {
            pool.remove(self.tunnel.id);
        }
        self.pools = routes.iter().map(|route| route.pool.clone()).collect();
        self.pools.iter().for_each(|pool| pool.add(&self.tunnel));
    }
}

impl Roster {
    /// Nobody yet, on that many shards.
    pub fn new(policy: Policy, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            policy: RwLock::new(Arc::new(policy)),
            members: Mutex::default(),
            changed: Notify::new(),
            booked: Mutex::new(vec![0; shards]),
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
        self.lock().present.iter().map(|member| member.tunnel.clone()).collect()
    }

    /// The tunnels that would keep one of these sites from a backend, if they answer.
    pub fn keepers(&self, identity: &Identity, sites: &[Site]) -> Vec<Arc<Tunnel>> {
        let mut members = self.lock();
        let routes = self.policy().live(sites);
        routes.iter().flat_map(|route| members.replaced.keepers(route, identity)).collect()
    }

    /// Lets a tunnel take requests for its sites. One of the same credential and name is replaced at
    /// once, and told: after a network change nobody waits for the dead one to be found dead.
    ///
    /// # Errors
    /// [`Turned`]: what was true when it was admitted no longer is.
    pub fn enroll(self: &Arc<Self>, tunnel: &Arc<Tunnel>) -> Result<Registration, Turned> {
        let mut members = self.lock();
        let routes = self.policy().judge(tunnel);
        if routes.is_empty() {
            return Err(Turned::Withdrawn);
        }
        let Members { present, replaced } = &mut *members;
        if routes.iter().any(|route| !replaced.keepers(route, &tunnel.identity).is_empty()) {
            return Err(Turned::Taken);
        }
        for route in &routes {
            replaced.forget(&route.site, &tunnel.identity);
            for other in present.iter_mut() {
                make_way(route, tunnel, other, replaced);
            }
        }
        let mut member = Member { tunnel: tunnel.clone(), pools: Vec::new() };
        member.stand(&routes);
        present.push(member);
        self.changed.notify_waiters();
        Ok(Registration { roster: self.clone(), tunnel: tunnel.clone() })
    }

    /// Puts another policy in force. Tunnels that it grants something live on; the others finish what
    /// they do, and are told why. Requests that wait go on to wait, unless what they wait for is no more.
    pub fn swap(&self, policy: Policy) {
        let mut members = self.lock();
        let policy = Arc::new(policy);
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
    /// one of them.
    pub fn emptiest_shard(self: &Arc<Self>, near: usize) -> Booking {
        let mut booked = self.booked.lock().unwrap_or_else(PoisonError::into_inner);
        let fewest = booked.iter().enumerate().min_by_key(|(n, count)| (**count, *n != near));
        let shard = fewest.map_or(near, |(n, _)| n);
        if let Some(count) = booked.get_mut(shard) {
            *count += 1;
        }
        Booking { roster: self.clone(), shard }
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
    /// A new policy grants it nothing.
    Withdrawn,
}

fn sort(members: &mut Members, policy: &Policy) {
    for member in &mut members.present {
        let granted = policy.judge(&member.tunnel);
        member.stand(&granted);
        let tunnel = &member.tunnel;
        if granted.is_empty() && !tunnel.is_draining() {
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
            WhenTaken::Replace => self.has(&route.site, identity),
        };
        let rivals = if bars { route.pool.rivals(identity) } else { Vec::new() };
        if !rivals.is_empty() && route.when_taken == WhenTaken::Replace {
            self.note(&route.site, identity);
        }
        rivals
    }
}

/// Sends `other` away from a route if `tunnel` takes its place there.
fn make_way(route: &Route, tunnel: &Tunnel, other: &mut Member, replaced: &mut Replaced) {
    let it = other.tunnel.clone();
    let place = other.pools.iter().position(|pool| Arc::ptr_eq(pool, &route.pool));
    let Some(place) = place.filter(|_| !it.is_draining()) else { return };
    if it.identity.is_same_tunnel(&tunnel.identity) {
        info!("tunnel: {} replaced by {}", it.id, tunnel.id);
        it.drain();
    } else if route.when_taken == WhenTaken::Replace
        && !it.identity.is_same_backend(&tunnel.identity)
    {
        info!("tunnel: {} replaced by {}, of another backend, {}", it.id, tunnel.id, route.site);
        replaced.note(&route.site, &it.identity);
        it.lose(&route.site);
        other.pools.swap_remove(place).remove(it.id);
        if other.pools.is_empty() {
            it.dismiss(REPLACED, "another backend took this name over");
        }
    }
}

/// Proof that a tunnel takes requests. Dropping it takes the tunnel out of all pools.
#[must_use = "dropping the registration removes the tunnel at once"]
#[derive(Debug)]
pub struct Registration {
    roster: Arc<Roster>,
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
        let mut members = self.roster.lock();
        self.roster.changed.notify_waiters();
        let place = members.present.iter().position(|it| it.tunnel.id == self.tunnel.id);
        if let Some(place) = place {
            members.present.remove(place).stand(&[]);
        }
        let policy = self.roster.policy();
        for member in &mut members.present {
            // What nobody has any more falls back to the first of those who had to leave it.
            if member.tunnel.regain(|site| !policy.has_backend(site)) {
                member.stand(&policy.judge(&member.tunnel));
            }
        }
        policy.tidy();
    }
}

/// A tunnel's place on a shard. Dropping it frees the place.
#[derive(Debug)]
pub struct Booking {
    roster: Arc<Roster>,
    /// The shard.
    pub shard: usize,
}

impl Drop for Booking {
    fn drop(&mut self) {
        let mut booked = self.roster.booked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = booked.get_mut(self.shard) {
            *count = count.saturating_sub(1);
        }
    }
}
