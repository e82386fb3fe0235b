//! How many connections there may be, in all and from one address.

mod reserve;
mod seat;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::warn;
use ptth_link::descriptors;
use tokio::select;
use tokio::time::{Instant, sleep_until};

use crate::config::Limits;
use crate::share::network;
use reserve::Reserve;
use seat::Seat;

pub use seat::Busy;

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
    networks: HashMap<IpAddr, Holding>,
    reserve: Reserve,
    /// When the log was told last that all places are taken.
    told: Option<Instant>,
}

/// What one network holds.
#[derive(Debug, Default)]
struct Holding {
    count: usize,
    /// Those of visitors, the oldest first.
    seats: Vec<Arc<Seat>>,
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
    seat: Arc<Seat>,
    /// Whether a backend that is in has shown something.
    proves: bool,
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
        let own = network.map_or(0, |network| counts.of(network));
        if network.is_some() && own >= self.0.per_address {
            return None;
        }
        let full = counts.all >= self.0.visitors;
        if full {
            counts.tell(self.0.visitors);
        }
        let seat = if !full {
            counts.all += 1;
            Seat::new(None)
        } else if network.is_some() && counts.make_room(own, self.0.visitors / HOG) {
            Seat::new(None)
        } else if may_earn() {
            let full = counts.all >= self.0.all;
            let seat = counts.reserve.seat(network, full)?;
            // Where all places are taken, it has that of somebody else.
            counts.all += usize::from(!full);
            seat
        } else {
            return None;
        };
        network.into_iter().for_each(|network| counts.enter(network, &seat));
        Some(Place {
            opaque: false,
            stake: Stake { caps: self.clone(), network, seat, proves: true },
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn of(&self, network: IpAddr) -> usize {
        self.networks.get(&network).map_or(0, |holding| holding.count)
    }

    fn enter(&mut self, network: IpAddr, seat: &Arc<Seat>) {
        let holding = self.networks.entry(network).or_default();
        holding.count += 1;
        if seat.until.is_none() || !self.reserve.has(seat) {
            holding.seats.push(seat.clone());
        }
    }

    /// Whether somebody gives way to one whose network holds `own` places: who is there for longest, without a
    /// request, of the network that holds most. One that holds `hog` places loses others, too.
    fn make_room(&mut self, own: usize, hog: usize) -> bool {
        let Some(most) = self.networks.values_mut().max_by_key(|holding| holding.seats.len())
        else {
            return false;
        };
        if most.seats.len() < own + 2 {
            return false;
        }
        let idle = most.seats.iter().position(|seat| seat.is_idle());
        let Some(index) = idle.or((most.seats.len() > hog).then_some(0)) else { return false };
        most.seats.remove(index).lose();
        true
    }

    /// It is no visitor's any more.
    fn keep(&mut self, network: Option<IpAddr>, seat: &Arc<Seat>) {
        let holding = network.and_then(|network| self.networks.get_mut(&network));
        holding.into_iter().for_each(|it| it.seats.retain(|own| !Arc::ptr_eq(own, seat)));
    }

    /// Once a minute, since it lasts for long if it does at all.
    fn tell(&mut self, visitors: usize) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            warn!("listener: all {visitors} places for visitors are taken (--max-connections)");
        }
    }
}

impl Place {
    /// The same place, for who it turned out to be for; `None` if he has enough.
    pub fn of(mut self, address: IpAddr) -> Option<Self> {
        let network = network(address);
        let caps = self.stake.caps.clone();
        let mut counts = caps.lock();
        let (seat, own) = (&self.stake.seat, counts.of(network));
        let mut fits = own < caps.0.per_address;
        if fits && counts.reserve.has(seat) {
            if counts.make_room(own, caps.0.visitors / HOG) {
                // Both have been counted.
                counts.all = counts.all.saturating_sub(1);
                counts.reserve.settle(seat);
            } else {
                fits = counts.reserve.name(seat, network);
            }
        }
        if !fits {
            drop(counts);
            return None;
        }
        counts.enter(network, seat);
        self.stake.network = Some(network);
        drop(counts);
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
        let seat = &self.stake.seat;
        seat.until.is_some() && self.stake.caps.lock().reserve.has(seat)
    }

