//! How many streams of a route's tunnels one address has, so that it can't have them all.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::{Counter, Gauge};

use ptth_link::lock::Mutex;

/// What all connections of one address have of one pool.
#[derive(Debug)]
pub struct Share {
    /// See [`super::network`].
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
/// the next address finds something. `room` counts all streams and those that are free, and is called only if needed.
/// The thousands of visitors behind a carrier's address rarely need more at once. False if there are no tunnels.
pub(crate) fn is_used_up(taken: usize, room: impl FnOnce() -> (usize, usize)) -> bool {
    taken >= SMALL && {
        let (room, free) = room();
        room > 0 && taken >= free
    }
}

/// How many streams of one tunnel each address has, whatever pools they were taken from. No more
/// addresses than streams.
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
