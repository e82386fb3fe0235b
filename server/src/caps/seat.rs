//! What a connection's place means to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A place that its holder may lose to somebody who has fewer.
#[derive(Debug)]
pub(super) struct Seat {
    /// Of one kept for backends: when it ends, if no key is proven.
    pub(super) until: Option<Instant>,
    /// Told when somebody else has it.
    pub(super) lost: Notify,
    /// Whoever has it speaks like a visitor.
    pub(super) visitor: AtomicBool,
    taken: AtomicBool,
    /// Requests under way, or what became of them.
    busy: AtomicUsize,
}

/// What a connection does that its end would break off.
#[derive(Debug)]
pub struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// One for good, or for so long.
    pub(super) fn new(lent: Option<Duration>) -> Arc<Self> {
        let until = lent.map(|lent| Instant::now() + lent);
        let (lost, visitor, taken, busy) = Default::default();
        Arc::new(Self { until, lost, visitor, taken, busy })
    }

    /// It is somebody else's from now on.
    pub(super) fn lose(&self) {
        self.taken.store(true, Ordering::Relaxed);
        self.lost.notify_one();
    }

    /// Whether it is somebody else's.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Something is under way.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }
}
