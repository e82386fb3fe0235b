//! Streams that were given up, until they may be reset.
//!
//! A backend counts the resets that it receives and may end the whole tunnel for too many (Node: 1,000 at
//! once and 33 a second). Visitors that come and go by the thousand must not be able to make that happen:
//! what exceeds the rate waits here, unread, and is reset as the rate allows.

use std::any::Any;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use ptth_link::lock::Mutex;

/// Limits the RST_STREAM frames that a tunnel's backend gets.
#[derive(Debug)]
pub struct ResetLimiter(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    deferred: VecDeque<Deferred>,
    /// When all resets so far are paid for, one an `interval`.
    paid: Instant,
    burst: u32,
    interval: Duration,
    closed: bool,
}

/// A stream's handles: dropping them resets it.
pub(crate) type Deferred = Box<dyn Any + Send>;

impl ResetLimiter {
    /// `ours`: the other end is our own client, which sets itself no limit below its number of streams.
    pub fn new(ours: bool) -> Self {
        let (burst, interval) = if ours { OURS } else { FOREIGN };
        let (deferred, paid) = (VecDeque::new(), Instant::now());
        Self(Mutex::new(Inner { deferred, paid, burst, interval, closed: false }))
    }

    /// Resets the stream now if the rate allows, else later.
    pub fn reset(&self, stream: Deferred) {
        let mut inner = self.0.lock();
        if !inner.closed && (!inner.deferred.is_empty() || !inner.take()) {
            inner.deferred.push_back(stream);
        }
        // Otherwise it is dropped at the end of this function, after the lock.
    }

    /// The tunnel ended: nothing has to wait. What was deferred holds the tunnel, which holds this, so without this
    /// call neither would ever be freed.
    pub fn close(&self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        let deferred = std::mem::take(&mut inner.deferred);
        drop(inner);
        // After the lock, since what is dropped may reset another stream.
        drop(deferred);
    }

    /// Resets the streams that the rate allows by now. To be called every second or so.
    pub fn release(&self) {
        let mut due = Vec::new();
        let mut inner = self.0.lock();
        while !inner.deferred.is_empty() && inner.take() {
            due.extend(inner.deferred.pop_front());
        }
        // They are dropped after the lock, in the reverse order of declaration.
    }
}

impl Inner {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let paid = self.paid.max(now) + self.interval;
        let allowed = paid <= now + self.interval * self.burst;
        if allowed {
            self.paid = paid;
        }
        allowed
    }
}

/// Below Node's defaults, the strictest of the servers that can be a backend: 800 at once and 30 a second.
const FOREIGN: (u32, Duration) = (800, Duration::from_nanos(1_000_000_000 / 30));
/// Our client's accept loop keeps up with any rate, here 50,000 a second; the burst stays below what it lets pend.
const OURS: (u32, Duration) = (8_000, Duration::from_micros(20));

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A tunnel that ends leaves nothing behind, however many of its streams waited for their reset.
    #[tokio::test(start_paused = true)]
    async fn with_the_tunnel_go_all_that_waited() {
        let reset_limiter = ResetLimiter::new(false);
        let alive = Arc::new(());
        for _ in 0..1000 {
            reset_limiter.reset(Box::new(alive.clone()));
        }
        assert_eq!(Arc::strong_count(&alive), 201);
        reset_limiter.close();
        assert_eq!(Arc::strong_count(&alive), 1);
        reset_limiter.reset(Box::new(alive.clone()));
        assert_eq!(Arc::strong_count(&alive), 1, "nor does anything wait that comes later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_backend_is_never_sent_more_resets_than_it_allows() {
        let reset_limiter = ResetLimiter::new(false);
        let alive = Arc::new(());
        for _ in 0..5000 {
            reset_limiter.reset(Box::new(alive.clone()));
        }
        let reset = |alive: &Arc<()>| 5000 - (Arc::strong_count(alive) - 1);
        assert_eq!(reset(&alive), 800);
        tokio::time::advance(Duration::from_secs(10)).await;
        reset_limiter.release();
        assert_eq!(reset(&alive), 1100);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_secs(10)).await;
            reset_limiter.release();
        }
        assert_eq!(reset(&alive), 5000, "every stream is reset in the end");
    }
}
