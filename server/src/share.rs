//! How many streams of a route's tunnels one address has, so that it can't have them all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::{Notified, OwnedNotified};

/// The addresses that have streams of one pool.
#[derive(Debug, Default)]
pub struct Shares(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    shares: HashMap<IpAddr, Share>,
    /// How many there are when those without a stream are thrown out next.
    full: usize,
}

impl Shares {
    /// What an address has.
    pub fn of(&self, address: IpAddr) -> Share {
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.shares.len() >= addresses.full {
            addresses.shares.retain(|_, share| Arc::strong_count(&share.inner) > 1);
            addresses.full = (addresses.shares.len() * 2).max(KEPT);
        }
        let address = network(address);
        let fresh = || Share { inner: Arc::default(), address };
        addresses.shares.entry(address).or_insert_with(fresh).clone()
    }
}

/// One subscriber has a whole /64 of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// The streams of all connections of one address, in one pool.
#[derive(Clone, Debug)]
pub struct Share {
    inner: Arc<Inner>,
    /// Whose it is; one for a whole [`network`].
    pub address: IpAddr,
}

#[derive(Debug, Default)]
struct Inner {
    taken: AtomicUsize,
    waiting: AtomicUsize,
    returned: Notify,
}

/// One of them. Dropping it gives it back.
#[derive(Debug)]
pub struct Part {
    /// What it is a part of.
    pub share: Share,
    /// How many there were when it was taken: of two takers at once one comes after the other.
    pub before: usize,
}

impl Share {
    /// How many there are.
    pub fn taken(&self) -> usize {
        self.inner.taken.load(Ordering::Relaxed)
    }

    /// Counts the requests that wait for a part.
    pub fn waiting(&self) -> &AtomicUsize {
        &self.inner.waiting
    }

    /// Waits until a part is given back.
    pub fn returned(&self) -> Notified<'_> {
        self.inner.returned.notified()
    }

    /// Takes a part.
    pub fn part(&self) -> Part {
        let before = self.inner.taken.fetch_add(1, Ordering::Relaxed);
        Part { share: self.clone(), before }
    }
}

/// Whether an address that has `taken` streams has its part of the room: as many as are free, so that it is half
/// of what the others left, and the next address finds something. `room` counts all streams and those that are
/// free, and only if it comes to that. A carrier's thousands behind one address rarely need more at once. Where
/// there is no room at all, that is the answer, and not an address's share of it.
pub fn is_used_up(taken: usize, room: impl FnOnce() -> (usize, usize)) -> bool {
    taken >= SMALL && {
        let (room, free) = room();
        room > 0 && taken >= free
    }
}

/// How many streams of one tunnel each address has, whatever pools they were taken from. No more
/// addresses than streams.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<HashMap<IpAddr, usize>>,
    pressed: Arc<Notify>,
    /// How many streams are to end.
    wanted: AtomicUsize,
    /// How many an address has at least whose streams are to end.
    least: AtomicUsize,
}

impl Tally {
    /// How many this one has.
    pub fn of(&self, share: &Share) -> usize {
        self.lock().get(&share.address).copied().unwrap_or(0)
    }

    /// Asks `wanted` streams whose visitors don't read to end: at the first `turn` those of the largest holders,
    /// at each further one those of addresses with half as many, too.
    pub fn press(&self, wanted: usize, turn: u32) {
        let largest = self.lock().values().max().copied().unwrap_or(0);
        self.least.store(largest.checked_shr(turn + 1).unwrap_or(0), Ordering::Relaxed);
        self.wanted.store(wanted, Ordering::Relaxed);
        self.pressed.notify_waiters();
    }

    /// Waits until streams are asked to end.
    pub fn pressed(&self) -> OwnedNotified {
        self.pressed.clone().notified_owned()
    }

    /// Whether it is this address that is asked, if it has more than `most`; each answer of yes counts.
    pub fn yields(&self, share: &Share, most: usize) -> bool {
        let less = |wanted: usize| wanted.checked_sub(1);
        self.of(share) > self.least.load(Ordering::Relaxed).max(most)
            && self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// It takes one.
    pub fn enter(&self, share: &Share) {
        *self.lock().entry(share.address).or_default() += 1;
    }

    /// It gives one back.
    pub fn leave(&self, part: &Part) {
        let mut counts = self.lock();
        if let Entry::Occupied(mut count) = counts.entry(part.share.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let inner = &self.share.inner;
        inner.taken.fetch_sub(1, Ordering::Relaxed);
        inner.returned.notify_one();
    }
}

/// Addresses without a stream that are remembered, to look at all of them only now and then.
const KEPT: usize = 1024;
/// What any address may have, however little room there is: a browser's page.
pub const SMALL: usize = 32;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_gets_half_and_never_less_than_a_page() {
        let shares = Shares::default();
        let share = shares.of(Ipv4Addr::LOCALHOST.into());
        let parts: Vec<_> = (0..32).map(|_| share.part()).collect();
        assert!(is_used_up(share.taken(), || (40, 8)));
        assert!(is_used_up(share.taken(), || (64, 32)));
        assert!(!is_used_up(share.taken(), || (66, 34)));
        assert!(
            !is_used_up(share.taken(), || (0, 0)),
            "nobody is kept from there being no backend"
        );
        drop(parts);
        assert!(!is_used_up(share.taken(), || (40, 0)));
    }

    /// B9: what addresses that take all they can leave, down to a page for each.
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

    /// B9
    #[test]
    fn the_largest_holders_yield_first_and_no_more_than_are_wanted() {
        let (shares, tally) = (Shares::default(), Tally::default());
        let [large, small] = [1, 2].map(|n| shares.of(Ipv4Addr::new(192, 0, 2, n).into()));
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
        assert!(!tally.yields(&shares.of(Ipv4Addr::new(192, 0, 2, 3).into()), 0));
        assert!(tally.yields(&small, 0));
    }

    #[test]
    fn a_tally_forgets_who_has_nothing() {
        let (shares, tally) = (Shares::default(), Tally::default());
        let [one, other] = [1, 2].map(|n| shares.of(Ipv4Addr::new(192, 0, 2, n).into()));
        let part = one.part();
        tally.enter(&one);
        tally.enter(&one);
        assert_eq!((tally.of(&one), tally.of(&other)), (2, 0));
        tally.leave(&part);
        tally.leave(&part);
        assert!(tally.lock().is_empty());
    }
}
