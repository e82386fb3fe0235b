//! The connection limit: how many connections there may be, in all and from one address, and which one gives way.

mod reserve;

use std::collections::HashMap;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::warn;
use ptth_link::limits;
use ptth_link::lock::{Mutex, MutexGuard};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::{Counter, Gauge, Permit, network};
use crate::config::Limits;
use reserve::Reserve;

#[derive(Debug)]
pub struct ConnectionLimit {
    visitors: usize,
    all: usize,
    per_address: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    networks: Counter<IpAddr>,
    /// Of visitors, the oldest of each network first.
    visitors: HashMap<IpAddr, Vec<Arc<Slot>>>,
    reserve: Reserve,
    /// When the log was told last.
    told: Option<Instant>,
}

impl ConnectionLimit {
    /// The operator's limits, or those that the process's descriptors allow.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let descriptors = limits::descriptors();
        let visitors = limits.connections.unwrap_or(descriptors * 8 / 10);
        let per_address = limits.connections_per_address.unwrap_or(visitors.div_ceil(4));
        // Visitors can't take the last permits: a backend that comes back must find one.
        let all = visitors + RESERVE.min(descriptors / 10);
        Arc::new(Self { visitors, all, per_address, counts: Mutex::default() })
    }

    /// A permit for a connection, without an `address` for a trusted proxy's; of those kept for backends if it
    /// `may_earn` it.
    pub fn take(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        may_earn: impl FnOnce() -> bool,
    ) -> Option<Arc<ConnectionPermit>> {
        let network = address.map(network);
        let mut counts = self.lock();
        let own = network.map_or(0, |network| counts.networks.of(&network)[0]);
        if network.is_some() && own >= self.per_address {
            return None;
        }
        let full = counts.all >= self.visitors;
        if full {
            counts.tell(self.visitors);
        }
        let slot = if !full {
            counts.all += 1;
            Slot::new(network, None)
        } else if network.is_some() && counts.make_room(own, self.visitors / HOG) {
            Slot::new(network, None)
        } else {
            let full = counts.all >= self.all;
            let slot = may_earn().then(|| counts.reserve.slot(network, full)).flatten()?;
            // With all permits taken, it has the permit of another connection.
            counts.all += usize::from(!full);
            slot
        };
        network.into_iter().for_each(|network| counts.enter(network, &slot));
        let ([opaque, unframed], awaited) = Default::default();
        Some(Arc::new(ConnectionPermit {
            limit: Some(self.clone()),
            slot,
            opaque,
            unframed,
            awaited,
        }))
    }

    /// The connections that there are, and how many there may be.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.lock().all, self.all)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock()
    }
}

impl Counts {
    fn enter(&mut self, network: IpAddr, slot: &Arc<Slot>) {
        self.networks.add(network, [1]);
        if slot.until.is_none() || !self.reserve.has(slot) {
            self.visitors.entry(network).or_default().push(slot.clone());
        }
    }

    /// Whether another connection gives way to one of a network that holds `own` permits: the oldest one without a
    /// request, of the network that holds most permits. A network that holds more than `hog` loses busy ones, too.
    fn make_room(&mut self, own: usize, hog: usize) -> bool {
        let most = self.visitors.values_mut().max_by_key(|slots| slots.len());
        let Some(most) = most.filter(|most| most.len() >= own + 2) else { return false };
        let idle = most.iter().position(|slot| slot.busy.held() == 0);
        let Some(index) = idle.or((most.len() > hog).then_some(0)) else { return false };
        most.remove(index).lose();
        true
    }

    fn keep(&mut self, slot: &Arc<Slot>) {
        let Some(network) = slot.network.get() else { return };
        let Some(slots) = self.visitors.get_mut(network) else { return };
        slots.retain(|own| !Arc::ptr_eq(own, slot));
        if slots.is_empty() {
            self.visitors.remove(network);
        }
    }

    fn leave(&mut self, slot: &Arc<Slot>) {
        self.reserve.settle(slot);
        self.keep(slot);
        if !slot.is_taken() {
            self.all = self.all.saturating_sub(1);
        }
        slot.network.get().into_iter().for_each(|network| self.networks.sub(network, [1]));
    }

    /// Once a minute, since it lasts for long if it does at all.
    fn tell(&mut self, visitors: usize) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            warn!("listener: all {visitors} places for visitors are taken (--max-connections)");
        }
    }
}