    /// Who has it speaks like a visitor: if it is reserved, others come before him.
    pub fn stand_back(&self) {
        if self.stake.seat.until.is_some() {
            self.stake.caps.lock().reserve.stand_back(&self.stake.seat);
        }
    }

    /// Something is under way on the connection, until this is dropped.
    pub fn busy(&self) -> Busy {
        self.stake.seat.busy()
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
        self.proves = false;
        self
    }

    /// A backend is in on this connection. Its network comes first when places are rare.
    pub fn earn(&self) {
        let mut counts = self.caps.lock();
        counts.reserve.settle(&self.seat);
        counts.keep(self.network, &self.seat);
        if let Some(network) = self.network.filter(|_| self.proves) {
            counts.reserve.prove(network);
        }
    }

    /// Whether somebody wanted to be a backend by it, and isn't one.
    pub fn is_unearned(&self) -> bool {
        self.seat.until.is_some() && !self.seat.visitor.load(Ordering::Relaxed)
    }

    /// Runs what has this place. `None`: it is cut off, since others need the place more, or it is reserved for
    /// backends, and this one proved no key in time. Cancel safe if `work` is.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let seat = &self.seat;
        let over = async {
            match seat.until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
            if !self.caps.lock().reserve.has(seat) {
                pending().await
            }
        };
        select! {
            biased;
            done = work => Some(done),
            () = seat.lost.notified() => None,
            () = over => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Stake { caps, network, seat, .. } = &self.stake;
        let mut counts = caps.lock();
        counts.reserve.settle(seat);
        counts.keep(*network, seat);
        if !seat.is_taken() {
            counts.all = counts.all.saturating_sub(1);
        }
        let Some(network) = network else { return };
        if let Some(holding) = counts.networks.get_mut(network) {
            holding.count = holding.count.saturating_sub(1);
            if holding.count == 0 {
                counts.networks.remove(network);
            }
        }
    }
}

const RESERVE: usize = 64;
/// Who holds more than this part of the visitors' places, when all are taken, loses requests, too.
const HOG: usize = 8;
const TELL: Duration = Duration::from_secs(60);

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

    #[tokio::test]
    async fn who_has_fewest_has_the_oldest_idle_place_of_who_has_most() {
        let caps = caps(8, 8);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut places: Vec<_> = (0..6).map(|_| caps.take(address(1), || false).unwrap()).collect();
        let other = (0..2).map(|_| caps.take(address(2), || false).unwrap());
        places.extend(other);
        let busy = places[0].busy();
        let of = |place: &Place| place.stake.seat.is_taken();
        let third = caps.take(address(3), || false).expect("room");
        let lost: Vec<_> = (0..8).filter(|n| of(&places[*n])).collect();
        assert_eq!(lost, [1], "who is there for longest, without a request");
        assert!(places[1].stake().hold(pending::<()>()).await.is_none());
        drop(places.remove(1));
        assert_eq!(caps.lock().all, 8, "it was somebody else's");
        places[1].stake().earn();
        let fourth = [4, 5].map(|n| caps.take(address(n), || false).expect("room"));
        let lost: Vec<_> = (0..7).filter(|n| of(&places[*n])).collect();
        assert_eq!(lost, [2, 3], "not a backend's");
        // Two of them are left with who has most, one of which is busy, and one new one is no more.
        let fifth = caps.take(address(6), || false).expect("room");
        assert!(caps.take(address(6), || false).is_none(), "all have as few");
        drop((third, fourth, fifth, busy, places));
        assert_eq!(caps.lock().all, 0);
        assert!(caps.lock().networks.is_empty());
    }

    #[test]
    fn who_holds_an_eighth_of_a_full_gateway_loses_requests_too() {
        let caps = caps(16, 16);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let places: Vec<_> =
            (0..16).map(|n| caps.take(address(n % 5), || false).unwrap()).collect();
        let _busy: Vec<_> = places.iter().map(Place::busy).collect();
        let mut newcomers = Vec::new();
        newcomers.extend((10..20).map_while(|n| caps.take(address(n), || false)));
        // 4, 3, 3, 3, 3: down to two each.
        assert_eq!(newcomers.len(), 6);
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
