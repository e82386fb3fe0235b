//! How a visitor behaves on one HTTP/2 connection.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Counts the requests that a visitor took back after they had gone to a backend, and those that were
/// malformed, which make us send the reset (MadeYouReset).
#[derive(Debug, Default)]
pub(super) struct Conduct {
    cancelled: AtomicU32,
    answered: AtomicU32,
    /// Streams that are tunnels now.
    pub(super) tunnels: AtomicUsize,
}

impl Conduct {
    /// A browser that leaves a page takes back what is under way; an attacker takes back everything.
    pub(super) fn is_bad(&self) -> bool {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        cancelled > CANCELLED && cancelled / 4 > self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn forgive(&self) {
        self.cancelled.store(0, Ordering::Relaxed);
    }
}

/// Cancelled requests, if they outnumber the answered ones four to one.
const CANCELLED: u32 = 100;
