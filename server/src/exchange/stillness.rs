//! Deadlines of an exchange in which nothing moves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ptth_link::deadline::Deadline;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::pool::Lease;

/// A deadline that begins anew whenever something moved.
#[derive(Debug)]
pub(crate) struct Stillness {
    /// How long nothing may move.
    pub(super) patience: Duration,
    since: Instant,
    /// One early wake-up, so that the owner can check whether others need this stream.
    first: Option<Instant>,
    timer: Deadline,
    moved: u64,
}

impl Stillness {
    /// Begins now.
    pub(crate) fn new(patience: Duration) -> Self {
        let since = Instant::now();
        let first = Some(since + patience.min(EVICT_AFTER));
        Self { patience, since, first, timer: Deadline::default(), moved: 0 }
    }

    /// Since when nothing has moved, if that lasts.
    pub(crate) fn lasts(&self) -> Option<Instant> {
        Some(self.since).filter(|since| since.elapsed() >= EVICT_AFTER)
    }

    /// Ready when `moved` has been the same for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        if moved != self.moved {
            (self.moved, self.since) = (moved, Instant::now());
        }
        if let Some(first) = self.first {
            ready!(self.timer.poll_at(cx, first));
            self.first = None;
        }
        self.timer.poll_at(cx, self.since + self.patience)
    }
}

/// A stream on which nothing moves, whose place others may need.
#[derive(Debug)]
pub(super) struct Idle {
    /// What had moved before.
    moved: u64,
    pub(super) since: Instant,
    pressed: Pin<Box<OwnedNotified>>,
}

impl Idle {
    /// One on which so much has moved, the last of it then, or now.
    pub(super) fn new(lease: &Lease, moved: u64, since: Option<Instant>) -> Self {
        let since = since.unwrap_or_else(Instant::now);
        Self { moved, since, pressed: Box::pin(lease.pressed()) }
    }

    /// Ready when others wait for streams, and nothing has moved here for a second, for an address that has more
    /// than `most`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        lease: &Lease,
        moved: u64,
        most: usize,
    ) -> Poll<()> {
        if self.moved != moved {
            (self.moved, self.since) = (moved, Instant::now());
        }
        while self.pressed.as_mut().poll(cx).is_ready() {
            self.pressed.set(lease.pressed());
            if self.since.elapsed() >= EVICT_AFTER && lease.yields(most) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// While requests wait for streams, one without progress for this long may be ended: a working link is never still for
/// so long.
const EVICT_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stillness_begins_anew_whenever_something_moved() {
        let second = Duration::from_secs(1);
        let mut still = Stillness::new(60 * second);
        for moved in 0..5 {
            let poll = poll_fn(|cx| still.poll(cx, moved));
            assert!(timeout(59 * second, poll).await.is_err(), "{moved}");
        }
        // What moved last was seen 59 s ago.
        let begun = Instant::now();
        poll_fn(|cx| still.poll(cx, 4)).await;
        assert_eq!(begun.elapsed(), second);
        assert!(poll_fn(|cx| Poll::Ready(still.poll(cx, 4))).await.is_ready());
    }
}
