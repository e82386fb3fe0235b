//! How much is kept for delivery, by all and by each.
//!
//! Invariant: no route and no address has more than what is left for everybody else; nor has an address of one
//! route more than the route may still take. So one that floods gets half, two get a third each, and there is
//! always something left for the next.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Respond;
use crate::share::network;
use crate::site::Site;

/// The room of one gateway.
#[derive(Debug)]
pub(super) struct Room {
    /// Requests that fit.
    requests: usize,
    loads: Mutex<Loads>,
}

#[derive(Debug, Default)]
struct Loads {
    all: Load,
    sites: HashMap<Site, Load>,
    addresses: HashMap<IpAddr, Load>,
    /// What each address has of each route.
    shares: HashMap<(Site, IpAddr), Load>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Load {
    requests: usize,
    bytes: usize,
}

impl Room {
    /// A room for so many requests, and [`BYTES`].
    pub(super) fn new(requests: usize) -> Arc<Self> {
        Arc::new(Self { requests, loads: Mutex::default() })
    }

    /// A place for one more request, which weighs so many bytes so far.
    pub(super) fn take(
        self: &Arc<Self>,
        site: &Site,
        address: IpAddr,
        bytes: usize,
    ) -> Option<Place> {
        let (site, address) = (site.clone(), network(address));
        let fits = self.add(&site, address, Load { requests: 1, bytes });
        fits.then(|| Place { room: self.clone(), site, address, bytes })
    }

    /// Requests and bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        let all = self.lock().all;
        (all.requests, all.bytes)
    }

    /// Adds `more`, if it fits.
    fn add(&self, site: &Site, address: IpAddr, more: Load) -> bool {
        let mut loads = self.lock();
        let all = loads.all.plus(more);
        let left = |limit: usize, held: usize| limit.checked_sub(held);
        let left = (left(self.requests, all.requests), left(BYTES, all.bytes));
        let (Some(requests), Some(bytes)) = left else { return false };
        let left = Load { requests, bytes };
        let share = (site.clone(), address);
        let had = |load: Option<&Load>| load.copied().unwrap_or_default();
        let of_site = had(loads.sites.get(site));
        let fits = of_site.may_grow(more, left)
            && had(loads.addresses.get(&address)).may_grow(more, left)
            && had(loads.shares.get(&share)).may_grow(more, left.minus(of_site.plus(more)).half());
        if fits {
            let Loads { all: sum, sites, addresses, shares } = &mut *loads;
            *sum = all;
            for had in [
                sites.entry(site.clone()).or_default(),
                addresses.entry(address).or_default(),
                shares.entry(share).or_default(),
            ] {
                *had = had.plus(more);
            }
        }
        fits
    }

    fn lock(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loads {
    fn give_back(&mut self, site: &Site, address: &IpAddr, less: Load) {
        self.all = self.all.minus(less);
        lessen(&mut self.sites, site, less);
        lessen(&mut self.addresses, address, less);
        lessen(&mut self.shares, &(site.clone(), *address), less);
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

    /// A route grows until it has as much as is left: half of the difference is what it may still take, the
    /// request that is taken now included.
    fn half(self) -> Self {
        Self { requests: self.requests / 2 + 1, bytes: self.bytes / 2 }
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
    /// The site that the request was for when it came.
    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// Takes so many bytes more. False if there is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.add(&self.site, self.address, Load { requests: 0, bytes });
        if fits {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        fits
    }

    /// The same in another room, if that has one.
    pub(super) fn moved(self, room: &Arc<Room>) -> Option<Self> {
        room.take(&self.site, self.address, self.bytes)
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
/// the usual size. The largest body still fits where there are a few others.
pub(super) const BYTES: usize = 32 << 20;
/// The largest body, whatever a route allows.
pub(super) const LARGEST: usize = Respond::LARGEST;
const _: () = assert!(LARGEST <= BYTES / 8);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn site(n: usize) -> Site {
        Site::Name(n.to_string())
    }

    fn address(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    fn any_address(n: usize) -> IpAddr {
        Ipv4Addr::from(0xcb00_7100 + n as u32).into()
    }

    fn flood(room: &Arc<Room>, site: &Site, address: impl Fn(usize) -> IpAddr) -> Vec<Place> {
        (0..).map_while(|n| room.take(site, address(n), 100)).collect()
    }

    #[test]
    fn one_route_gets_half_and_the_next_a_half_of_the_rest() {
        let room = Room::new(REQUESTS);
        let one = flood(&room, &site(1), any_address);
        assert_eq!(one.len(), 500);
        let two = flood(&room, &site(2), any_address);
        assert_eq!(two.len(), 250);
        assert_eq!(flood(&room, &site(3), any_address).len(), 125);
        drop((one, two));
        assert_eq!(room.held(), (0, 0));
        let loads = room.lock();
        assert!(loads.sites.is_empty() && loads.addresses.is_empty(), "nothing is remembered");
        assert!(loads.shares.is_empty());
    }

    #[test]
    fn one_address_gets_half_over_all_routes() {
        let room = Room::new(REQUESTS);
        let places: Vec<_> = (0..).map_while(|n| room.take(&site(n % 7), address(1), 1)).collect();
        assert_eq!(places.len(), 500);
        assert!(room.take(&site(0), address(2), 1).is_some());
    }

    /// E2: of one route an address gets half, the next one half of what the route may still take, and so on: a
    /// sender that none of them is finds room.
    #[test]
    fn no_addresses_fill_a_route() {
        let room = Room::new(REQUESTS);
        let flood = |n| {
            let places = (0..).map_while(|_| room.take(&site(1), address(n), 1));
            places.collect::<Vec<_>>()
        };
        let floods: Vec<_> = (1..=5).map(flood).collect();
        let had: Vec<_> = floods.iter().map(Vec::len).collect();
        assert_eq!(had, [250, 125, 63, 31, 16]);
        assert!(room.take(&site(1), address(9), 1).is_some());
    }

    #[test]
    fn bytes_are_bounded_like_requests() {
        let room = Room::new(REQUESTS);
        let mut place = room.take(&site(1), address(1), 0).unwrap();
        let steps = (0..).take_while(|_| place.grow(1 << 20)).count();
        assert_eq!(steps, 8, "a quarter: one address of one route");
        let mut others: Vec<_> = (2..)
            .map_while(|n| {
                let mut other = room.take(&site(1), address(n), 0).unwrap();
                other.grow(1 << 20).then_some(other)
            })
            .collect();
        assert_eq!(others.len(), 7, "half: one route, of what is left for a share");
        let mut other = room.take(&site(2), address(2), LARGEST).unwrap();
        assert!(!other.grow(1 << 20));
        place.shrink(8 << 20);
        assert!(other.grow(1 << 20));
        others.clear();
        drop(place);
        drop(other);
        assert_eq!(room.held(), (0, 0));
    }
}
