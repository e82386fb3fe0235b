//! Bytes a second that several bodies share.
//!
//! Each body reserves a part of what comes, moves that much when its time is there, and reserves again: they take turns
//! in the order in which they asked, and each wakes once for its turn.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::lock::Mutex;

/// A token bucket that holds the bytes of one second.
#[derive(Debug)]
pub struct Bandwidth {
    /// Bytes a second, from 1.
    rate: u64,
    /// When the bucket is full again.
    full: Mutex<Instant>,
}

impl Bandwidth {
    /// Of so many bytes a second; 0 counts as 1.
    pub fn new(rate: u64) -> Arc<Self> {
        Arc::new(Self { rate: rate.max(1), full: Mutex::new(Instant::now()) })
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// When so many bytes may move that aren't promised to others.
    fn reserve(&self, bytes: u64) -> Instant {
        let mut full = self.full.lock();
        let now = Instant::now();
        *full = now.max(*full) + self.time(bytes);
        full.checked_sub(BURST).unwrap_or(now)
    }

    fn refund(&self, bytes: u64) {
        let mut full = self.full.lock();
        *full = full.checked_sub(self.time(bytes)).unwrap_or(*full);
    }

    fn time(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate as f64)
    }
}

/// What one body has of a [`Bandwidth`]. Dropping it gives back what it reserved and didn't use.
#[derive(Debug)]
pub struct Turns {
    bandwidth: Arc<Bandwidth>,
    /// Bytes of the next turn.
    reserved: u64,
    /// Bytes that moved beyond the last turn's.
    over: u64,
    /// When the next turn is, once that was asked.
    due: Option<Instant>,
    timer: Deadline,
}

impl Turns {
    /// The turns of a new body.
    pub fn new(bandwidth: &Arc<Bandwidth>) -> Self {
        let (bandwidth, timer) = (bandwidth.clone(), Deadline::default());
        Self { bandwidth, reserved: 0, over: 0, due: None, timer }
    }

    /// Ready when about so many bytes may move, and until some have.
    pub fn poll(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| {
            self.reserved = bytes;
            self.bandwidth.reserve(bytes + std::mem::take(&mut self.over))
        });
        if due > Instant::now() { self.timer.poll_at(cx, due) } else { Poll::Ready(()) }
    }

    /// Says that so many bytes moved. For what is more than was asked for, the next turn comes later.
    pub fn took(&mut self, bytes: u64) {
        if bytes > 0 {
            let reserved = std::mem::take(&mut self.reserved);
            self.bandwidth.refund(reserved.saturating_sub(bytes));
            self.over = bytes.saturating_sub(reserved);
            self.due = None;
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.bandwidth.refund(self.reserved);
        self.bandwidth.reserve(self.over);
    }
}

const BURST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::JoinSet;

    use super::*;

    const TURN: u64 = 16 << 10;

    async fn move_all(bandwidth: Arc<Bandwidth>, piece: u64, mut bytes: u64) {
        let mut turns = Turns::new(&bandwidth);
        while bytes > 0 {
            poll_fn(|cx| turns.poll(cx, TURN.min(bytes))).await;
            turns.took(piece.min(bytes));
            bytes -= piece.min(bytes);
        }
    }

    /// Whatever the pieces and however many share it, beyond a second's bytes the rest takes its time.
    #[tokio::test(start_paused = true)]
    async fn many_bodies_share_one_bandwidth() {
        for (bodies, piece, bytes) in
            [(1, 1000, 4 << 20), (64, TURN, 64 << 10), (4096, 1024, 1024), (2, 1 << 20, 2 << 20)]
        {
            let bandwidth = Bandwidth::new(1 << 20);
            let (begun, mut moving) = (Instant::now(), JoinSet::new());
            for _ in 0..bodies {
                moving.spawn(move_all(bandwidth.clone(), piece, bytes));
            }
            moving.join_all().await;
            // What moved after its turn's end delays the next body.
            let mut next = Turns::new(&bandwidth);
            poll_fn(|cx| next.poll(cx, 0)).await;
            let least = Duration::from_secs_f64((bodies * bytes) as f64 / f64::from(1 << 20));
            let took = begun.elapsed() + BURST;
            assert!((least..least * 11 / 10).contains(&took), "{bodies} × {bytes}: {took:?}");
        }
    }

    /// Each of a hundred is woken for its own turns, and not for those of the others.
    #[tokio::test(start_paused = true)]
    async fn bodies_take_turns() {
        let bandwidth = Bandwidth::new(1 << 20);
        bandwidth.reserve(1 << 20);
        let (mut wakes, mut moving) = (0, JoinSet::new());
        for _ in 0..100 {
            let mut turns = Turns::new(&bandwidth);
            moving.spawn(async move {
                let mut polls = 0;
                for _ in 0..3 {
                    poll_fn(|cx| {
                        polls += 1;
                        turns.poll(cx, TURN)
                    })
                    .await;
                    turns.took(TURN);
                }
                polls
            });
        }
        while let Some(polls) = moving.join_next().await {
            wakes += polls.unwrap();
        }
        assert!(wakes <= 600, "{wakes}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_turn_is_for_others() {
        let bandwidth = Bandwidth::new(1 << 20);
        for _ in 0..10_000 {
            // One that leaves before its turn.
            drop(move_all(bandwidth.clone(), 1, 1));
            let mut turns = Turns::new(&bandwidth);
            poll_fn(|cx| turns.poll(cx, TURN)).await;
        }
        assert!(*bandwidth.full.lock() <= Instant::now());
    }
}
