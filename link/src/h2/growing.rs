//! A window that only grows, for peers that aren't ours.
//!
//! In:  the bytes that came, and the shortest round trip. Out: a larger window, where the rate needs it.
//!
//! Invariant: no lower window is ever announced. A browser acknowledges one at once, though DATA that the one
//! before allowed still waits in its queue; to enforce the lower one would break off its uploads (RFC 9113 §6.9.3).
//! So memory is bounded by what was granted: the connection's window, which is taken out of the process's budget
//! before it is announced, and given back when the connection is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;
use crate::h2::window::LATE_CREDIT;

/// How much a connection was granted beyond its first window, and the rate at which it uses it.
#[derive(Debug)]
pub(crate) struct Growing {
    budget: Arc<Budget>,
    first: u32,
    widest: u32,
    /// How many of its streams' windows the grant covers.
    windows: u32,
    granted: usize,
    round_trip: Option<Duration>,
    since: Instant,
    received: u64,
}

impl Growing {
    pub(crate) fn new(budget: Arc<Budget>, (first, widest): (u32, u32), windows: u32) -> Self {
        let since = Instant::now();
        Self { budget, first, widest, windows, granted: 0, round_trip: None, since, received: 0 }
    }

    pub(crate) fn reach(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip);
    }

    /// The window to announce after `announced`. A reader that is slow makes the rate low, and so the window.
    pub(crate) fn adjust(&mut self, announced: u32, received: u64) -> Option<u32> {
        let came = received.saturating_sub(self.received);
        if came < u64::from(announced) {
            // It isn't what limits the peer.
            return None;
        }
        let round_trip = self.round_trip?.min(LONGEST);
        let took = self.since.elapsed();
        if took < INTERVAL.max(round_trip) {
            return None;
        }
        (self.since, self.received) = (Instant::now(), received);
        let rate = came as f64 / took.as_secs_f64();
        let needed = rate * (round_trip.as_secs_f64() * LATE_CREDIT + TURN.as_secs_f64());
        // Saturates.
        let needed = (needed as u32).min(self.widest);
        let wider = |window: u32| window >= announced / 4 * 5;
        if !wider(needed) {
            return None;
        }
        let windows = self.windows as usize;
        let wanted = needed.saturating_sub(self.first) as usize * windows;
        // What was granted for a window that couldn't be announced yet is still there.
        let more = wanted.saturating_sub(self.granted);
        self.granted += self.budget.grant(self.granted, more);
        let granted = self.first + u32::try_from(self.granted / windows).unwrap_or(0);
        Some(granted.min(needed)).filter(|window| wider(*window))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.budget.revoke(self.granted);
    }
}

/// For how long the rate is measured, at least: long enough that what waited in the kernel is no rate.
const INTERVAL: Duration = Duration::from_millis(50);
/// What a turn takes beside the way: on a short link a window has to last from one wake-up to the next.
const TURN: Duration = Duration::from_millis(4);
/// A peer may say that it is as far as it likes.
const LONGEST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::window::Window;

    const FIRST: u32 = 64 * 1024;

    /// The window of a peer that sends `rate` bytes a second, as far as its window lets it, for ten seconds.
    async fn settled(window: &mut Window, rate: f64, round_trip: Duration) -> u32 {
        window.reach(round_trip);
        let (mut announced, mut received) = (FIRST, 0);
        for _ in 0..200 {
            let span = round_trip.max(Duration::from_millis(50));
            tokio::time::advance(span).await;
            let turns = span.as_secs_f64() / (round_trip + Duration::from_millis(1)).as_secs_f64();
            received += (rate * span.as_secs_f64()).min(f64::from(announced) * turns) as u64;
            if let Some(wider) = window.adjust(1, received) {
                assert!(wider > announced, "it fell");
                window.announce(wider, received);
                announced = wider;
            }
        }
        announced
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_what_the_rate_and_the_way_need() {
        let ms = Duration::from_millis;
        for (rate, round_trip, least, most) in [
            // 3 Mbit/s.
            (375e3, ms(20), FIRST, FIRST),
            (30e6, ms(1), 150_000, 200_000),
            (12.5e6, ms(100), 3_000_000, 3_400_000),
            // A link that needs more than anybody is granted at first.
            (125e6, ms(100), 7 << 20, 9 << 20),
        ] {
            let mut window = Window::growing(Budget::new(64 << 20), FIRST, 32 << 20, 2);
            let settled = settled(&mut window, rate, round_trip).await;
            assert!((least..=most).contains(&settled), "{rate} {round_trip:?}: {settled}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_connections_are_granted_is_half_of_the_budget() {
        let budget = Budget::new(64 << 20);
        let mut windows = Vec::new();
        let mut sum = 0;
        for _ in 0..100 {
            let mut window = Window::growing(budget.part(), FIRST, 32 << 20, 2);
            sum += 2 * (settled(&mut window, 125e6, Duration::from_millis(100)).await - FIRST);
            windows.push(window);
        }
        assert!(sum <= 32 << 20, "{sum}");
        drop(windows);
        let mut window = Window::growing(budget.part(), FIRST, 32 << 20, 2);
        let settled = settled(&mut window, 125e6, Duration::from_millis(100)).await;
        assert!(settled >= 7 << 20, "{settled}: all was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_grows_while_much_is_held() {
        let budget = Budget::new(64 << 20);
        budget.take(33 << 20);
        let mut window = Window::growing(budget.part(), FIRST, 32 << 20, 2);
        assert_eq!(settled(&mut window, 125e6, Duration::from_millis(100)).await, FIRST);
    }
}
