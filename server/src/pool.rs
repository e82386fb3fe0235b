//! The live tunnels: who is in, which one takes the next request, and who takes out the dead.
//!
//! In:  a [`Tunnel`] that was admitted and has answered a PING.
//! Out: a [`Lease`]: the right to one stream of one tunnel.
//!
//! Invariant: nobody opens a stream without a lease, so that a peer's limit on concurrent streams is
//! never exceeded; beyond it h2 would queue without a bound and without a word.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::auth::Identity;
pub use crate::live::{Tunnel, TunnelId};
use crate::share::{Part, Share};

/// All tunnels of the gateway, listed by the shard that drives them.
#[derive(Debug)]
pub struct Pool {
    shards: Vec<RwLock<Vec<Arc<Tunnel>>>>,
    turn: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
    changed: Notify,
    /// Tunnels of each shard, from the end of their TLS handshake on.
    booked: Mutex<Vec<usize>>,
}

/// A tunnel's place on a shard. Dropping it frees the place.
#[derive(Debug)]
pub struct Booking {
    pool: Arc<Pool>,
    /// The shard.
    pub shard: usize,
}

impl Drop for Booking {
    fn drop(&mut self) {
        let mut booked = self.pool.booked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = booked.get_mut(self.shard) {
            *count = count.saturating_sub(1);
        }
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
            freed: Notify::new(),
            changed: Notify::new(),
            booked: Mutex::new(vec![0; shards]),
        })
    }

    /// Adds a tunnel. One of the same key and name is replaced at once, and told: after a network
    /// change nobody waits for the dead one to be found dead.
    pub fn register(self: &Arc<Self>, tunnel: Arc<Tunnel>) -> Registration {
        let replaced: Vec<_> = self
            .all()
            .into_iter()
            .filter(|other| other.identity.is_same_tunnel(&tunnel.identity))
            .collect();
        if let Some(shard) = self.shards.get(tunnel.shard) {
            shard.write().unwrap_or_else(PoisonError::into_inner).push(tunnel.clone());
        }
        for other in replaced {
            log::info!("tunnel: {} replaced by {}", other.id, tunnel.id);
            other.drain();
        }
        self.freed.notify_waiters();
        self.changed.notify_waiters();
        Registration { pool: self.clone(), tunnel }
    }

    /// The tunnels of other backends that an open gateway has to ask whether they are still there.
    pub fn rivals(&self, identity: &Identity) -> Vec<Arc<Tunnel>> {
        let mut all = self.all();
        all.retain(|other| !other.is_draining() && !other.identity.is_same_backend(identity));
        all
    }

    /// Every tunnel, draining ones included.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.shards.iter().flat_map(|shard| read(shard).clone()).collect()
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
        Booking { pool: self.clone(), shard }
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

    /// Like [`Pool::lease`], but waits a while for room. Cancel safe.
    ///
    /// # Errors
    /// [`NoTunnel::Absent`] at once, [`NoTunnel::Full`] after five seconds or beyond a queue of
    /// a thousand.
    pub async fn acquire(
        self: &Arc<Self>,
        share: &Share,
        shard: usize,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        match self.lease(share, shard, avoid) {
            Err(NoTunnel::Full) => {}
            other => return other,
        }
        let place = Place::take(&self.waiting).ok_or(NoTunnel::Full)?;
        let deadline = Instant::now() + QUEUE_TIMEOUT;
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
                other => {
                    drop(place);
                    return other;
                }
            }
            timeout_at(deadline, freed).await.map_err(|_| NoTunnel::Full)?;
        }
    }
}

fn read(shard: &RwLock<Vec<Arc<Tunnel>>>) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Tunnel>>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < QUEUE).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Proof that a tunnel is in the pool. Dropping it takes the tunnel out again.
#[must_use = "dropping the registration removes the tunnel at once"]
#[derive(Debug)]
pub struct Registration {
    pool: Arc<Pool>,
    tunnel: Arc<Tunnel>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(shard) = self.pool.shards.get(self.tunnel.shard) {
            let mut tunnels = shard.write().unwrap_or_else(PoisonError::into_inner);
            tunnels.retain(|tunnel| tunnel.id != self.tunnel.id);
        }
        // Whoever waits for room must learn that nothing is left to wait for.
        self.pool.freed.notify_waiters();
        self.pool.changed.notify_waiters();
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
