//! Limits of what an address or a credential may hold: connections, streams, attempts, webhooks.
//!
//! Invariant: what is taken is given back by a drop, and a subscriber counts once: an IPv4 address, or a
//! whole /64 of IPv6.

mod attempts;
mod connections;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ptth_link::lock::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::{Notified, OwnedNotified};
use tokio::time::Instant;

pub use attempts::Attempts;
pub(crate) use connections::{ConnectionLimit, ConnectionPermit};

/// The address that an address is counted as: one subscriber has a whole /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    held: AtomicUsize,
    freed: Notify,
}

impl Gauge {
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }

    pub fn permit(&self) -> Permit {
        let before = self.0.held.fetch_add(1, Ordering::SeqCst);
        Permit { gauge: self.clone(), before }
    }

    pub fn take(&self, most: usize) -> Option<Permit> {
        let permit = self.permit();
        (permit.before < most).then_some(permit)
    }

    pub fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

/// The right to hold one unit of something. Dropping it gives the unit back.
#[must_use = "dropping it gives it back"]
#[derive(Debug)]
pub struct Permit {
    gauge: Gauge,
    /// How many there were when it was taken: of two takers at once one comes after the other.
    pub before: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.0.held.fetch_sub(1, Ordering::SeqCst);
        self.gauge.0.freed.notify_one();
    }
}

/// How much each key holds, in one or several units. A key that holds nothing isn't remembered.
#[derive(Debug)]
pub(crate) struct Counter<K, const N: usize = 1>(HashMap<K, [usize; N]>);

impl<K, const N: usize> Default for Counter<K, N> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, const N: usize> Counter<K, N> {
    pub(crate) fn of(&self, key: &K) -> [usize; N] {
        self.0.get(key).copied().unwrap_or([0; N])
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &[usize; N]> {
        self.0.values()
    }

    pub(crate) fn add(&mut self, key: K, more: [usize; N]) {
        let held = self.0.entry(key).or_insert([0; N]);
        held.iter_mut().zip(more).for_each(|(held, more)| *held = held.saturating_add(more));
    }

    pub(crate) fn sub(&mut self, key: &K, less: [usize; N]) {
        let Some(held) = self.0.get_mut(key) else { return };
        held.iter_mut().zip(less).for_each(|(held, less)| *held = held.saturating_sub(less));
        if *held == [0; N] {
            self.0.remove(key);
        }
    }
}

/// The value of a key, or a new one. Values without another reference are forgotten when the table would grow.
pub(crate) fn shared<K: Eq + Hash, V>(
    known: &mut HashMap<K, Arc<V>>,
    key: K,
    make: impl FnOnce() -> Arc<V>,
) -> Arc<V> {
    if known.len() == known.capacity() && !known.contains_key(&key) {
        known.retain(|_, value| Arc::strong_count(value) > 1);
        // Otherwise the next one might look at all of them again.
        known.reserve(known.len() + 1);
    }
    known.entry(key).or_insert_with(make).clone()
}

/// Keys that were noted in the last `SECONDS`. Of more than `MOST` the oldest is forgotten.
#[derive(Debug)]
pub(crate) struct Recent<K, const MOST: usize, const SECONDS: u64>(HashMap<K, Instant>);

impl<K, const MOST: usize, const SECONDS: u64> Default for Recent<K, MOST, SECONDS> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, const MOST: usize, const SECONDS: u64> Recent<K, MOST, SECONDS> {
    pub(crate) fn note(&mut self, key: K) {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(key, Instant::now());
    }

    pub(crate) fn has(&self, key: &K) -> bool {
        self.0.get(key).is_some_and(|at| at.elapsed() < Duration::from_secs(SECONDS))
    }

    pub(crate) fn forget(&mut self, key: &K) {
        self.0.remove(key);
    }
}

/// What all connections of one address have of one pool.
#[derive(Debug)]
pub struct Share {
    /// See [`network`].
    pub address: IpAddr,
    pub streams: Gauge,
    pub waiting: Gauge,
}

impl Share {
    pub(crate) fn new(address: IpAddr) -> Arc<Self> {
        let (streams, waiting) = Default::default();
        Arc::new(Self { address, streams, waiting })
    }
}

/// True once an address holds [`SMALL`] streams and as many as are still free, which is half of what the others left:
/// the next address finds something. `room` counts all streams and those that are free. False without tunnels.
pub(crate) fn is_used_up(taken: usize, room: impl FnOnce() -> (usize, usize)) -> bool {
    taken >= SMALL && {
        let (room, free) = room();
        room > 0 && taken >= free
    }
}

/// How many streams of one tunnel each address has, whatever pools they were taken from.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Mutex<Counter<IpAddr>>,
    pressed: Arc<Notify>,
    /// How many streams are to end.
    wanted: AtomicUsize,
    /// Only addresses that hold at least so many streams are asked to give one up.
    least: AtomicUsize,
}

impl Tally {
    pub(crate) fn of(&self, share: &Share) -> usize {
        self.counts.lock().of(&share.address)[0]
    }

    /// Asks `wanted` streams whose visitors don't read to end: at the first `turn` those of the largest holders,
    /// at each further one those of addresses with half as many, too.
    pub(crate) fn press(&self, wanted: usize, turn: u32) {
        let largest = self.counts.lock().all().map(|[count]| *count).max().unwrap_or(0);
        self.least.store(largest.checked_shr(turn + 1).unwrap_or(0), Ordering::Relaxed);
        self.wanted.store(wanted, Ordering::Relaxed);
        self.pressed.notify_waiters();
    }

