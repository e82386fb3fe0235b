//! Requests that were acknowledged and are still to be delivered (`respond` of a route).
//!
//! Invariant: what is kept is bounded in number and bytes ([`Backlog`]), from a body's first byte to the
//! end of the last attempt. It is in memory alone: a gateway that ends for good while a backend is
//! away loses it, and says how much.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Respond;
use crate::error::{ExchangeError, RequestId};
use crate::quota::{Counter, network};
use crate::router::RouteId;

use ptth_link::lock::Mutex;

#[derive(Debug)]
pub struct Outbox {
    /// Of requests whose bodies aren't complete yet.
    pub(crate) unread: Arc<Backlog>,
    pub(crate) kept: Arc<Backlog>,
    state: Mutex<State>,
    pub(crate) news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What isn't taken for delivery yet; no more than the backlog holds.
    arrivals: Vec<Delivery>,
    closed: bool,
    counts: Counts,
}

/// What became of the requests so far, each counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Answered at once, to be delivered.
    pub queued: u64,
    /// Not taken for want of room.
    pub refused: u64,
    pub delivered: u64,
    /// Attempts after which another one follows.
    pub retried: u64,
    /// Given up, though their senders were told that they were taken.
    pub dropped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, refused, delivered, retried, dropped } = self;
        write!(f, "queued={queued} refused={refused} delivered={delivered} retried={retried} ")?;
        write!(f, "dropped={dropped}")
    }
}

#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: RequestId,
    pub(crate) address: IpAddr,
    /// As it came, but for the hygiene: its host and path say anew at each attempt where it goes.
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) attempts: u32,
    /// Why the last attempt failed, as the end of a sentence.
    pub(crate) last: String,
    pub(crate) expires: Instant,
    pub(crate) permit: Permit,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            unread: Backlog::new(UNREAD),
            kept: Backlog::new(REQUESTS),
            state: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl Outbox {
    pub(crate) fn push(&self, delivery: Delivery) -> Result<(), ExchangeError> {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Err(self.refuse());
        }
        state.arrivals.push(delivery);
        state.counts.queued += 1;
        self.news.notify_one();
        Ok(())
    }

    pub(crate) fn refuse(&self) -> ExchangeError {
        self.count(|counts| counts.refused += 1);
        ExchangeError::Backlog
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes nothing more: the sender is to try another gateway, or this one after its restart.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    pub(crate) fn arrivals(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.state.lock().arrivals)
    }

    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.state.lock().counts);
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Requests that are kept or read now, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        let [unread, kept] = [&self.unread, &self.kept].map(|backlog| backlog.held());
        (unread[0] + kept[0], unread[1] + kept[1])
    }
}

/// Requests, and their bytes.
type Load = [usize; 2];

/// A route, an address, an address of a route; or with neither, all.
type Holder = (Option<RouteId>, Option<IpAddr>);

/// How much is kept, by all and by each: no route and no address has more than what is left for all others; nor has an
/// address of one route more than the route may still take. So a single flood gets half, and the next one finds room.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Requests, and [`BYTES`].
    limits: Load,
    held: Mutex<Counter<Holder, 2>>,
}

impl Backlog {
    pub(crate) fn new(requests: usize) -> Arc<Self> {
        Arc::new(Self { limits: [requests, BYTES], held: Mutex::default() })
    }

    pub(crate) fn take(
        self: &Arc<Self>,
        route: &RouteId,
        address: IpAddr,
        bytes: usize,
    ) -> Option<Permit> {
        let (route, address) = (route.clone(), network(address));
        let mut permit = Permit { backlog: self.clone(), route, address, load: [0, 0] };
        permit.add([1, bytes]).then_some(permit)
    }

    pub(crate) fn held(&self) -> Load {
        self.held.lock().of(&(None, None))
    }
}

#[derive(Debug)]
pub(crate) struct Permit {
    backlog: Arc<Backlog>,
    route: RouteId,
    address: IpAddr,
    load: Load,
}

