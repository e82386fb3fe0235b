//! The live tunnels of one route, and which one takes the next request.
//!
//! In:  a [`Tunnel`] that was admitted and has answered a PING; it may be in several pools.
//! Out: a [`Lease`]: the right to one stream of one tunnel.
//!
//! Invariant: no stream is opened without a lease, so that a peer's limit on concurrent streams is
//! never exceeded; beyond it h2 would queue without a bound.

mod queue;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout_at};

use crate::identity::{Identity, Key};
use crate::live::Lobby;
pub use crate::live::Tunnel;
pub(crate) use crate::live::TunnelId;
use crate::quota::{Counter, Gauge, Permit, Share, is_used_up, network, shared};

use ptth_link::lock::{Mutex, RwLock, RwLockReadGuard};

#[derive(Debug, Default)]
pub struct Pool {
    /// The same for each shard, so that no two threads ask for one lock.
    views: Vec<RwLock<Backends>>,
    /// How many tunnels each credential has; no credential counts as one.
    credentials: Mutex<Counter<Option<Key>>>,
    turn: AtomicUsize,
    /// Requests that wait for a backend, here and in other pools.
    pub(crate) held: Gauge,
    lobby: Arc<Lobby>,
    /// Wakes in the order of arrival, in which the requests then go on.
    changed: Notify,
    /// The route is no more, or is something else.
    closed: AtomicBool,
    /// A request that waits presses for room.
    pressing: AtomicBool,
    shares: Mutex<HashMap<IpAddr, Arc<Share>>>,
}

/// The tunnels of each backend; the order is the same in each view.
type Backends = BTreeMap<Process, Vec<Arc<Tunnel>>>;

/// What tells the backends of a pool apart: the credential, and the name that its holder gives the process. A tunnel that
/// names no process is a backend by itself.
type Process = Result<(Key, String), TunnelId>;

