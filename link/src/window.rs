//! How large a window the streams of one connection get: one budget for the process, shared out.
//!
//! HTTP/2 has no window for a single stream that may be lowered later, but SETTINGS_INITIAL_WINDOW_SIZE
//! moves the windows of all streams of a connection, the open ones too (RFC 9113 §6.9.2). So the window
//! follows what is left: wide while few streams are open and their readers keep up, which a long
//! fat link needs; narrow when many are open or readers stall, which memory needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes that bodies hold in this process, and how many they may.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The window for each of `streams` streams: a power of two between the two bounds.
    fn share(&self, streams: usize) -> u32 {
        let left = self.limit.saturating_sub(self.held());
        let share = left / streams.max(SHARES);
        let share = u32::try_from(share).unwrap_or(WIDEST).clamp(NARROWEST, WIDEST);
        1 << share.ilog2()
    }
}

/// The window of one connection's streams, as last announced.
#[derive(Debug)]
pub struct Window {
    budget: Arc<Budget>,
    announced: u32,
    changed: Instant,
    received: u64,
}

impl Window {
    /// Starts at `announced`, which the first SETTINGS frame of the connection carries.
    pub fn new(budget: Arc<Budget>, announced: u32) -> Self {
        Self { budget, announced, changed: Instant::now(), received: 0 }
    }

    /// A first window as wide as the budget allows: for a tunnel, which is few and long-lived.
    pub fn widest(budget: &Budget) -> u32 {
        budget.share(SHARES)
    }

    /// The window to announce now that `streams` are open and so many bytes were `received` on the
    /// connection in all, where it differs enough from the last one.
    ///
    /// Lowered at once, since memory can't wait. Raised where the peer used up the window since the last
    /// change, and once a second at most, so that a connection whose streams come and go doesn't answer
    /// each of them with a SETTINGS frame.
    pub fn adjust(&self, streams: usize, received: u64) -> Option<u32> {
        let wanted = self.budget.share(streams);
        let lower = wanted <= self.announced / 2;
        let raise = wanted > self.announced
            && received.saturating_sub(self.received) >= u64::from(self.announced)
            && self.changed.elapsed() >= RAISE_INTERVAL;
        (lower || raise).then_some(wanted)
    }

    /// To be called when the peer was sent the window that [`Window::adjust`] returned.
    pub fn announce(&mut self, window: u32, received: u64) {
        self.announced = window;
        self.changed = Instant::now();
        self.received = received;
    }
}

/// No single stream gets more than this part of what is left, so that stalled ones converge to the budget.
const SHARES: usize = 2;
/// 1 Gbit/s at 100 ms is 12.5 MB under way, and as much again is credited late: h2 tells the sender of a third
/// of the window at a time. With 16 MiB such a download reached 69 to 87 % of plain TCP's rate.
const WIDEST: u32 = 32 * 1024 * 1024;
/// The protocol's own default (RFC 9113 §6.9.2); below it small responses need a second round trip.
const NARROWEST: u32 = 64 * 1024;
const RAISE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_window_follows_what_is_left() {
        let budget = Budget::new(64 << 20);
        let mut window = Window::new(budget.clone(), Window::widest(&budget));
        assert_eq!(window.announced, WIDEST);
        assert_eq!(window.adjust(1, 0), None);
        assert_eq!(window.adjust(64, 0), Some(1 << 20), "lowered at once");
        window.announce(1 << 20, 0);
        assert_eq!(window.adjust(1, 1 << 20), None, "not raised within the second");
        tokio::time::advance(RAISE_INTERVAL).await;
        assert_eq!(window.adjust(1, 1000), None, "not raised while it isn't the limit");
        assert_eq!(window.adjust(1, 1 << 20), Some(WIDEST));
        budget.take(64 << 20);
        assert_eq!(window.adjust(1, 1 << 20), Some(NARROWEST), "nothing is left");
        budget.give_back(32 << 20);
        assert_eq!(window.adjust(1, 1 << 20), Some(16 << 20));
    }

    #[test]
    fn stalled_streams_converge_to_the_budget() {
        let budget = Budget::new(64 << 20);
        for streams in 1..=1000 {
            budget.take(budget.share(streams) as usize);
        }
        // 1,000 readers that stopped: the budget, and the narrowest window for those beyond it.
        assert!(budget.held() <= (64 << 20) + 1000 * NARROWEST as usize, "{}", budget.held());
    }
}