impl Permit {
    /// The route that the request was for when it came.
    pub(crate) fn route(&self) -> &RouteId {
        &self.route
    }

    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.add([0, bytes])
    }

    pub(crate) fn moved(self, to: &Arc<Backlog>) -> Option<Self> {
        to.take(&self.route, self.address, self.load[1])
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.load[1]);
        self.load[1] -= bytes;
        self.give_back([0, bytes]);
    }

    fn holders(&self) -> [Holder; 4] {
        let (route, address) = (Some(self.route.clone()), Some(self.address));
        [(None, None), (route.clone(), None), (None, address), (route, address)]
    }

    fn add(&mut self, more: Load) -> bool {
        let (holders, limits) = (self.holders(), self.backlog.limits);
        let mut held = self.backlog.held.lock();
        let before = holders.each_ref().map(|holder| held.of(holder));
        let fits = (0..2).all(|unit| {
            let then = before.map(|load| load[unit].saturating_add(more[unit]));
            let [all, route, address, both] = then;
            let Some(left) = limits[unit].checked_sub(all) else { return false };
            // A route grows until it has as much as is left: half of the difference is what it may still take, the
            // request that is taken now included.
            let part = left.saturating_sub(route) / 2 + usize::from(unit == 0);
            more[unit] == 0 || route <= left && address <= left && both <= part
        });
        if fits {
            holders.into_iter().for_each(|holder| held.add(holder, more));
            self.load = [self.load[0] + more[0], self.load[1] + more[1]];
        }
        fits
    }

    fn give_back(&self, less: Load) {
        let mut held = self.backlog.held.lock();
        self.holders().iter().for_each(|holder| held.sub(holder, less));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.load);
    }
}

/// Each waiting request is looked at whenever a backend comes or an attempt ends.
pub(crate) const REQUESTS: usize = 1000;
/// Small beside the budget of bodies under way, since this may be full for hours; a thousand webhooks of
/// the usual size. The largest body still fits where there are a few others.
pub(crate) const BYTES: usize = 32 << 20;
const _: () = assert!(Respond::LARGEST <= BYTES / 8);
/// Requests whose bodies are under way at a time. An address has a quarter at most.
const UNREAD: usize = 400;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn route(n: usize) -> RouteId {
        RouteId::Name(n.to_string())
    }

    fn address(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    fn any_address(n: usize) -> IpAddr {
        Ipv4Addr::from(0xcb00_7100 + n as u32).into()
    }

    fn flood(
        backlog: &Arc<Backlog>,
        route: &RouteId,
        address: impl Fn(usize) -> IpAddr,
    ) -> Vec<Permit> {
        (0..).map_while(|n| backlog.take(route, address(n), 100)).collect()
    }

    #[test]
    fn one_route_gets_half_and_the_next_a_half_of_the_rest() {
        let backlog = Backlog::new(REQUESTS);
        let one = flood(&backlog, &route(1), any_address);
        assert_eq!(one.len(), 500);
        let two = flood(&backlog, &route(2), any_address);
        assert_eq!(two.len(), 250);
        assert_eq!(flood(&backlog, &route(3), any_address).len(), 125);
        drop((one, two));
        assert_eq!(backlog.held(), [0, 0]);
        assert!(backlog.held.lock().all().next().is_none(), "nothing is remembered");
    }

    #[test]
    fn one_address_gets_half_over_all_routes() {
        let backlog = Backlog::new(REQUESTS);
        let places: Vec<_> =
            (0..).map_while(|n| backlog.take(&route(n % 7), address(1), 1)).collect();
        assert_eq!(places.len(), 500);
        assert!(backlog.take(&route(0), address(2), 1).is_some());
    }

    /// Of one route an address gets half, the next one half of what the route may still take, and so on: a
    /// sender that none of them is finds room.
    #[test]
    fn no_addresses_fill_a_route() {
        let backlog = Backlog::new(REQUESTS);
        let flood = |n| {
            let places = (0..).map_while(|_| backlog.take(&route(1), address(n), 1));
            places.collect::<Vec<_>>()
        };
        let floods: Vec<_> = (1..=5).map(flood).collect();
        let had: Vec<_> = floods.iter().map(Vec::len).collect();
        assert_eq!(had, [250, 125, 63, 31, 16]);
        assert!(backlog.take(&route(1), address(9), 1).is_some());
    }

    #[test]
    fn bytes_are_bounded_like_requests() {
        let backlog = Backlog::new(REQUESTS);
        let mut place = backlog.take(&route(1), address(1), 0).unwrap();
        let steps = (0..).take_while(|_| place.grow(1 << 20)).count();
        assert_eq!(steps, 8, "a quarter: one address of one route");
        let mut others: Vec<_> = (2..)
            .map_while(|n| {
                let mut other = backlog.take(&route(1), address(n), 0).unwrap();
                other.grow(1 << 20).then_some(other)
            })
            .collect();
        assert_eq!(others.len(), 7, "half: one route, of what is left for a share");
        let mut other = backlog.take(&route(2), address(2), Respond::LARGEST).unwrap();
        assert!(!other.grow(1 << 20));
        place.shrink(8 << 20);
        assert!(other.grow(1 << 20));
        others.clear();
        drop(place);
        drop(other);
        assert_eq!(backlog.held(), [0, 0]);
    }
}
