//! The memory of all bodies that this process moves: one budget, with a part for each connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::lock::{Mutex, MutexGuard};

/// What holds the flow-control credit of a stream.
pub trait Credit: fmt::Debug + Send + Sync {
    /// Tells the sender of credit that h2 has kept back for it, if it is due.
    fn renew(&self);
}

/// Streams of connections whose window may be lowered.
#[derive(Debug, Default)]
struct Credits {
    streams: Vec<Weak<dyn Credit>>,
    /// How many there may be before those that ended are taken out.
    most: usize,
}

/// Bytes that bodies hold in this process, how many they may, and how many sockets are full.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    full: AtomicUsize,
    /// Bytes that peers may send beyond their first windows ([`crate::h2::window`]).
    granted: AtomicUsize,
    /// The window of the connections may be lowered.
    lowers: AtomicBool,
    /// Their streams, if so.
    credits: Mutex<Credits>,
    /// Of what this is a part.
    whole: Option<Arc<Self>>,
}

/// Bytes that are held for one stream, until this is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    /// Nothing yet, of `budget`.
    pub fn of(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Says how many bytes it is now.
    ///
    /// # Errors
    /// [`Excess`]: so many can't stay; the largest holder gives way, whether or not it is to blame.
    pub fn set(&mut self, bytes: usize) -> Result<(), Excess> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let more = bytes.saturating_sub(before);
        self.budget.take(more);
        self.budget.give_back(before.saturating_sub(bytes));
        if more > 0 && self.budget.is_excess(bytes) { Err(Excess) } else { Ok(()) }
    }

    /// Of what it is held.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// More than one stream may hold now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Excess;

/// A socket that takes nothing, as long as this is kept.
#[derive(Debug)]
pub struct Full(Arc<Budget>);

impl Drop for Full {
    fn drop(&mut self) {
        self.0.full.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self::with(limit, None))
    }

    fn with(limit: usize, whole: Option<Arc<Self>>) -> Self {
        let (held, full) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (granted, lowers) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { limit, held, full, granted, lowers, credits: Mutex::default(), whole }
    }

    /// Says that the window of its connection may be lowered.
    pub(crate) fn lowers(&self) {
        self.lowers.store(true, Ordering::Relaxed);
    }

    /// Has the credit of this stream renewed after its connection's window was lowered, if it ever is.
    pub(crate) fn renews(&self, stream: impl FnOnce() -> Weak<dyn Credit>) {
        if !self.lowers.load(Ordering::Relaxed) {
            return;
        }
        let mut credits = self.credits();
        if credits.streams.len() >= credits.most {
            credits.streams.retain(|stream| stream.strong_count() > 0);
            // Each is looked at once for each one that is added, however many live on.
            credits.most = 2 * credits.streams.len() + FEW;
        }
        credits.streams.push(stream());
    }

    pub(crate) fn renew(&self) {
        let streams: Vec<_> = self.credits().streams.iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(|stream| stream.renew());
    }

    fn credits(&self) -> MutexGuard<'_, Credits> {
        self.credits.lock()
    }

    /// One connection's part: what is held of it is held of the whole.
    #[must_use]
    pub fn part(self: &Arc<Self>) -> Arc<Self> {
        let whole = self.whole.as_ref().unwrap_or(self);
        Arc::new(Self::with(self.limit, Some(whole.clone())))
    }

    pub(crate) fn whole(&self) -> &Self {
        self.whole.as_deref().unwrap_or(self)
    }

    /// Counts a socket that takes nothing.
    pub fn full(self: &Arc<Self>) -> Full {
        let whole = self.whole.as_ref().unwrap_or(self);
        whole.full.fetch_add(1, Ordering::Relaxed);
        Full(whole.clone())
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.take(bytes);
        }
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }

    /// Whether a stream of this part holds too much with `own` bytes. Windows keep what is held to the limit where
    /// peers keep to them; this is for those that don't, or not yet. A part may hold what all together leave free
    /// (dynamic thresholds, as in the buffers of switches): one alone half of all, ten a tenth each, and a part that
    /// holds little is let be. In a part that holds more a stream may still hold a small share.
    fn is_excess(&self, own: usize) -> bool {
        let whole = self.whole();
        let free = (CEILING * whole.limit).saturating_sub(whole.held());
        self.held() > free && own > free / STREAMS
    }

    /// Grants up to `wanted` bytes to a connection that has `own` of it: at most as much as is left then, of half of the limit.
    /// None while much is held.
    pub(crate) fn grant(&self, own: usize, wanted: usize) -> usize {
        let whole = self.whole();
        if whole.is_pressed() {
            return 0;
        }
        let part = |granted: usize| {
            let free = (whole.limit / 2 + own).saturating_sub(granted);
            wanted.min((free / SHARES).saturating_sub(own))
        };
        let order = Ordering::Relaxed;
        let before =
            whole.granted.fetch_update(order, order, |granted| Some(granted + part(granted)));
        before.map_or(0, part)
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.held() > self.limit / 2
    }

    pub(crate) fn revoke(&self, granted: usize) {
        self.whole().granted.fetch_sub(granted, Ordering::Relaxed);
    }

    /// Whether few sockets are full, and little is held. Else all that waits for each of them counts.
    pub fn is_calm(&self) -> bool {
        self.batch() == BATCH && !self.whole().is_pressed()
    }

    /// Bytes that may wait at one place of a connection on their way into its socket.
    pub fn batch(&self) -> usize {
        match self.whole().full.load(Ordering::Relaxed) {
            0..FEW => BATCH,
            FEW..MANY => BATCH / 4,
            MANY.. => BATCH / 8,
        }
    }

    /// The window for each of `streams` streams of a connection whose part this is, and which needs `reach`.
    pub(crate) fn share(&self, streams: usize, reach: u32) -> u32 {
        let own = (WINDOWS * reach as usize).saturating_sub(self.held());
        let left = self.limit.saturating_sub(self.whole().held()).min(own);
        let share = left / streams.max(SHARES);
        let narrowest = (reach / NARROWER).min(NARROWEST);
        u32::try_from(share).unwrap_or(u32::MAX).clamp(narrowest, reach)
    }
}