fn named(identity: &Identity) -> Option<(Key, String)> {
    identity.process().map(|(key, instance)| (key, instance.to_owned()))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoTunnel {
    Absent,
    /// Every tunnel is full, and stayed so.
    Full,
    /// The route is no more what it was when the request came.
    Moved,
}

impl Pool {
    pub fn new(shards: usize) -> Arc<Self> {
        Self::holding(shards, Gauge::default())
    }

    /// The same; the requests that wait for a backend are counted in `held`, with those of other pools.
    pub fn holding(shards: usize, held: Gauge) -> Arc<Self> {
        let views = (0..shards).map(|_| RwLock::default()).collect();
        Arc::new(Self { views, held, ..Self::default() })
    }

    pub fn add(&self, tunnel: &Arc<Tunnel>) {
        let process = named(&tunnel.identity).ok_or(tunnel.id);
        self.credentials.lock().add(tunnel.identity.key, [1]);
        tunnel.join(&self.lobby, true);
        self.arrange(|backends| {
            backends.entry(process.clone()).or_default().push(tunnel.clone());
        });
    }

    pub(crate) fn remove(&self, tunnel: &Tunnel) {
        let process = named(&tunnel.identity).ok_or(tunnel.id);
        self.credentials.lock().sub(&tunnel.identity.key, [1]);
        tunnel.join(&self.lobby, false);
        self.arrange(|backends| {
            let Some(backend) = backends.get_mut(&process) else { return };
            backend.retain(|it| it.id != tunnel.id);
            if backend.is_empty() {
                backends.remove(&process);
            }
        });
    }

    /// Sends away all requests that wait, now and later.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.lobby.freed.notify_waiters();
        self.stir();
    }

    /// Has all requests that wait look where they are to wait.
    pub fn stir(&self) {
        self.changed.notify_waiters();
    }

    /// Changes what every shard sees, alike.
    fn arrange(&self, mut change: impl FnMut(&mut Backends)) {
        for view in &self.views {
            change(&mut view.write());
        }
        // Requests that wait for room must learn as well that nothing is left to wait for.
        self.lobby.freed.notify_waiters();
        self.stir();
    }

    fn view(&self, shard: usize) -> Option<RwLockReadGuard<'_, Backends>> {
        Some(self.views.get(shard)?.read())
    }

    /// The tunnels of other backends that still take requests.
    pub fn rivals(&self, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let mut all = self.all();
        all.retain(|other| !other.is_draining() && !other.identity.is_same_backend(identity));
        all
    }

    pub(crate) fn siblings(&self, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let process = named(identity);
        process.and_then(|it| self.view(0)?.get(&Ok(it)).cloned()).unwrap_or_default()
    }

    pub(crate) fn held_by(&self, identity: &Identity) -> usize {
        self.credentials.lock().of(&identity.key)[0]
    }

    /// Requests that wait for a backend, here and in the other pools of its route.
    pub fn held(&self) -> usize {
        self.held.held()
    }

    pub(crate) fn len(&self) -> usize {
        self.credentials.lock().all().map(|[count]| *count).sum()
    }

    /// Every tunnel, draining ones included, the oldest first.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        let view = self.view(0);
        let mut all: Vec<_> = view.iter().flat_map(|it| it.values()).flatten().cloned().collect();
        all.sort_unstable_by_key(|tunnel| tunnel.id);
        all
    }

    /// Requests that wait, for a backend or for room.
    pub(crate) fn waiting(&self) -> usize {
        self.held.held() + self.lobby.waiting()
    }

    pub fn is_empty(&self) -> bool {
        self.view(0).is_none_or(|view| view.is_empty())
    }

    pub(crate) fn is_served(&self) -> bool {
        self.view(0).is_some_and(|view| takes(&view))
    }

    /// What the visitors of an address have of this pool.
    pub fn share(&self, address: IpAddr) -> Arc<Share> {
        let address = network(address);
        shared(&mut self.shares.lock(), address, || Share::new(address))
    }

    /// Waits until `holds` of the tunnels. Cancel safe.
    pub async fn until(&self, holds: impl Fn(&[Arc<Tunnel>]) -> bool) {
        loop {
            // Made before the look, it misses no change after it.
            let changed = self.changed.notified();
            if holds(&self.all()) {
                return;
            }
            changed.await;
        }
    }

    /// A stream for a request of an address with that `share`, which came in on `shard`; at once or not
    /// at all.
    ///
    /// The backend with the fewest streams in flight gets it, another one at each turn among equals; of
    /// its tunnels first those that the shard drives: another shard's would cost a lock that two threads
    /// want. Those in `avoid` come last: they refused the request, and being idle for that would be
    /// chosen again.
    pub fn lease(
        &self,
        share: &Arc<Share>,
        shard: usize,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        let view = self.view(shard).ok_or(NoTunnel::Absent)?;
        if has_its_part(&view, share) {
            return Err(NoTunnel::Full);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let lap = turn / view.len().max(1);
        let free = turned(view.values(), turn).filter_map(|backend| {
            let avoided = |it: &Tunnel| avoid.contains(&it.id);
            let tunnels = turned(backend.iter(), lap).filter(|it| it.has_room());
            let best = tunnels.min_by_key(|it| (avoided(it), it.shard != shard, it.in_flight()))?;
            let in_flight: usize = backend.iter().map(|it| it.in_flight()).sum();
            Some(((avoided(best), in_flight), best))
        });
        let Some((_, tunnel)) = free.min_by_key(|(rank, _)| *rank) else {
            return Err(match takes(&view) {
                true => NoTunnel::Full,
                false if self.closed.load(Ordering::Relaxed) => NoTunnel::Moved,
                false => NoTunnel::Absent,
            });
        };
        tunnel.enter(share);
        let (share, permit) = (share.clone(), share.streams.permit());
        let lease = Lease { tunnel: tunnel.clone(), share, permit };
        // Two threads may have looked before either took. What this one took is no longer among the free.
        let before = || {
            let (room, free) = room(&view);
            (room, free.saturating_add(1))
        };
        let fits = !is_used_up(lease.permit.before, before);
        fits.then_some(lease).ok_or(NoTunnel::Full)
    }

    /// Like [`Pool::lease`], but waits: for room for the time of `queue`, and for a backend as long, and with as many
    /// other requests at most, as `hold` says. Cancel safe.
    ///
    /// # Errors
    /// [`NoTunnel::Absent`] at once or after the hold, [`NoTunnel::Full`] after the queue's time or
    /// beyond a queue of a thousand, [`NoTunnel::Moved`] if after a wait it has `moved`.
    pub async fn acquire(
        &self,
        share: &Arc<Share>,
        shard: usize,
        avoid: &[TunnelId],
        queue: Duration,
        hold: Option<(Duration, usize)>,
        moved: &(dyn Fn() -> bool + Sync),
    ) -> Result<Lease, NoTunnel> {
        // Set when the wait begins, and once: backends that come and go don't prolong it.
        let (mut queued, mut held) = (None, None);
        let after = |time| move || Instant::now() + time;
        loop {
            let found = match self.lease(share, shard, avoid) {
                Err(NoTunnel::Full) => {
                    let deadline = *queued.get_or_insert_with(after(queue));
                    self.queue(share, shard, avoid, deadline).await
                }
                found => found,
            };
            match (found, hold) {
                (Err(NoTunnel::Absent), Some((time, most))) => {
                    let deadline = *held.get_or_insert_with(after(time));
                    self.hold(deadline, most, moved).await?;
                }
                // After the wait the host and path may lead elsewhere.
                _ if (queued.is_some() || held.is_some()) && moved() => {
                    return Err(NoTunnel::Moved);
                }
                (found, _) => return found,
            }
        }
    }

    /// Waits until some tunnel takes requests, or none ever will.
    async fn hold(
        &self,
        deadline: Instant,
        most: usize,
        moved: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), NoTunnel> {
        let _permit = self.held.take(most).ok_or(NoTunnel::Absent)?;
        let over = |_: &[_]| self.closed.load(Ordering::Relaxed) || moved() || self.is_served();
        timeout_at(deadline, self.until(over)).await.map_err(|_| NoTunnel::Absent)?;
        if moved() { Err(NoTunnel::Moved) } else { Ok(()) }
    }
}

