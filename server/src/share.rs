//! How many streams of a route's tunnels one address has, so that it can't have them all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

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
    returned: Notify,
}

/// One of them. Dropping it gives it back.
#[derive(Debug)]
pub struct Part {
    share: Share,
    /// How many there were when it was taken: of two takers at once one comes after the other.
    pub before: usize,
}

impl Share {
    /// How many there are.
    pub fn taken(&self) -> usize {
        self.inner.taken.load(Ordering::Relaxed)
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

/// Whether an address that has `taken` streams has its part of so much room: half of it, which `room`
/// counts only if it comes to that. A carrier's thousands behind one address rarely need more at once;
/// whoever holds streams without reading leaves the other half to everybody else. Where there is no
/// room at all, that is the answer, and not somebody's share of it.
pub fn is_used_up(taken: usize, room: impl FnOnce() -> usize) -> bool {
    taken >= SMALL && {
        let room = room();
        room > 0 && taken >= room / 2
    }
}

/// How many streams of one tunnel each address has, whatever pools they were taken from. No more
/// addresses than streams.
#[derive(Debug, Default)]
pub struct Tally(Mutex<HashMap<IpAddr, usize>>);

impl Tally {
    /// How many this one has.
    pub fn of(&self, share: &Share) -> usize {
        self.lock().get(&share.address).copied().unwrap_or(0)
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
const SMALL: usize = 32;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_gets_half_and_never_less_than_a_page() {
        let shares = Shares::default();
        let share = shares.of(Ipv4Addr::LOCALHOST.into());
        let parts: Vec<_> = (0..32).map(|_| share.part()).collect();
        assert!(is_used_up(share.taken(), || 40));
        assert!(is_used_up(share.taken(), || 64));
        assert!(!is_used_up(share.taken(), || 66));
        assert!(!is_used_up(share.taken(), || 0), "nobody is kept from there being no backend");
        drop(parts);
        assert!(!is_used_up(share.taken(), || 0));
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
