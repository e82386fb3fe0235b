//! The live tunnels of one route, and which one takes the next request.
//!
//! In:  a [`Tunnel`] that was admitted and has answered a PING; it may be in several pools.
//! Out: a [`Lease`]: the right to one stream of one tunnel.
//!
//! Invariant: nobody opens a stream without a lease, so that a peer's limit on concurrent streams is
//! never exceeded; beyond it h2 would queue without a bound and without a word.

mod backend;
mod members;
mod queue;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout_at};

use crate::identity::Identity;
use crate::live::Lobby;
pub use crate::live::Tunnel;
pub(crate) use crate::live::TunnelId;
use crate::quota::{Gauge, Permit, Share, Shares, is_used_up};

use backend::{Backend, Process, best, in_flight, turned};
use members::Members;

/// All tunnels of one route.
#[derive(Debug)]
pub struct Pool {
    members: Mutex<Members>,
    /// The same by backend, once for each shard, so that no two threads ask for one lock. A backend has the
    /// same index in each.
    views: Vec<RwLock<Vec<Backend>>>,
    turn: AtomicUsize,
    held: Gauge,
    lobby: Arc<Lobby>,
    changed: Notify,
    closed: AtomicBool,
    /// One of those who wait presses for room.
    pressing: AtomicBool,
    shares: Shares,
}

/// How long a request waits, and how many do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Patience {
    /// For room, while every tunnel is full.
    pub queue: Duration,
    /// For a backend, while there is none; and how many requests may.
    pub hold: Option<(Duration, usize)>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { queue: QUEUE_TIMEOUT, hold: None }
    }
}

/// Why there is no tunnel for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoTunnel {
    /// No backend is connected.
    Absent,
    /// Every tunnel is full, and stayed so.
    Full,
    /// The route is no more what it was when the request came.
    Moved,
}

impl Pool {
    /// An empty pool for that many shards.
    pub fn new(shards: usize) -> Arc<Self> {
        Self::holding(shards, Gauge::default())
    }

    /// The same; the requests that wait for a backend are counted in `held`, with those of others.
    pub fn holding(shards: usize, held: Gauge) -> Arc<Self> {
        Arc::new(Self {
            members: Mutex::default(),
            views: (0..shards).map(|_| RwLock::default()).collect(),
            turn: AtomicUsize::new(0),
            held,
            lobby: Arc::default(),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
            pressing: AtomicBool::new(false),
            shares: Shares::default(),
        })
    }

    /// An empty one for a part of what this one is for.
    pub fn another(&self) -> Arc<Self> {
        Self::holding(self.views.len(), self.held.clone())
    }

    /// Adds a tunnel, unless it is here.
    pub fn add(&self, tunnel: &Arc<Tunnel>) {
        let mut members = self.lock();
        let Some(index) = members.insert(tunnel) else { return };
        tunnel.join(&self.lobby);
        self.arrange(|backends| {
            if index == backends.len() {
                backends.push(Backend::new());
            }
            backends.get_mut(index).into_iter().for_each(|it| it.push(tunnel.clone()));
        });
    }

    /// Takes a tunnel out, if it is here.
    pub fn remove(&self, id: TunnelId) {
        let mut members = self.lock();
        let Some((tunnel, index)) = members.remove(id) else { return };
        tunnel.part(&self.lobby);
        let mut moved = None;
        self.arrange(|backends| {
            let Some(backend) = backends.get_mut(index) else { return };
            backend.retain(|tunnel| tunnel.id != id);
            if backend.is_empty() {
                backends.swap_remove(index);
                let heir = backends.get(index).and_then(|heir| heir.first());
                moved = Some(heir.map(|tunnel| Process::of(tunnel)));
            }
        });
        moved.into_iter().for_each(|heir| members.vacate(&tunnel, heir));
    }

