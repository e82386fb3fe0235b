//! How a visitor behaves on one HTTP/2 connection.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::quota::Gauge;

/// Counts the requests that a visitor took back after they had gone to a backend, those that were
/// malformed, and the other streams that it made us reset (MadeYouReset).
#[derive(Debug, Default)]
pub(super) struct Abuse {
    cancelled: AtomicU32,
    answered: AtomicU32,
    provoked: AtomicI32,
    /// Streams that are tunnels, from before their registration is judged to the tunnel's end: [`NESTED`] at most.
    pub(super) tunnels: Gauge,
    /// A trusted proxy's, which brings many visitors: what one of them takes back isn't the others' fault.
    shared: bool,
}

impl Abuse {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, ..Self::default() }
    }

    /// A browser that leaves a page takes back what is under way; an attacker takes back everything.
    pub(super) fn is_bad(&self) -> bool {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        !self.shared
            && cancelled > CANCELLED
            && cancelled / 4 > self.answered.load(Ordering::Relaxed)
            || self.provoked.load(Ordering::Relaxed) > STREAM_ERRORS
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that isn't well formed. The reset that it gets is counted here alone.
    pub(super) fn malformed(&self) {
        self.cancelled();
        self.provoked.fetch_sub(1, Ordering::Relaxed);
    }

    /// A reset for which the visitor is to blame.
    pub(super) fn provoked(&self) {
        self.provoked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn forgive(&self) {
        self.cancelled.store(0, Ordering::Relaxed);
        self.provoked.store(0, Ordering::Relaxed);
    }
}

/// Tunnels inside one connection. A client has one connection for each of its tunnels; more are of use only to
/// save handshakes.
pub(super) const NESTED: usize = 8;
/// Cancelled requests, if they outnumber the answered ones four to one.
const CANCELLED: u32 = 100;
/// Stream errors that a visitor may make us send in the life of a connection (MadeYouReset).
const STREAM_ERRORS: i32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_back_everything_is_bad_unless_he_brings_many() {
        for shared in [false, true] {
            let abuse = Abuse::new(shared);
            (0..=CANCELLED).for_each(|_| abuse.cancelled());
            assert_eq!(abuse.is_bad(), !shared);
        }
    }
}
