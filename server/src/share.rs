//! How many streams of a route's tunnels one address has, so that it can't have them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
            addresses.shares.retain(|_, share| Arc::strong_count(&share.0) > 1);
            addresses.full = (addresses.shares.len() * 2).max(KEPT);
        }
        addresses.shares.entry(network(address)).or_default().clone()
    }
}

/// One subscriber has a whole /64 of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

/// The streams of all connections of one address.
#[derive(Clone, Debug, Default)]
pub struct Share(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    taken: AtomicUsize,
    returned: Notify,
}

/// One of them. Dropping it gives it back.
#[derive(Debug)]
pub struct Part(Share);

impl Share {
    /// Whether the address has taken its part of so much room: half of it, which `room` counts only if
    /// it comes to that. A carrier's thousands behind one address rarely need more at once; whoever holds
    /// streams without reading leaves the other half to everybody else.
    pub fn is_used_up(&self, room: impl FnOnce() -> usize) -> bool {
        let taken = self.0.taken.load(Ordering::Relaxed);
        taken >= SMALL && taken >= room() / 2
    }

    /// Waits until a part is given back.
    pub fn returned(&self) -> Notified<'_> {
        self.0.returned.notified()
    }

    /// Takes a part.
    pub fn part(&self) -> Part {
        self.0.taken.fetch_add(1, Ordering::Relaxed);
        Part(self.clone())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let inner = &self.0.0;
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
    use super::*;

    #[test]
    fn an_address_gets_half_and_never_less_than_a_page() {
        let share = Share::default();
        let parts: Vec<_> = (0..32).map(|_| share.part()).collect();
        assert!(share.is_used_up(|| 40));
        assert!(share.is_used_up(|| 64));
        assert!(!share.is_used_up(|| 66));
        drop(parts);
        assert!(!share.is_used_up(|| 0));
    }
}
