//! One live tunnel, as requests and its driver see it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use h2::client::SendRequest;
use ptth_link::budget::Budget;
use ptth_link::h2::Load;
use ptth_link::h2::goaway::Why;
use ptth_link::h2::pulse::Pulse;
use ptth_link::limits::PROBE_TIMEOUT;
use ptth_link::lock::RwLock;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::identity::Grant;
use crate::identity::Identity;
use crate::quota::{Gauge, Permit, Share, Tally};
use crate::reset_limiter::ResetLimiter;

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TunnelId(u64);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

pub struct Tunnel {
    pub id: TunnelId,
    pub shard: usize,
    pub identity: Identity,
    pub grants: Vec<Grant>,
    pub(crate) begun: Instant,
    /// Its state, as its driver notes it.
    pub(crate) pulse: Arc<Pulse>,
    /// The address of its backend, and the door by which it came.
    pub(crate) from: OnceLock<(IpAddr, &'static str)>,
    dismissal: OnceLock<(Why, &'static str)>,
    /// What the responses that come by it may hold.
    pub(crate) budget: Arc<Budget>,
    pub(crate) sender: SendRequest<Bytes>,
    in_flight: AtomicUsize,
    /// Of those, requests whose response's head hasn't come.
    waiting: Gauge,
    /// A stream was opened since the driver last asked.
    opened: AtomicBool,
    pub(crate) tally: Tally,
    /// Whether it is in several pools.
    shared: AtomicBool,
    /// Where requests wait for room: those of the pools that it is in, by their addresses in memory.
    lobbies: RwLock<HashMap<usize, Arc<Lobby>>>,
    draining: AtomicBool,
    penalties: AtomicU32,
    probe: AtomicBool,
    answered: Notify,
    /// Wakes the tunnel's driver: it was replaced, penalized, or its key was withdrawn.
    pub attention: Notify,
    /// Streams that were given up, until the rate limit allows their RST_STREAM.
    pub reset_limiter: ResetLimiter,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Tunnel {
    pub fn new(
        shard: usize,
        (identity, grants): (Identity, Vec<Grant>),
        budget: Arc<Budget>,
        sender: SendRequest<Bytes>,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let reset_limiter = ResetLimiter::new(identity.ours);
        Arc::new(Self {
            id: TunnelId(NEXT.fetch_add(1, Ordering::Relaxed)),
            shard,
            identity,
            grants,
            begun: Instant::now(),
            pulse: Arc::default(),
            from: OnceLock::new(),
            dismissal: OnceLock::new(),
            budget,
            sender,
            in_flight: AtomicUsize::new(0),
            waiting: Gauge::default(),
            opened: AtomicBool::new(false),
            tally: Tally::default(),
            shared: AtomicBool::new(false),
            lobbies: RwLock::default(),
            draining: AtomicBool::new(false),
            penalties: AtomicU32::new(0),
            probe: AtomicBool::new(false),
            answered: Notify::new(),
            attention: Notify::new(),
            reset_limiter,
        })
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn load(&self) -> Load {
        let opened =
            self.opened.load(Ordering::Relaxed) && self.opened.swap(false, Ordering::Relaxed);
        Load { streams: self.in_flight(), waiting: self.waiting.held() > 0, opened }
    }

    /// One more request waits for the head of its response, until this is dropped.
    pub(crate) fn wait(&self) -> Permit {
        self.opened.store(true, Ordering::Relaxed);
        self.waiting.permit()
    }

    pub(crate) fn is_extended(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    pub(crate) fn enter(&self, share: &Share) {
        self.tally.enter(share);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.pulse.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives the stream back, to a request that waits in any of the pools.
    pub(crate) fn leave(&self, share: &Share) {
        self.tally.leave(share);
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if before == 1 && self.is_draining() {
            self.attention.notify_one();
        }
        if Lobby::is_any_wanted() {
            let lobbies = self.lobbies.read();
            lobbies.values().for_each(|lobby| lobby.free());
        }
    }

    /// Whether requests that wait in `lobby` wait for this tunnel, too.
    pub(crate) fn join(&self, lobby: &Arc<Lobby>, waits: bool) {
        let (mut lobbies, key) = (self.lobbies.write(), Arc::as_ptr(lobby) as usize);
        lobbies.remove(&key);
        lobbies.extend(waits.then(|| (key, lobby.clone())));
        self.shared.store(lobbies.len() > 1, Ordering::Relaxed);
    }

    /// Whether it is in several pools.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Wakes all requests that wait for room: the backend allows more streams than before.
    pub(crate) fn note_room(&self) {
        let lobbies = self.lobbies.read();
        lobbies.values().for_each(|lobby| lobby.freed.notify_waiters());
    }

    /// No new requests from here on; those that run may finish, if the backend still answers.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.probe.store(true, Ordering::Relaxed);
        self.attention.notify_one();
    }

    /// Like [`Tunnel::drain`]; at the end the backend is told why.
    pub fn dismiss(&self, why: Why, text: &'static str) {
        let _ = self.dismissal.set((why, text));
        self.drain();
    }

    pub fn dismissal(&self) -> Option<(Why, &'static str)> {
        self.dismissal.get().copied()
    }

    /// Whether the backend answers a PING within [`PROBE_TIMEOUT`].
    pub async fn answers(&self) -> bool {
        let mut answered = std::pin::pin!(self.answered.notified());
        answered.as_mut().enable();
        self.probe.store(true, Ordering::Relaxed);
        self.attention.notify_one();
        timeout(PROBE_TIMEOUT, answered).await.is_ok()
    }

    /// For the driver: whether a PING is wanted, once for each wish.
    pub fn take_probe(&self) -> bool {
        self.probe.swap(false, Ordering::Relaxed)
    }

    /// For the driver: no PING is unanswered.
    pub fn note_answer(&self) {
        if !self.probe.load(Ordering::Relaxed) {
            self.answered.notify_waiters();
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn penalize(&self) {
        if self.penalties.fetch_add(1, Ordering::Relaxed) + 1 == MOST_PENALTIES {
            self.attention.notify_one();
        }
    }

    /// Whether the backend broke the protocol too often since the last call.
    pub fn is_out(&self) -> bool {
        self.penalties.load(Ordering::Relaxed) >= MOST_PENALTIES
    }

    pub fn forgive(&self) {
        self.penalties.store(0, Ordering::Relaxed);
    }

    /// Streams that the backend allows at a time, which it may change.
    pub fn allowed(&self) -> usize {
        self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.is_draining() && self.in_flight() < self.allowed()
    }
}

/// Where the requests of a pool wait for its tunnels' streams. A tunnel may be in ten thousand pools, and a stream that
/// ends wakes a request in each pool where one waits: this must cost nothing where none waits anywhere, and little
/// where they wait elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    pub(crate) freed: Notify,
    waiting: Gauge,
}

/// Requests that wait in all lobbies of the process.
static WAITING: LazyLock<Gauge> = LazyLock::new(Gauge::default);

impl Lobby {
    /// A permit to be among `most` who wait, taken before the last look for a stream: a stream that is given back
    /// after that look finds the request waiting.
    pub(crate) fn wait(&self, most: usize) -> Option<(Permit, Permit)> {
        let waiting = (WAITING.permit(), self.waiting.take(most)?);
        fence(Ordering::SeqCst);
        Some(waiting)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.held()
    }

    /// Whether a request waits in any lobby, of those that took their permit before this stream was given back.
    fn is_any_wanted() -> bool {
        fence(Ordering::SeqCst);
        WAITING.held() > 0
    }

    fn free(&self) {
        if self.waiting.held() > 0 {
            self.freed.notify_one();
        }
    }
}

/// Twice what our client allows: a SETTINGS frame of the backend costs the gateway as much as there are streams.
const MOST_STREAMS: usize = 4096;
/// Breaches of protocol within one PING interval after which a backend is dropped.
const MOST_PENALTIES: u32 = 100;
