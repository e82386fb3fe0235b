//! What a connection holds of the process, until it ends or the tunnel that it became does.

use std::future::{Future, pending};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::ConnectionLimit;
use crate::quota::{Gauge, Permit};

/// The permit of one connection, and the gateway's wait for its end when draining. Dropping it frees the permit. The
/// default counts for no limit: the connections of tests and of programs that embed the gateway.
#[derive(Debug, Default)]
pub struct ConnectionPermit {
    pub(super) limit: Option<ConnectionLimit>,
    pub(super) slot: Arc<Slot>,
    /// The address that it counts for; a trusted proxy's connection has none until the proxy names one.
    pub(super) network: OnceLock<IpAddr>,
    /// A trusted proxy passes bytes through without naming the visitor: the fields in them aren't the proxy's word.
    opaque: AtomicBool,
    unframed: AtomicBool,
    /// A gateway that drains waits while this sender exists.
    awaited: Mutex<Option<mpsc::Sender<()>>>,
}

/// What a permit means to others, who may need it more.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Of one kept for backends: when it ends, if no key is proven.
    pub(super) until: Option<Instant>,
    /// Told when the permit goes to another connection.
    lost: Notify,
    /// Its connection speaks like a visitor's.
    pub(super) visitor: AtomicBool,
    taken: AtomicBool,
    /// Requests under way, or what became of them.
    busy: Gauge,
}

impl Slot {
    /// One that ends then, if no key is proven.
    pub(super) fn lent(until: Instant) -> Arc<Self> {
        Arc::new(Self { until: Some(until), ..Self::default() })
    }

    /// Gives the permit to another connection.
    pub(super) fn lose(&self) {
        self.taken.store(true, Ordering::Relaxed);
        self.lost.notify_one();
    }

    /// Whether the permit went to another connection.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.held() == 0
    }
}

impl ConnectionPermit {
    pub(super) fn new(
        limit: &ConnectionLimit,
        slot: Arc<Slot>,
        network: Option<IpAddr>,
    ) -> Arc<Self> {
        let network = network.map(OnceLock::from).unwrap_or_default();
        let (opaque, unframed, awaited) = Default::default();
        Arc::new(Self { limit: Some(limit.clone()), slot, network, opaque, unframed, awaited })
    }

    /// Has a gateway that drains wait for this connection.
    pub fn await_end(&self, awaited: Option<mpsc::Sender<()>>) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = awaited;
    }

    /// It carries nothing but tunnels from now on, which aren't waited for: they end when the visitors are gone.
    pub fn leave_to_tunnels(&self) {
        self.await_end(None);
    }

    /// Says that a proxy passes bytes through without naming the visitor.
    pub fn set_opaque(&self) {
        self.opaque.store(true, Ordering::Relaxed);
    }

    /// Whether a trusted proxy brings the bytes without vouching for them.
    pub fn is_opaque(&self) -> bool {
        self.opaque.load(Ordering::Relaxed)
    }

    /// Its last response has neither length nor chunks: the end of the connection is that of the body
    /// (RFC 9112 §6.3), and must not look orderly before.
    pub fn ends_with_response(&self) {
        self.unframed.store(true, Ordering::Relaxed);
    }

    /// Whether that was said.
    pub fn is_unframed(&self) -> bool {
        self.unframed.load(Ordering::Relaxed)
    }

    /// A request is under way, or what became of it, until this is dropped.
    pub fn busy(&self) -> Option<Permit> {
        self.limit.as_ref().map(|_| self.slot.busy.permit())
    }

    /// Whether it is one of those kept for backends, and no key was proven on it yet.
    pub fn is_reserved(&self) -> bool {
        self.reserve().is_some_and(|limit| limit.lock().reserve.has(&self.slot))
    }

    /// Its connection speaks like a visitor's: if it is reserved, others come first.
    pub fn stand_back(&self) {
        self.reserve().into_iter().for_each(|limit| limit.lock().reserve.stand_back(&self.slot));
    }

    /// Whether its peer asked to be a backend and isn't one.
    pub fn is_unearned(&self) -> bool {
        self.slot.until.is_some() && !self.slot.visitor.load(Ordering::Relaxed)
    }

    /// A backend is in on this connection. If it is `proven` by what it showed (of an open gateway anybody is one), its
    /// network comes first when permits are rare.
    pub fn earn(&self, proven: bool) {
        let Some(limit) = &self.limit else { return };
        let mut counts = limit.lock();
        let network = self.network.get().copied();
        counts.reserve.settle(&self.slot);
        counts.keep(network, &self.slot);
        network.filter(|_| proven).into_iter().for_each(|it| counts.reserve.prove(it));
    }

    /// Runs what has this permit. `None`: it is cut off, since others need the permit more, or it is reserved for
    /// backends, and this one proved no key in time. Cancel safe if `work` is.
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
            // Before another request is taken: the other connection is there already.
            biased;
            () = self.slot.lost.notified() => None,
            done = work => Some(done),
            () = over => None,
        }
    }

    /// The limit, if this permit ever was of its reserve.
    fn reserve(&self) -> Option<&ConnectionLimit> {
        self.limit.as_ref().filter(|_| self.slot.until.is_some())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(limit) = &self.limit {
            limit.lock().leave(self.network.get().copied(), &self.slot);
        }
    }
}
