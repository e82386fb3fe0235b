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

/// Judges a receiver by the time in which something waited for it: a sender that has nothing to send says nothing
/// about who reads. It must take something within `patience`, and a least rate over each `patience` of waiting.
#[derive(Debug)]
pub struct Reading {
    patience: Duration,
    /// Bytes to be taken while others waited for `patience`.
    least: u64,
    taken: u64,
    /// Before the wait that goes on now.
    waited: Duration,
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// From when on it counts for the rate.
    counts: Instant,
    due: Instant,
    timer: Deadline,
}

impl Reading {
    /// One that must take something in each `patience`, and `rate` bytes a second.
    pub fn new(patience: Duration, rate: u32) -> Self {
        let least = u64::from(rate) * patience.as_secs();
        Self { patience, least, taken: 0, waited: Duration::ZERO, wait: None }
    }

    /// Says that so many bytes are taken: nothing waits now.
    pub fn took(&mut self, bytes: usize) {
        if self.least > 0 {
            self.taken += bytes as u64;
        }
        if let Some(wait) = self.wait.take() {
            self.waited += wait.counts.elapsed();
        }
    }

    /// Says that something waits. Ready when it has for too long.
    pub fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wait = self.wait.get_or_insert_with(|| {
            let now = Instant::now();
            let left = if self.least > 0 { self.waited } else { Duration::ZERO };
            let due = now + self.patience.saturating_sub(left);
            Wait { since: now, counts: now, due, timer: Deadline::default() }
        });
        loop {
            ready!(wait.timer.poll_at(cx, wait.due));
            if wait.since.elapsed() >= self.patience || self.taken < self.least {
                return Poll::Ready(());
            }
            // It was quick enough, and another span begins in the middle of this wait.
            (self.taken, self.waited) = (0, Duration::ZERO);
            wait.counts = Instant::now();
            wait.due = wait.since + self.patience;
        }
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

    const MINUTE: Duration = Duration::from_secs(60);

    /// After how many seconds it ends for who takes `bytes` after each wait of `pause` seconds.
    async fn ends(rate: u32, bytes: usize, pause: u64, idle: u64) -> Option<u64> {
        let mut reading = Reading::new(MINUTE, rate);
        let start = Instant::now();
        while start.elapsed() < 60 * MINUTE {
            let wait = poll_fn(|cx| reading.poll_wait(cx));
            if timeout(Duration::from_secs(pause), wait).await.is_ok() {
                return Some(start.elapsed().as_secs());
            }
            reading.took(bytes);
            advance(Duration::from_secs(idle)).await;
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_time_in_which_something_waits_counts() {
        for (rate, bytes, pause, idle, expected) in [
            (240, 1000, 61, 0, Some(60)),
            (240, 250, 1, 0, None),
            (240, 16, 1, 0, Some(60)),
            // Half of the time there is nothing to read.
            (240, 16, 1, 1, Some(119)),
            (240, 250, 1, 59, None),
            (0, 1, 59, 0, None),
            // A lot at once, and less than a minute's silence after it.
            (240, 32 * 1024, 59, 0, None),
        ] {
            let end = ends(rate, bytes, pause, idle).await;
            assert_eq!(end, expected, "{bytes} bytes after {pause} s, {idle} s idle");
        }
    }

    /// Whatever it took before: silence is silence.
    #[tokio::test(start_paused = true)]
    async fn a_wait_of_a_minute_is_the_last() {
        let mut reading = Reading::new(MINUTE, 240);
        for seconds in [30, 59, 1, 45] {
            let wait = poll_fn(|cx| reading.poll_wait(cx));
            assert!(timeout(Duration::from_secs(seconds), wait).await.is_err());
            reading.took(1 << 20);
        }
        let start = Instant::now();
        poll_fn(|cx| reading.poll_wait(cx)).await;
        assert_eq!(start.elapsed(), MINUTE);
    }
}