/// The permit of one connection, and the gateway's wait for its end when draining. Dropping it frees the permit. The
/// default counts for no limit: the connections of tests and of programs that embed the gateway.
#[derive(Debug, Default)]
pub struct ConnectionPermit {
    limit: Option<Arc<ConnectionLimit>>,
    slot: Arc<Slot>,
    /// Set if a trusted proxy passes bytes without naming the visitor: the fields in them aren't the proxy's word.
    pub opaque: OnceLock<()>,
    /// Set if its last response has neither length nor chunks: the end of the connection is that of the body
    /// (RFC 9112 §6.3), and must not look orderly before.
    pub unframed: OnceLock<()>,
    /// A gateway that drains waits while this sender exists.
    awaited: Mutex<Option<mpsc::Sender<()>>>,
}

/// The part of a permit that other connections see, which may need it more.
#[derive(Debug, Default)]
struct Slot {
    /// The address that it counts for; a trusted proxy's connection has none until the proxy names one.
    network: OnceLock<IpAddr>,
    /// Of one kept for backends: when it ends, if no key is proven.
    until: Option<Instant>,
    lost: Notify,
    visitor: AtomicBool,
    taken: AtomicBool,
    /// Requests under way, or what became of them.
    busy: Gauge,
}

impl Slot {
    fn new(network: Option<IpAddr>, until: Option<Instant>) -> Arc<Self> {
        let network = network.map(OnceLock::from).unwrap_or_default();
        Arc::new(Self { network, until, ..Self::default() })
    }

    fn lose(&self) {
        self.taken.store(true, Ordering::Relaxed);
        self.lost.notify_one();
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }
}

impl ConnectionPermit {
    /// Says which address's connection a trusted proxy brings. False if that address has enough.
    pub fn is_for(&self, address: IpAddr) -> bool {
        let (Some(limit), network) = (&self.limit, network(address)) else { return true };
        let (mut counts, hog) = (limit.lock(), limit.visitors / HOG);
        let [own] = counts.networks.of(&network);
        let mut fits = own < limit.per_address;
        if fits && counts.reserve.has(&self.slot) {
            if counts.make_room(own, hog) {
                // Both have been counted.
                counts.all = counts.all.saturating_sub(1);
                counts.reserve.settle(&self.slot);
            } else {
                fits = counts.reserve.has_room(network);
            }
        }
        if fits && self.slot.network.set(network).is_ok() {
            counts.enter(network, &self.slot);
        }
        fits
    }

    /// Has a gateway that drains wait for this connection; with `None`, once it carries tunnels alone, no longer.
    pub fn await_end(&self, awaited: Option<mpsc::Sender<()>>) {
        *self.awaited.lock() = awaited;
    }

    /// Marks the connection busy while a request, or the upgraded connection that it became, is under way.
    pub fn busy(&self) -> Option<Permit> {
        self.limit.as_ref().map(|_| self.slot.busy.permit())
    }

    /// Whether it is one of those kept for backends, and no key was proven on it yet.
    pub fn is_reserved(&self) -> bool {
        let limit = self.limit.as_ref().filter(|_| self.slot.until.is_some());
        limit.is_some_and(|limit| limit.lock().reserve.has(&self.slot))
    }

    /// Its connection speaks like a visitor's: if it is reserved, others come first.
    pub fn stand_back(&self) {
        self.slot.visitor.store(true, Ordering::Relaxed);
    }

    pub fn is_unearned(&self) -> bool {
        self.slot.until.is_some() && !self.slot.visitor.load(Ordering::Relaxed)
    }

    /// A backend was admitted. If its credential is `proven` (an open gateway admits any), its network comes first from
    /// now on.
    pub fn earn(&self, proven: bool) {
        let Some(limit) = &self.limit else { return };
        let mut counts = limit.lock();
        counts.reserve.settle(&self.slot);
        counts.keep(&self.slot);
        let network = self.slot.network.get().filter(|_| proven);
        network.into_iter().for_each(|network| counts.reserve.prove(*network));
    }

    /// Runs the connection that has this permit. `None`: it is cut off, since another one needs the permit more, or the
    /// permit is kept for backends, and no key was proven in time. Cancel safe if `work` is.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            match self.slot.until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
            if !self.is_reserved() {
                pending().await
            }
        };
        select! {
            // Before another request is taken: the other connection waits already.
            biased;
            () = self.slot.lost.notified() => None,
            done = work => Some(done),
            () = over => None,
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(limit) = &self.limit {
            limit.lock().leave(&self.slot);
        }
    }
}