/// The right to one stream of one tunnel, until dropped.
#[derive(Debug)]
pub struct Lease {
    tunnel: Arc<Tunnel>,
    share: Arc<Share>,
    permit: Permit,
}

impl Lease {
    pub fn tunnel(&self) -> &Arc<Tunnel> {
        &self.tunnel
    }

    pub fn pressed(&self) -> OwnedNotified {
        self.tunnel.tally.pressed()
    }

    pub fn yields(&self, most: usize) -> bool {
        self.tunnel.tally.yields(&self.share, most)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tunnel.leave(&self.share);
    }
}

fn takes(backends: &Backends) -> bool {
    backends.values().flatten().any(|tunnel| !tunnel.is_draining())
}

/// Streams that all tunnels together have room for, and how many of them are free.
fn room(backends: &Backends) -> (usize, usize) {
    let live = backends.values().flatten().filter(|tunnel| !tunnel.is_draining());
    live.map(|tunnel| (tunnel.allowed(), tunnel.in_flight())).fold((0, 0), |sum, of| {
        (sum.0.saturating_add(of.0), sum.1.saturating_add(of.0.saturating_sub(of.1)))
    })
}

/// Whether an address has its part of these tunnels, also of what it took by way of other pools.
fn has_its_part(backends: &Backends, share: &Share) -> bool {
    let tunnels = || backends.values().flatten();
    let taken = match tunnels().any(|tunnel| tunnel.is_shared()) {
        true => tunnels().map(|tunnel| tunnel.tally.of(share)).sum(),
        false => share.streams.held(),
    };
    is_used_up(taken, || room(backends))
}

/// All of them, from another one on at each turn.
fn turned<I: Iterator + ExactSizeIterator + Clone>(
    items: I,
    turn: usize,
) -> impl Iterator<Item = I::Item> {
    let count = items.len();
    items.cycle().skip(turn % count.max(1)).take(count)
}