    pub(crate) fn pressed(&self) -> OwnedNotified {
        self.pressed.clone().notified_owned()
    }

    /// Whether it is this address that is asked, if it has more than `most`; each answer of yes counts.
    pub(crate) fn yields(&self, share: &Share, most: usize) -> bool {
        let less = |wanted: usize| wanted.checked_sub(1);
        self.of(share) > self.least.load(Ordering::Relaxed).max(most)
            && self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    pub(crate) fn enter(&self, share: &Share) {
        self.counts.lock().add(share.address, [1]);
    }

    pub(crate) fn leave(&self, share: &Share) {
        self.counts.lock().sub(&share.address, [1]);
    }
}

/// What any address may have, however little room there is: a browser's page.
pub(crate) const SMALL: usize = 32;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_is_not_held_is_not_remembered() {
        let mut counter = Counter::<_, 2>::default();
        counter.add("a", [1, 10]);
        counter.add("a", [1, 0]);
        counter.sub(&"a", [1, 10]);
        assert_eq!((counter.of(&"a"), counter.of(&"b")), ([1, 0], [0, 0]));
        counter.sub(&"a", [1, 0]);
        assert!(counter.all().next().is_none());
    }

    #[test]
    fn a_permit_is_given_back_by_its_drop() {
        let gauge = Gauge::default();
        let (one, two) = (gauge.take(2), gauge.take(2));
        assert!(one.is_some() && two.is_some() && gauge.take(2).is_none());
        drop(one);
        assert_eq!(gauge.held(), 1);
        assert!(gauge.take(2).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_noted_is_known_for_a_while_and_the_oldest_is_forgotten_first() {
        let mut recent = Recent::<_, 3, 60>::default();
        for key in 0..4 {
            recent.note(key);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!([0, 1, 2, 3].map(|key| recent.has(&key)), [false, true, true, true]);
        recent.note(1);
        recent.note(4);
        assert_eq!([1, 2, 3, 4].map(|key| recent.has(&key)), [true, false, true, true]);
        tokio::time::advance(Duration::from_secs(59)).await;
        recent.note(4);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([1, 3, 4].map(|key| recent.has(&key)), [false, false, true]);
        recent.forget(&4);
        assert!(!recent.has(&4));
        assert_eq!(recent.0.len(), 2, "bounded");
    }

    #[test]
    fn a_value_is_the_same_as_long_as_anybody_has_it() {
        let mut known = HashMap::new();
        let kept = shared(&mut known, 0, || Arc::new(0));
        for n in 1..=1000 {
            drop(shared(&mut known, n, || Arc::new(n)));
        }
        assert!(known.len() < 20, "{}", known.len());
        assert!(Arc::ptr_eq(&kept, &shared(&mut known, 0, || Arc::new(1))));
        let all: Vec<_> = (0..1000).map(|n| shared(&mut known, n, || Arc::new(n))).collect();
        assert!(all.iter().enumerate().all(|(n, value)| **value == n));
    }

    #[test]
    fn an_address_gets_half_and_never_less_than_a_page() {
        let share = Share::new(Ipv4Addr::LOCALHOST.into());
        let parts: Vec<_> = (0..32).map(|_| share.streams.permit()).collect();
        assert!(is_used_up(share.streams.held(), || (40, 8)));
        assert!(is_used_up(share.streams.held(), || (64, 32)));
        assert!(!is_used_up(share.streams.held(), || (66, 34)));
        assert!(
            !is_used_up(share.streams.held(), || (0, 0)),
            "nobody is kept from there being no backend"
        );
        drop(parts);
        assert!(!is_used_up(share.streams.held(), || (40, 0)));
    }

    /// What addresses that take all they can leave, down to a page for each.
    #[test]
    fn each_further_address_gets_half_of_what_is_free() {
        let mut free = 4096_usize;
        for left in [2048, 1024, 512, 256, 128, 64, 32] {
            let mut taken = 0;
            while !is_used_up(taken, || (4096, free)) {
                (taken, free) = (taken + 1, free - 1);
            }
            assert_eq!(free, left);
        }
    }

    #[test]
    fn the_largest_holders_yield_first_and_no_more_than_are_wanted() {
        let tally = Tally::default();
        let [large, small] = [1, 2].map(|n| Share::new(Ipv4Addr::new(192, 0, 2, n).into()));
        (0..40).for_each(|_| tally.enter(&large));
        (0..5).for_each(|_| tally.enter(&small));
        assert!(!tally.yields(&large, 0), "nobody asks");
        tally.press(2, 0);
        assert_eq!(
            [&small, &large, &large, &large].map(|it| tally.yields(it, 0)),
            [false, true, true, false]
        );
        tally.press(1, 2);
        assert!(!tally.yields(&small, 0));
        tally.press(1, 3);
        assert!(!tally.yields(&Share::new(Ipv4Addr::new(192, 0, 2, 3).into()), 0));
        assert!(tally.yields(&small, 0));
    }

    #[test]
    fn a_tally_forgets_who_has_nothing() {
        let tally = Tally::default();
        let [one, other] = [1, 2].map(|n| Share::new(Ipv4Addr::new(192, 0, 2, n).into()));
        tally.enter(&one);
        tally.enter(&one);
        assert_eq!((tally.of(&one), tally.of(&other)), (2, 0));
        tally.leave(&one);
        tally.leave(&one);
        assert!(tally.counts.lock().all().next().is_none());
    }
}
