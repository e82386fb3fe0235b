//! How much is kept for delivery, by all and by each.
//!
//! Invariant: no route and no address has more than what is left for everybody else. So one that floods
//! gets half, two get a third each, and there is always something left for the next.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Respond;
use crate::share::network;
use crate::site::Site;

/// The room of one gateway.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Loads>);

#[derive(Debug, Default)]
struct Loads {
    all: Load,
    sites: HashMap<Site, Load>,
    addresses: HashMap<IpAddr, Load>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Load {
    requests: usize,
    bytes: usize,
}

impl Room {
    /// A place for one more request, which weighs so many bytes so far.
    pub(super) fn take(
        self: &Arc<Self>,
        site: &Site,
        address: IpAddr,
        bytes: usize,
    ) -> Option<Place> {
        let (site, address) = (site.clone(), network(address));
        let fits = self.lock().add(&site, address, Load { requests: 1, bytes });
        fits.then(|| Place { room: self.clone(), site, address, bytes })
    }

    /// Requests and bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        let all = self.lock().all;
        (all.requests, all.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Loads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loads {
    /// Adds `more`, if it fits.
    fn add(&mut self, site: &Site, address: IpAddr, more: Load) -> bool {
        let all = self.all.plus(more);
        let left = |limit: usize, held: usize| limit.checked_sub(held);
        let (Some(requests), Some(bytes)) = (left(REQUESTS, all.requests), left(BYTES, all.bytes))
        else {
            return false;
        };
        let left = Load { requests, bytes };
        let had = [self.sites.get(site), self.addresses.get(&address)];
        if !had.into_iter().all(|had| had.copied().unwrap_or_default().may_grow(more, left)) {
            return false;
        }
        self.all = all;
        for had in [
            self.sites.entry(site.clone()).or_default(),
            self.addresses.entry(address).or_default(),
        ] {
            *had = had.plus(more);
        }
        true
    }

    fn give_back(&mut self, site: &Site, address: &IpAddr, less: Load) {
        self.all = self.all.minus(less);
        lessen(&mut self.sites, site, less);
        lessen(&mut self.addresses, address, less);
    }
}

fn lessen<K: Eq + Hash>(loads: &mut HashMap<K, Load>, key: &K, less: Load) {
    if let Some(load) = loads.get_mut(key) {
        *load = load.minus(less);
        if *load == Load::default() {
            loads.remove(key);
        }
    }
}

impl Load {
    fn plus(self, more: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(less.requests),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }

    /// Whether who has this much may have `more`, after which so much is `left` in all.
    fn may_grow(self, more: Self, left: Self) -> bool {
        let then = self.plus(more);
        (more.requests == 0 || then.requests <= left.requests)
            && (more.bytes == 0 || then.bytes <= left.bytes)
    }
}

/// One request's place, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    site: Site,
    address: IpAddr,
    bytes: usize,
}

impl Place {
    /// Takes so many bytes more. False if there is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.lock().add(&self.site, self.address, Load { requests: 0, bytes });
        if fits {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        fits
    }

    /// Gives so many bytes back.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.lock().give_back(&self.site, &self.address, Load { requests: 0, bytes });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let all = Load { requests: 1, bytes: self.bytes };
        self.room.lock().give_back(&self.site, &self.address, all);
    }
}

/// Each waiting request costs a task beside its bytes.
pub(super) const REQUESTS: usize = 1000;
/// Small beside the budget of bodies under way, since this may be full for hours; a thousand webhooks of
/// the usual size.
pub(super) const BYTES: usize = 16 << 20;
/// The largest body, whatever a route allows.
pub(super) const LARGEST: usize = Respond::LARGEST;
const _: () = assert!(LARGEST <= BYTES / 4);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn site(n: usize) -> Site {
        Site::Route(n.to_string())
    }

    fn address(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    fn flood(room: &Arc<Room>, site: &Site, address: impl Fn(usize) -> IpAddr) -> Vec<Place> {
        (0..).map_while(|n| room.take(site, address(n), 100)).collect()
    }

    #[test]
    fn one_route_gets_half_and_the_next_a_half_of_the_rest() {
        let room = Arc::new(Room::default());
        let one = flood(&room, &site(1), |n| address(n as u8));
        assert_eq!(one.len(), 500);
        let two = flood(&room, &site(2), |n| address(n as u8));
        assert_eq!(two.len(), 250);
        assert_eq!(flood(&room, &site(3), |n| address(n as u8)).len(), 125);
        drop((one, two));
        assert_eq!(room.held(), (0, 0));
        let loads = room.lock();
        assert!(loads.sites.is_empty() && loads.addresses.is_empty(), "nothing is remembered");
    }

    #[test]
    fn one_address_gets_half_over_all_routes() {
        let room = Arc::new(Room::default());
        let places: Vec<_> = (0..).map_while(|n| room.take(&site(n % 7), address(1), 1)).collect();
        assert_eq!(places.len(), 500);
        assert!(room.take(&site(0), address(2), 1).is_some());
    }

    #[test]
    fn bytes_are_bounded_like_requests() {
        let room = Arc::new(Room::default());
        let mut place = room.take(&site(1), address(1), 0).unwrap();
        let steps = (0..).take_while(|_| place.grow(1 << 20)).count();
        assert_eq!(steps, 8);
        let mut other = room.take(&site(2), address(2), LARGEST).unwrap();
        assert!(!other.grow(1));
        place.shrink(8 << 20);
        assert!(other.grow(1));
        drop(place);
        drop(other);
        assert_eq!(room.held(), (0, 0));
    }
}
