//! The permit of a connection, until it ends or the tunnel that it became ends.

use std::future::{Future, pending};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::ConnectionLimit;
use crate::quota::{Gauge, Permit};

use ptth_link::lock::Mutex;

/// The permit of one connection, and the gateway's wait for its end when draining. Dropping it frees the permit. The
/// default counts for no limit: the connections of tests and of programs that embed the gateway.
#[derive(Debug, Default)]
pub struct ConnectionPermit {
    pub(super) limit: Option<Arc<ConnectionLimit>>,
    pub(super) slot: Arc<Slot>,
    /// Set if a trusted proxy passes bytes without naming the visitor: the fields in them aren't the proxy's word.
    pub opaque: OnceLock<()>,
    /// Set if its last response has neither length nor chunks: the end of the connection is that of the body
    /// (RFC 9112 §6.3), and must not look orderly before.
    pub unframed: OnceLock<()>,
    /// A gateway that drains waits while this sender exists.
    pub(super) awaited: Mutex<Option<mpsc::Sender<()>>>,
}

/// The part of a permit that other connections see, which may need it more.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The address that it counts for; a trusted proxy's connection has none until the proxy names one.
    pub(super) network: OnceLock<IpAddr>,
    /// Of one kept for backends: when it ends, if no key is proven.
    pub(super) until: Option<Instant>,
    pub(super) lost: Notify,
    pub(super) visitor: AtomicBool,
    pub(super) taken: AtomicBool,
    /// Requests under way, or what became of them.
    pub(super) busy: Gauge,
}

impl Slot {
    pub(super) fn new(network: Option<IpAddr>, until: Option<Instant>) -> Arc<Self> {
        let network = network.map(OnceLock::from).unwrap_or_default();
        Arc::new(Self { network, until, ..Self::default() })
    }

    pub(super) fn lose(&self) {
        self.taken.store(true, Ordering::Relaxed);
        self.lost.notify_one();
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }
}

impl ConnectionPermit {
    /// Has a gateway that drains wait for this connection; with `None` no longer, since it carries nothing but tunnels,
    /// which end after the visitors.
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

    /// A backend was admitted on this connection. If its credential is `proven` (an open gateway admits any), its network
    /// comes first when permits are rare.
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
