//! How many connections there may be, in all and from one address.

mod reserve;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ptth_link::descriptors;
use tokio::select;
use tokio::time::sleep_until;

use crate::config::Limits;
use crate::share::network;
use reserve::{Reserve, Seat};

/// Counts the connections of all shards.
#[derive(Clone, Debug)]
pub struct Caps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    visitors: usize,
    all: usize,
    per_address: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    addresses: HashMap<IpAddr, usize>,
    reserve: Reserve,
}

/// A connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    /// A proxy that passes bytes through didn't say whose: what is in them isn't its word.
    opaque: bool,
    stake: Stake,
}

/// What somebody must do for a place, without holding it.
#[derive(Clone, Debug)]
pub struct Stake {
    caps: Caps,
    /// Whose it is; a trusted proxy's is nobody's until it says whose.
    network: Option<IpAddr>,
    /// One of those kept for backends: to be earned.
    seat: Option<Arc<Seat>>,
}

impl Caps {
    /// What the operator said, or what the process's descriptors allow.
    pub fn new(limits: &Limits) -> Self {
        let descriptors = descriptors::limit();
        let visitors = limits.connections.unwrap_or(descriptors * 8 / 10);
        let per_address = limits.connections_per_address.unwrap_or(visitors.div_ceil(4));
        // Visitors can't take the last places: a backend that comes back must find one.
        let all = visitors + RESERVE.min(descriptors / 10);
        Self(Arc::new(Inner { visitors, all, per_address, counts: Mutex::default() }))
    }

    /// A place for a connection from `address`, if there is one; of those kept for backends only if it `may_earn` it.
    pub fn take(&self, address: IpAddr, may_earn: impl FnOnce() -> bool) -> Option<Place> {
        self.place(Some(network(address)), may_earn)
    }

    /// A place for a connection from a trusted proxy, which brings many visitors, if there is one.
    pub fn take_proxied(&self) -> Option<Place> {
        self.place(None, || true)
    }

    fn place(&self, network: Option<IpAddr>, may_earn: impl FnOnce() -> bool) -> Option<Place> {
        let mut counts = self.lock();
        if network.is_some_and(|network| counts.of(network) >= self.0.per_address) {
            return None;
        }
        let full = counts.all >= self.0.all;
        let reserved = counts.all >= self.0.visitors;
        if reserved && !may_earn() {
            return None;
        }
        let seat = if reserved { Some(counts.reserve.seat(network, full)?) } else { None };
        // Where all places are taken, it has that of somebody else.
        counts.all += usize::from(!full);
        network.into_iter().for_each(|network| *counts.addresses.entry(network).or_default() += 1);
        let stake = Stake { caps: self.clone(), network, seat };
        Some(Place { opaque: false, stake })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn of(&self, network: IpAddr) -> usize {
        self.addresses.get(&network).copied().unwrap_or(0)
    }
}

impl Place {
    /// The same place, for who it turned out to be for; `None` if he has enough.
    pub fn of(mut self, address: IpAddr) -> Option<Self> {
        let network = network(address);
        let caps = self.stake.caps.clone();
        let mut counts = caps.lock();
        let seated = self.stake.seat.iter().all(|seat| counts.reserve.name(seat, network));
        if !seated || counts.of(network) >= caps.0.per_address {
            drop(counts);
            return None;
        }
        *counts.addresses.entry(network).or_default() += 1;
        self.stake.network = Some(network);
        Some(self)
    }

    /// The same, for bytes that a proxy passes through without saying whose they are.
    #[must_use]
    pub fn opaque(mut self) -> Self {
        self.opaque = true;
        self
    }

    /// Whether nobody vouches for what comes.
    pub fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Whether it is one of those kept for backends, and nobody has earned it yet.
    pub fn is_reserved(&self) -> bool {
        self.stake.seat.as_ref().is_some_and(|seat| self.stake.caps.lock().reserve.has(seat))
    }

    /// Who has it speaks like a visitor: if it is reserved, others come before him.
    pub fn stand_back(&self) {
        if let Some(seat) = &self.stake.seat {
            self.stake.caps.lock().reserve.stand_back(seat);
        }
    }

    /// What is to be done for it.
    pub fn stake(&self) -> Stake {
        self.stake.clone()
    }
}

impl Stake {
    /// The same, for a backend whom nothing that it showed let in: of an open gateway anybody is one.
    #[must_use]
    pub fn without_proof(mut self) -> Self {
        self.network = None;
        self
    }

    /// A backend is in on this connection. Its network comes first when places are rare.
    pub fn earn(&self) {
        let mut counts = self.caps.lock();
        self.seat.iter().for_each(|seat| counts.reserve.settle(seat));
        if let Some(network) = self.network {
            counts.reserve.prove(network);
        }
    }

    /// Whether somebody wanted to be a backend by it, and isn't one.
    pub fn is_unearned(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| !seat.visitor.load(Ordering::Relaxed))
    }

    /// Runs what has this place. `None`: it is cut off, since the place is reserved for backends, and this one proved no
    /// key in time or made room for another. Cancel safe if `work` is.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let Some(seat) = &self.seat else { return Some(work.await) };
        let lost = async {
            select! {
                () = seat.lost.notified() => {}
                () = sleep_until(seat.until) => if !self.caps.lock().reserve.has(seat) {
                    pending().await
                }
            }
        };
        select! {
            biased;
            done = work => Some(done),
            () = lost => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let stake = &self.stake;
        let mut counts = stake.caps.lock();
        let taken = stake.seat.as_ref().is_some_and(|seat| counts.reserve.give_back(seat));
        if !taken {
            counts.all = counts.all.saturating_sub(1);
        }
        let Some(network) = stake.network else { return };
        if let Some(here) = counts.addresses.get_mut(&network) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                counts.addresses.remove(&network);
            }
        }
    }
}

const RESERVE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(connections: usize, per_address: usize) -> Caps {
        Caps::new(&Limits {
            connections: Some(connections),
            connections_per_address: Some(per_address),
            ..Limits::default()
        })
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let caps = caps(10, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let _a = caps.take(one, || true).unwrap();
        let b = caps.take("::ffff:192.0.2.1".parse().unwrap(), || true).unwrap();
        assert!(caps.take(one, || true).is_none());
        assert!(caps.take("192.0.2.2".parse().unwrap(), || true).is_some());
        drop(b);
        assert!(caps.take(one, || true).is_some());
        let v6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
            .map(|a| caps.take(a.parse().unwrap(), || true));
        assert!(v6[1].is_some() && v6[2].is_none(), "one /64 is one address");
    }

    #[test]
    fn backends_have_a_reserve() {
        let caps = caps(2, 100);
        let places: Vec<_> =
            (0..4).filter_map(|n| caps.take(IpAddr::from([192, 0, 2, n]), || true)).collect();
        let reserved: Vec<_> = places.iter().map(Place::is_reserved).collect();
        assert_eq!(reserved, [false, false, true, true]);
    }

    #[test]
    fn a_trusted_proxy_brings_many_addresses() {
        let caps = caps(10, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let places: Vec<_> = (0..5).map(|_| caps.take_proxied().unwrap()).collect();
        let mut settled = places.into_iter().map(|place| place.of(one));
        let (_a, b) = (settled.next().unwrap().unwrap(), settled.next().unwrap().unwrap());
        assert!(settled.all(|place| place.is_none()), "two of an address");
        drop(b);
        let _c = caps.take(one, || true).unwrap();
        assert_eq!(caps.lock().all, 2, "places that were refused are free again");
    }
}