/// Permits that visitors can't have.
const RESERVE: usize = 64;
/// A network that holds more than this part of the visitors' permits, when all are taken, loses busy connections, too.
const HOG: usize = 8;
const TELL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(connections: usize, per_address: usize) -> Arc<ConnectionLimit> {
        ConnectionLimit::new(&Limits {
            connections: Some(connections),
            connections_per_address: Some(per_address),
            ..Limits::default()
        })
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let limit = limit(10, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let _a = limit.take(Some(one), || true).unwrap();
        let b = limit.take(Some("::ffff:192.0.2.1".parse().unwrap()), || true).unwrap();
        assert!(limit.take(Some(one), || true).is_none());
        assert!(limit.take(Some("192.0.2.2".parse().unwrap()), || true).is_some());
        drop(b);
        assert!(limit.take(Some(one), || true).is_some());
        let v6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
            .map(|a| limit.take(Some(a.parse().unwrap()), || true));
        assert!(v6[1].is_some() && v6[2].is_none(), "one /64 is one address");
    }

    #[test]
    fn backends_have_a_reserve() {
        let limit = limit(2, 100);
        let permits: Vec<_> = (0..4)
            .filter_map(|n| limit.take(Some(IpAddr::from([192, 0, 2, n])), || true))
            .collect();
        let reserved: Vec<_> = permits.iter().map(|permit| permit.is_reserved()).collect();
        assert_eq!(reserved, [false, false, true, true]);
    }

    #[tokio::test]
    async fn who_has_fewest_has_the_oldest_idle_place_of_who_has_most() {
        let limit = limit(8, 8);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut permits: Vec<_> =
            (0..6).map(|_| limit.take(Some(address(1)), || false).unwrap()).collect();
        let other = (0..2).map(|_| limit.take(Some(address(2)), || false).unwrap());
        permits.extend(other);
        let busy = permits[0].busy();
        let of = |permit: &Arc<ConnectionPermit>| permit.slot.is_taken();
        let third = limit.take(Some(address(3)), || false).expect("room");
        let lost: Vec<_> = (0..8).filter(|n| of(&permits[*n])).collect();
        assert_eq!(lost, [1], "who is there for longest, without a request");
        assert!(permits[1].hold(pending::<()>()).await.is_none());
        drop(permits.remove(1));
        assert_eq!(limit.lock().all, 8, "it was somebody else's");
        permits[1].earn(true);
        let fourth = [4, 5].map(|n| limit.take(Some(address(n)), || false).expect("room"));
        let lost: Vec<_> = (0..7).filter(|n| of(&permits[*n])).collect();
        assert_eq!(lost, [2, 3], "not a backend's");
        // Two of them are left with who has most, one of which is busy, and one new one is no more.
        let fifth = limit.take(Some(address(6)), || false).expect("room");
        assert!(limit.take(Some(address(6)), || false).is_none(), "all have as few");
        drop((third, fourth, fifth, busy, permits));
        assert_eq!(limit.lock().all, 0);
        assert!(limit.lock().networks.all().next().is_none() && limit.lock().visitors.is_empty());
    }

    #[test]
    fn who_holds_an_eighth_of_a_full_gateway_loses_requests_too() {
        let limit = limit(16, 16);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let permits: Vec<_> =
            (0..16).map(|n| limit.take(Some(address(n % 5)), || false).unwrap()).collect();
        let _busy: Vec<_> = permits.iter().map(|permit| permit.busy()).collect();
        let mut newcomers = Vec::new();
        newcomers.extend((10..20).map_while(|n| limit.take(Some(address(n)), || false)));
        // 4, 3, 3, 3, 3: down to two each.
        assert_eq!(newcomers.len(), 6);
    }

    #[test]
    fn a_trusted_proxy_brings_many_addresses() {
        let limit = limit(10, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let permits: Vec<_> = (0..5).map(|_| limit.take(None, || true).unwrap()).collect();
        let mut settled = permits.into_iter().map(|permit| permit.is_for(one).then_some(permit));
        let (_a, b) = (settled.next().unwrap().unwrap(), settled.next().unwrap().unwrap());
        assert!(settled.all(|permit| permit.is_none()), "two of an address");
        drop(b);
        let _c = limit.take(Some(one), || true).unwrap();
        assert_eq!(limit.lock().all, 2, "permits that were refused are free again");
    }
}