    /// Sends away all who wait, now and later: the route is no more, or is something else.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.lobby.freed.notify_waiters();
        self.changed.notify_waiters();
    }

    /// Has all who wait look whether they are to wait elsewhere.
    pub fn stir(&self) {
        self.changed.notify_waiters();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Changes what every shard sees, alike.
    fn arrange(&self, mut change: impl FnMut(&mut Vec<Backend>)) {
        for view in &self.views {
            change(&mut view.write().unwrap_or_else(PoisonError::into_inner));
        }
        // Whoever waits for room must learn as well that nothing is left to wait for.
        self.lobby.freed.notify_waiters();
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tunnels of other backends that still take requests.
    pub fn rivals(&self, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let mut all = self.all();
        all.retain(|other| !other.is_draining() && !other.identity.is_same_backend(identity));
        all
    }

    /// The tunnels of the process that is called so.
    pub fn siblings(&self, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let members = self.lock();
        let index = members.index(identity);
        let view = self.views.first().map(|it| it.read().unwrap_or_else(PoisonError::into_inner));
        let backend = index.zip(view.as_ref()).and_then(|(index, view)| view.get(index));
        backend.cloned().unwrap_or_default()
    }

    /// How many tunnels are here by the credential of `identity`.
    pub fn held_by(&self, identity: &Identity) -> usize {
        self.lock().held_by(identity)
    }

    /// Every tunnel, draining ones included.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.lock().tunnels().cloned().collect()
    }

    /// Whether there is no tunnel at all.
    pub fn is_empty(&self) -> bool {
        self.lock().tunnels().next().is_none()
    }

    /// What the visitors of an address have of this pool.
    pub fn share(&self, address: IpAddr) -> Arc<Share> {
        self.shares.of(address)
    }

    /// Waits until `holds` of the tunnels in the pool. Cancel safe.
    pub async fn until(&self, holds: impl Fn(&[Arc<Tunnel>]) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds(&self.all()) {
                return;
            }
            changed.await;
        }
    }

    /// Streams that all tunnels together have room for, and how many of them are free.
    fn room(&self) -> (usize, usize) {
        let members = self.lock();
        let live = members.tunnels().filter(|tunnel| !tunnel.is_draining());
        live.map(|tunnel| (tunnel.allowed(), tunnel.in_flight())).fold((0, 0), |sum, of| {
            (sum.0.saturating_add(of.0), sum.1.saturating_add(of.0.saturating_sub(of.1)))
        })
    }

    /// Whether an address has its part of the tunnels here. What it took of them by way of another pool
    /// counts: a backend's routes are one backend.
    fn is_used_up(&self, share: &Arc<Share>, shard: usize) -> bool {
        let Some(view) = self.views.get(shard) else { return false };
        let taken = {
            let backends = view.read().unwrap_or_else(PoisonError::into_inner);
            let tunnels = || backends.iter().flatten();
            if tunnels().any(|tunnel| tunnel.is_shared()) {
                tunnels().map(|tunnel| tunnel.taken_by(share)).sum()
            } else {
                share.streams.held()
            }
        };
        is_used_up(taken, || self.room())
    }

    /// A stream for a request of an address with that `share`, which came in on `shard`; at once or not
    /// at all.
    ///
    /// The backend with the fewest streams in flight gets it, another one at each turn among equals; of
    /// its tunnels first those that the shard drives: another one's would cost a lock that two threads
    /// want. Those in `avoid` come last: they refused the request, and being idle for that would be
    /// chosen again.
    ///
    /// # Errors
    /// [`NoTunnel`].
    pub fn lease(
        self: &Arc<Self>,
        share: &Arc<Share>,
        shard: usize,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        if self.is_used_up(share, shard) {
            return Err(NoTunnel::Full);
        }
        let lease = match self.find(share, shard, avoid) {
            Err(NoTunnel::Full) if !avoid.is_empty() => self.find(share, shard, &[])?,
            found => found?,
        };
        // Two threads may have looked before either took. What this one took is no longer among the free.
        let before = || {
            let (room, free) = self.room();
            (room, free.saturating_add(1))
        };
        let fits = !is_used_up(lease.permit.before, before);
        fits.then_some(lease).ok_or(NoTunnel::Full)
    }

    fn find(
        self: &Arc<Self>,
        share: &Arc<Share>,
        shard: usize,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        let Some(view) = self.views.get(shard) else { return Err(NoTunnel::Absent) };
        let backends = view.read().unwrap_or_else(PoisonError::into_inner);
        let suits = |tunnel: &&Arc<Tunnel>| tunnel.has_room() && !avoid.contains(&tunnel.id);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let lap = turn / backends.len().max(1);
        let free = turned(&backends, turn)
            .filter_map(|backend| Some((in_flight(backend), best(backend, (shard, lap), suits)?)));
        if let Some((_, tunnel)) = free.min_by_key(|(in_flight, _)| *in_flight) {
            tunnel.enter(share);
            let (share, permit) = (share.clone(), share.streams.permit());
            return Ok(Lease { tunnel: tunnel.clone(), share, permit });
        }
        let any = backends.iter().flatten().any(|tunnel| !tunnel.is_draining());
        Err(match any {
            true => NoTunnel::Full,
            false if self.is_closed() => NoTunnel::Moved,
            false => NoTunnel::Absent,
        })
    }

    /// Like [`Pool::lease`], but waits a while: for room, and for a backend where the route says so.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`NoTunnel::Absent`] at once or after the hold, [`NoTunnel::Full`] after the queue's time or
    /// beyond a queue of a thousand, [`NoTunnel::Moved`] if after a wait it has `moved`.
    pub async fn acquire(
        self: &Arc<Self>,
        share: &Arc<Share>,
        shard: usize,
        avoid: &[TunnelId],
        patience: Patience,
        moved: &(dyn Fn() -> bool + Sync),
    ) -> Result<Lease, NoTunnel> {
        // Set when the wait begins, and once: backends that come and go don't prolong it.
        let (mut queued, mut held) = (None, None);
        let after = |time| move || Instant::now() + time;
        loop {
            let found = match self.lease(share, shard, avoid) {
                Err(NoTunnel::Full) => {
                    let deadline = *queued.get_or_insert_with(after(patience.queue));
                    self.queue(share, shard, avoid, deadline).await
                }
                found => found,
            };
            match (found, patience.hold) {
                (Err(NoTunnel::Absent), Some((time, most))) => {
                    let deadline = *held.get_or_insert_with(after(time));
                    self.hold(deadline, most, moved).await?;
                }
                // Who waited may be somebody else's by now.
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
        let over = |tunnels: &[Arc<Tunnel>]| {
            self.is_closed() || moved() || tunnels.iter().any(|tunnel| !tunnel.is_draining())
        };
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
    /// The tunnel that it is a part of.
    pub fn tunnel(&self) -> &Arc<Tunnel> {
        &self.tunnel
    }

    /// Waits until the tunnel's streams are asked to make room.
    pub fn pressed(&self) -> OwnedNotified {
        self.tunnel.tally.pressed()
    }

    /// Whether this one is asked, if its visitor has more than `most`.
    pub fn yields(&self, most: usize) -> bool {
        self.tunnel.tally.yields(&self.share, most)
    }

    /// A handle to open the stream with.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.tunnel.sender.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tunnel.leave(&self.share);
    }
}

/// A visitor waits about this long before he reloads, which would only lengthen the queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
