//! How long a receiver may keep its sender waiting.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::Deadline;

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

    /// How long it may take nothing.
    pub fn patience(&self) -> Duration {
        self.patience
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
