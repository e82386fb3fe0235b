//! A deadline that has no timer until a task waits for it.
//!
//! Most waits end at once. A timer that is made for each of them, or set anew at each move, costs more than what
//! it guards; so it is made at the first poll that waits, and set later only when it fires too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that may move. Ready again at each poll once it has passed.
#[derive(Debug, Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready at `due`, which may be another instant at each call.
    pub fn poll_at(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }

    /// Ready so long after the first call since [`Self::clear`].
    pub fn poll_after(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + time)));
        timer.as_mut().poll(cx)
    }

    /// Forgets the wait.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    /// One timer for a connection whose requests come one after the other, and which rests then.
    #[tokio::test(start_paused = true)]
    async fn a_silence_is_measured_from_its_own_beginning() {
        let (mut silence, idle) = (Deadline::default(), Duration::from_secs(75));
        let first = Instant::now() + idle;
        let wait = poll_fn(|cx| silence.poll_at(cx, first));
        assert!(timeout(Duration::from_secs(70), wait).await.is_err());
        // A request and its response, of which the timer isn't told.
        advance(Duration::from_secs(3)).await;
        let rested = Instant::now();
        poll_fn(|cx| silence.poll_at(cx, rested + idle)).await;
        assert_eq!(rested.elapsed(), idle);
    }

    /// A head that is begun late in a long rest has less time than the rest had left.
    #[tokio::test(start_paused = true)]
    async fn a_shorter_silence_sets_the_timer_forward() {
        let (mut silence, begun) = (Deadline::default(), Instant::now());
        let wait = poll_fn(|cx| silence.poll_at(cx, begun + Duration::from_secs(75)));
        assert!(timeout(Duration::from_secs(1), wait).await.is_err());
        let head = Instant::now();
        poll_fn(|cx| silence.poll_at(cx, head + Duration::from_secs(10))).await;
        assert_eq!(head.elapsed(), Duration::from_secs(10));
    }
}
