//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::share::network;

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
}

/// A connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    caps: Caps,
    /// Whose it is; a trusted proxy's is nobody's until it says whose.
    address: Option<IpAddr>,
    /// A proxy that passes bytes through didn't say whose: what is in them isn't its word.
    opaque: bool,
    number: usize,
}

impl Caps {
    /// What the operator said, or what the process's descriptors allow.
    pub fn new(limits: &Limits) -> Self {
        let descriptors = descriptor_limit();
        let visitors = limits.connections.unwrap_or(descriptors * 8 / 10);
        let per_address = limits.connections_per_address.unwrap_or(visitors.div_ceil(4));
        // Visitors can't take the last places: a backend that comes back must find one.
        let all = visitors + RESERVE.min(descriptors / 10);
        Self(Arc::new(Inner { visitors, all, per_address, counts: Mutex::default() }))
    }

    /// A place for a connection from `address`, if there is one.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        self.take_proxied()?.of(address)
    }

    /// A place for a connection from a trusted proxy, which brings many visitors, if there is one.
    pub fn take_proxied(&self) -> Option<Place> {
        let mut counts = self.lock();
        if counts.all >= self.0.all {
            return None;
        }
        counts.all += 1;
        let (address, number) = (None, counts.all);
        Some(Place { caps: self.clone(), address, opaque: false, number })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The same place, for who it turned out to be for; `None` if he has enough.
    pub fn of(mut self, address: IpAddr) -> Option<Self> {
        let address = network(address);
        let mut counts = self.caps.lock();
        let here = counts.addresses.entry(address).or_default();
        if *here >= self.caps.0.per_address {
            return None;
        }
        *here += 1;
        drop(counts);
        self.address = Some(address);
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

    /// Whether it is one of those kept for backends.
    pub fn is_reserved(&self) -> bool {
        self.number > self.caps.0.visitors
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.caps.lock();
        counts.all = counts.all.saturating_sub(1);
        let Some(address) = self.address else { return };
        if let Some(here) = counts.addresses.get_mut(&address) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                counts.addresses.remove(&address);
            }
        }
    }
}

/// The soft limit on open files. There is no other way to read it without unsafe code.
fn descriptor_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(USUAL_DESCRIPTORS)
}

const USUAL_DESCRIPTORS: usize = 1024;
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
        let _a = caps.take(one).unwrap();
        let b = caps.take("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(caps.take(one).is_none());
        assert!(caps.take("192.0.2.2".parse().unwrap()).is_some());
        drop(b);
        assert!(caps.take(one).is_some());
        let v6 =
            ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|a| caps.take(a.parse().unwrap()));
        assert!(v6[1].is_some() && v6[2].is_none(), "one /64 is one address");
    }

    #[test]
    fn backends_have_a_reserve() {
        let caps = caps(2, 100);
        let places: Vec<_> =
            (0..4).filter_map(|n| caps.take(IpAddr::from([192, 0, 2, n]))).collect();
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
        let _c = caps.take(one).unwrap();
        assert_eq!(caps.lock().all, 2, "places that were refused are free again");
    }

    #[test]
    fn this_process_has_a_limit() {
        assert!(descriptor_limit() >= 64);
    }
}
