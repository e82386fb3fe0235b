//! Everybody who is in: the live tunnels, and the policy by which they are.
//!
//! Invariant: a tunnel stands in the pools of exactly those sites that the policy in force grants it,
//! whichever of the two came last; so joining and the policy's exchange exclude each other.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use log::{info, warn};
use ptth_link::goaway::{REPLACED, WITHDRAWN};
use tokio::sync::Notify;

use crate::config::WhenTaken;
use crate::live::Tunnel;
use crate::policy::{Policy, Route};

/// The tunnels of the whole gateway.
#[derive(Debug)]
pub struct Roster {
    policy: RwLock<Arc<Policy>>,
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    changed: Notify,
    /// Tunnels of each shard, from the end of their TLS handshake on.
    booked: Mutex<Vec<usize>>,
}

impl Roster {
    /// Nobody yet, on that many shards.
    pub fn new(policy: Policy, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            policy: RwLock::new(Arc::new(policy)),
            tunnels: Mutex::default(),
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
        self.lock().clone()
    }

    /// Lets a tunnel take requests for its sites. One of the same credential and name is replaced at
    /// once, and told: after a network change nobody waits for the dead one to be found dead.
    ///
    ///
    /// # Errors
    /// [`Turned`]: what was true when it was admitted no longer is.
    pub fn enroll(self: &Arc<Self>, tunnel: &Arc<Tunnel>) -> Result<Registration, Turned> {
        let mut tunnels = self.lock();
        let routes = self.policy().judge(tunnel);
        if routes.is_empty() {
            return Err(Turned::Withdrawn);
        }
        let kept = |route: &Arc<Route>| {
            route.when_taken == WhenTaken::Reject && !route.pool.rivals(&tunnel.identity).is_empty()
        };
        if routes.iter().any(kept) {
            return Err(Turned::Taken);
        }
        for route in &routes {
            make_way(route, tunnel);
        }
        for route in &routes {
            route.pool.add(tunnel);
        }
        tunnels.push(tunnel.clone());
        self.changed.notify_waiters();
        Ok(Registration { roster: self.clone(), tunnel: tunnel.clone() })
    }

    /// Puts another policy in force. Tunnels that it grants something live on; the others finish what
    /// they do, and are told why.
    pub fn swap(&self, policy: Policy) {
        let tunnels = self.lock();
        let policy = Arc::new(policy);
        let mut current = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, policy.clone());
        drop(current);
        self.sort(&tunnels, &old, &policy);
    }

    /// Judges every tunnel again: the keys that the policy goes by have changed.
    pub fn judge(&self) {
        let tunnels = self.lock();
        let policy = self.policy();
        self.sort(&tunnels, &policy, &policy);
    }

    fn sort(&self, tunnels: &[Arc<Tunnel>], old: &Policy, policy: &Policy) {
        for tunnel in tunnels.iter() {
            let granted = policy.judge(tunnel);
            for route in old.all().into_iter().chain(policy.all()) {
                if !granted.iter().any(|kept| Arc::ptr_eq(&kept.pool, &route.pool)) {
                    route.pool.remove(tunnel.id);
                }
            }
            for route in &granted {
                route.pool.add(tunnel);
            }
            if granted.is_empty() && !tunnel.is_draining() {
                warn!("tunnel: {} drained: its credential was withdrawn", tunnel.id);
                tunnel.dismiss(WITHDRAWN, "the credential was withdrawn, or its names were");
            }
        }
        policy.tidy();
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

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tunnel>>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Sends away whom `tunnel` takes the place of.
fn make_way(route: &Route, tunnel: &Tunnel) {
    for other in route.pool.all() {
        if other.is_draining() {
            continue;
        }
        if other.identity.is_same_tunnel(&tunnel.identity) {
            info!("tunnel: {} replaced by {}", other.id, tunnel.id);
            other.drain();
        } else if route.when_taken == WhenTaken::Replace
            && !other.identity.is_same_backend(&tunnel.identity)
        {
            info!("tunnel: {} replaced by {}, of another backend", other.id, tunnel.id);
            other.dismiss(REPLACED, "another backend took this name over");
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
        for route in self.roster.policy().judge(&self.tunnel) {
            route.pool.note_room();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut tunnels = self.roster.lock();
        tunnels.retain(|tunnel| tunnel.id != self.tunnel.id);
        self.roster.changed.notify_waiters();
        let policy = self.roster.policy();
        for route in policy.all() {
            route.pool.remove(self.tunnel.id);
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