/// Four TLS records: enough to make system calls rare, small enough that a PING doesn't wait behind it.
pub const BATCH: usize = 64 * 1024;
/// Of full sockets. With one TLS record in place of four a download costs the gateway a fifth more CPU, with
/// half of one two thirds more.
const FEW: usize = 32;
const MANY: usize = 256;
/// So many streams of one connection may be held back with windows as wide as its link needs; those beyond share
/// the room of these, which on a short link is far less than the budget.
const WINDOWS: usize = 16;
/// Budgets that may be held where peers don't keep to their windows.
pub(crate) const CEILING: usize = 4;
/// Of what is free each stream of a tunnel that holds too much may hold this part: 128 KiB where one tunnel alone
/// holds too much, which is more than windows leave to as many streams.
const STREAMS: usize = 1024;
/// No single stream gets more than this part of what is left, so that stalled ones converge to the budget.
const SHARES: usize = 2;
/// The protocol's own default (RFC 9113 §6.9.2); below it small responses need a second round trip, which on a
/// short link is nothing: there it is the reach, divided by [`NARROWER`].
pub(crate) const NARROWEST: u32 = 64 * 1024;
pub(crate) const NARROWER: u32 = 32;

#[cfg(test)]
mod tests {
    use crate::h2::window::{FIRST, WIDEST};

    use super::*;

    /// 1,000 readers that stopped: what such a link may hold, and the narrowest window for those beyond it.
    #[test]
    fn stalled_streams_converge_to_the_budget() {
        for (reach, most) in [(WIDEST, 64 << 20), (FIRST, 4 << 20)] {
            let budget = Budget::new(64 << 20).part();
            for streams in 1..=1000 {
                budget.take(budget.share(streams, reach) as usize);
            }
            let narrow = 1000 * (reach / NARROWER).min(NARROWEST) as usize;
            assert!(budget.held() <= most + narrow, "{reach}: {}", budget.held());
        }
    }

    /// Of 256 bytes: what peers hold that take whatever they get.
    #[test]
    fn who_holds_most_gives_way() {
        let whole = Budget::new(64 << 20);
        let greedy = |parts: usize| {
            let mut streams = Vec::new();
            for part in (0..parts).map(|_| whole.part()) {
                for _ in 0..4096 {
                    let mut stream = Held::of(part.clone());
                    while stream.set(stream.bytes + 16_384).is_ok() {}
                    // Its last frame isn't kept.
                    let _ = stream.set(stream.bytes - 16_384);
                    streams.push(stream);
                }
            }
            streams
        };
        for parts in [1, 8] {
            let streams = greedy(parts);
            assert!(whole.held() > 128 << 20, "{parts}: {}", whole.held());
            assert!(whole.held() < 256 << 20, "{parts}: {}", whole.held());
            let mut other = Held::of(whole.part());
            assert_eq!(other.set(64 * 1024), Ok(()), "{parts}");
            drop(streams);
        }
        assert_eq!(whole.held(), 0);
    }

    #[test]
    fn what_is_held_of_one_connection_narrows_another_only_where_little_is_left() {
        let whole = Budget::new(64 << 20);
        let (far, near) = (whole.part(), whole.part());
        far.take(32 << 20);
        assert_eq!(near.share(1, FIRST), FIRST);
        assert_eq!(near.share(16, FIRST), FIRST);
        assert_eq!(far.share(2, WIDEST), 16 << 20);
        far.take(32 << 20);
        assert_eq!(near.share(1, FIRST), FIRST / NARROWER);
        far.give_back(64 << 20);
        assert_eq!((far.held(), whole.held()), (0, 0));
    }

    #[test]
    fn sockets_are_handed_little_where_many_are_full() {
        let budget = Budget::new(64 << 20);
        let mut full = Vec::new();
        for (sockets, batch) in [(31, 64), (32, 16), (255, 16), (256, 8), (10_000, 8)] {
            full.resize_with(sockets, || budget.full());
            assert_eq!(budget.batch(), batch * 1024, "{sockets}");
        }
        full.truncate(31);
        let part = budget.part();
        assert!(part.is_calm());
        full.push(part.full());
        assert!(!budget.is_calm());
    }
}
