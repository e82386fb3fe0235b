//! What is known of a connection outside its task: its driver writes, and what shows its state reads.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::PING_INTERVAL;

/// Each value but one is that of the last poll of the connection.
#[derive(Debug, Default)]
pub struct Pulse {
    pub streams: AtomicUsize,
    /// In all, counted by what opens or accepts them.
    pub opened: AtomicU64,
    /// Bytes of the peer, and to it.
    pub received: AtomicU64,
    pub sent: AtomicU64,
    /// What a stream of the peer may send, as last announced.
    pub window: AtomicU32,
    answered: AtomicU64,
    round_trip: AtomicU64,
}

/// The answer to a PING: when it came, and how far the peer is; both 0 before the first one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    /// Milliseconds of this process.
    at: u64,
    /// Microseconds.
    round_trip: u64,
}

impl Answer {
    pub(super) fn now(round_trip: Duration) -> Self {
        let round_trip = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        Self { at: millis(), round_trip }
    }
}

/// Never 0.
fn millis() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = Instant::now().saturating_duration_since(*BEGUN);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

impl Pulse {
    pub(super) fn note(
        &self,
        (received, sent): (u64, u64),
        streams: usize,
        window: u32,
        answer: Answer,
    ) {
        self.received.store(received, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
        self.streams.store(streams, Ordering::Relaxed);
        self.window.store(window, Ordering::Relaxed);
        self.answered.store(answer.at, Ordering::Relaxed);
        self.round_trip.store(answer.round_trip, Ordering::Relaxed);
    }

    /// How long ago the last answer to a PING came.
    pub fn silent(&self) -> Option<Duration> {
        let at = self.answered.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_millis(millis().saturating_sub(at)))
    }

    pub fn round_trip(&self) -> Option<Duration> {
        let known = Some(self.round_trip.load(Ordering::Relaxed));
        known.filter(|_| self.silent().is_some()).map(Duration::from_micros)
    }

    /// Whether the peer answered a PING within two intervals.
    pub fn is_answering(&self) -> bool {
        self.silent().is_some_and(|silent| silent <= PING_INTERVAL * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_two_intervals() {
        let pulse = Pulse::default();
        assert!(!pulse.is_answering() && pulse.round_trip().is_none());
        pulse.note((3, 4), 5, 6, Answer::now(Duration::from_micros(1_500)));
        assert_eq!(pulse.round_trip(), Some(Duration::from_micros(1_500)));
        tokio::time::advance(PING_INTERVAL * 2).await;
        assert!(pulse.is_answering());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!pulse.is_answering());
    }
}
