//! The live tunnels of one route, and which one takes the next request.
//!
//! In:  a [`Tunnel`] that was admitted and has answered a PING; it may be in several pools.
//! Out: a [`Lease`]: the right to one stream of one tunnel.
//!
//! Invariant: nobody opens a stream without a lease, so that a peer's limit on concurrent streams is
//! never exceeded; beyond it h2 would queue without a bound and without a word.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::auth::Identity;
pub use crate::live::{Tunnel, TunnelId};
use crate::share::{Part, Share, Shares};

/// All tunnels of one route, listed by the shard that drives them.
#[derive(Debug)]
pub struct Pool {
    shards: Vec<RwLock<Vec<Arc<Tunnel>>>>,
    turn: AtomicUsize,
    waiting: AtomicUsize,
    held: AtomicUsize,
    freed: Notify,
    changed: Notify,
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
}

impl Pool {
    /// An empty pool for that many shards.
    pub fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            turn: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            freed: Notify::new(),
            changed: Notify::new(),
            shares: Shares::default(),
        })
    }

    /// Adds a tunnel, unless it is here.
    pub fn add(&self, tunnel: &Arc<Tunnel>) {
        if let Some(shard) = self.shards.get(tunnel.shard) {
            let mut tunnels = shard.write().unwrap_or_else(PoisonError::into_inner);
            if !tunnels.iter().any(|other| other.id == tunnel.id) {
                tunnels.push(tunnel.clone());
            }
        }
        self.freed.notify_waiters();
        self.changed.notify_waiters();
    }

    /// Takes a tunnel out, if it is here.
    pub fn remove(&self, id: TunnelId) {
        for shard in &self.shards {
            shard.write().unwrap_or_else(PoisonError::into_inner).retain(|tunnel| tunnel.id != id);
        }
        // Whoever waits for room must learn that nothing is left to wait for.
        self.freed.notify_waiters();
        self.changed.notify_waiters();
    }

    /// The tunnels of other backends that still take requests.
    pub fn rivals(&self, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let mut all = self.all();
        all.retain(|other| !other.is_draining() && !other.identity.is_same_backend(identity));
        all
    }

    /// Every tunnel, draining ones included.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.shards.iter().flat_map(|shard| read(shard).clone()).collect()
    }

    /// Whether there is no tunnel at all.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| read(shard).is_empty())
    }

    /// What the visitors of an address have of this pool.
    pub fn share(&self, address: IpAddr) -> Share {
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

    /// Wakes those who wait for room: a backend allows more streams than before.
    pub fn note_room(&self) {
        self.freed.notify_waiters();
    }

    /// Streams that all tunnels together have room for.
    fn room(&self) -> usize {
        let tunnels = self.all();
        let live = tunnels.iter().filter(|tunnel| !tunnel.is_draining());
        live.map(|tunnel| tunnel.allowed()).fold(0, usize::saturating_add)
    }

    /// A stream for a request of an address with that `share`, which came in on `shard`; at once or not
    /// at all.
    ///
    /// The shard's own tunnels come first: another one's would cost a lock that two threads want. Those
    /// in `avoid` come last: they refused the request, and being idle for that would be chosen again.
    ///
    /// # Errors
    /// [`NoTunnel`].
    pub fn lease(
        self: &Arc<Self>,
        share: &Share,
        shard: usize,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        if share.is_used_up(|| self.room()) {
            return Err(NoTunnel::Full);
        }
        match self.find(share, shard, avoid) {
            Err(NoTunnel::Full) if !avoid.is_empty() => self.find(share, shard, &[]),
            found => found,
        }
    }

    fn find(
        self: &Arc<Self>,
        share: &Share,
        shard: usize,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        let suits = |tunnel: &&Arc<Tunnel>| tunnel.has_room() && !avoid.contains(&tunnel.id);
        let mut any = false;
        let own = self.shards.get(shard).into_iter();
        let others = self.shards.iter().enumerate().filter(|(n, _)| *n != shard).map(|(_, s)| s);
        for tunnels in own.chain(others) {
            let tunnels = read(tunnels);
            any |= tunnels.iter().any(|tunnel| !tunnel.is_draining());
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % tunnels.len().max(1);
            let (before, after) = tunnels.split_at(turn);
            let free = after.iter().chain(before).filter(suits);
            if let Some(tunnel) = free.min_by_key(|tunnel| tunnel.in_flight()) {
                tunnel.enter();
                let (pool, part) = (self.clone(), share.part());
                return Ok(Lease { pool, tunnel: tunnel.clone(), part });
            }
        }
        Err(if any { NoTunnel::Full } else { NoTunnel::Absent })
    }

    /// Like [`Pool::lease`], but waits a while: for room, and for a backend where the route says so.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`NoTunnel::Absent`] at once or after the hold, [`NoTunnel::Full`] after the queue's time or
    /// beyond a queue of a thousand.
    pub async fn acquire(
        self: &Arc<Self>,
        share: &Share,
        shard: usize,
        avoid: &[TunnelId],
        patience: Patience,
    ) -> Result<Lease, NoTunnel> {
        loop {
            match (self.lease(share, shard, avoid), patience.hold) {
                (Err(NoTunnel::Full), _) => {
                    return self.queue(share, shard, avoid, patience.queue).await;
                }
                (Err(NoTunnel::Absent), Some((time, most))) => self.hold(time, most).await?,
                (found, _) => return found,
            }
        }
    }

    /// Waits until some tunnel takes requests.
    async fn hold(&self, time: Duration, most: usize) -> Result<(), NoTunnel> {
        let _place = Place::take(&self.held, most).ok_or(NoTunnel::Absent)?;
        let live = |tunnels: &[Arc<Tunnel>]| tunnels.iter().any(|tunnel| !tunnel.is_draining());
        timeout(time, self.until(live)).await.map_err(|_| NoTunnel::Absent)
    }

    async fn queue(
        self: &Arc<Self>,
        share: &Share,
        shard: usize,
        avoid: &[TunnelId],
        time: Duration,
    ) -> Result<Lease, NoTunnel> {
        let _place = Place::take(&self.waiting, QUEUE).ok_or(NoTunnel::Full)?;
        let deadline = Instant::now() + time;
        loop {
            // Enabled, neither of the two is missed; so look once more before waiting. Who waits for a part
            // of his own address doesn't take the signals of those who only wait for room.
            let mut returned = std::pin::pin!(share.returned());
            returned.as_mut().enable();
            if share.is_used_up(|| self.room()) {
                timeout_at(deadline, returned).await.map_err(|_| NoTunnel::Full)?;
                continue;
            }
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.lease(share, shard, avoid) {
                Err(NoTunnel::Full) => {}
                other => return other,
            }
            timeout_at(deadline, freed).await.map_err(|_| NoTunnel::Full)?;
        }
    }
}

fn read(shard: &RwLock<Vec<Arc<Tunnel>>>) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Tunnel>>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

/// A place among those who wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one stream of one tunnel, until dropped.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    tunnel: Arc<Tunnel>,
    #[allow(dead_code, reason = "held for its drop")]
    part: Part,
}

impl Lease {
    /// The tunnel that it is a part of.
    pub fn tunnel(&self) -> &Arc<Tunnel> {
        &self.tunnel
    }

    /// A handle to open the stream with.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.tunnel.sender.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tunnel.leave();
        self.pool.freed.notify_one();
    }
}

/// Requests that may wait for a stream: as many as one burst of a thousand.
const QUEUE: usize = 1000;
/// A visitor waits about this long before he reloads, which would only lengthen the queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a refused visitor is told to wait.
pub const RETRY_AFTER_SECONDS: u64 = 1;
