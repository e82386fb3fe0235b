//! Streams that nobody wants any more, until they may be reset.
//!
//! A backend counts the resets that it receives and may end the whole tunnel for too many (Node: 1,000 at
//! once and 33 a second). Visitors who come and go by the thousand must not be able to make that happen:
//! what exceeds the rate waits here, unread, and is reset as the rate allows.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Limits the RST_STREAM frames that a tunnel's backend gets.
#[derive(Debug)]
pub struct ResetLimiter(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    deferred: VecDeque<Deferred>,
    tokens: f64,
    filled: Instant,
    burst: f64,
    rate: f64,
    closed: bool,
}

/// A stream's handles, whatever they are: dropping them resets it.
pub(crate) type Deferred = Box<dyn Any + Send>;

impl ResetLimiter {
    /// `ours`: the other end is our own client, which sets itself no limit below its number of streams.
    pub fn new(ours: bool) -> Self {
        let (burst, rate) = if ours { (OUR_BURST, OUR_RATE) } else { (BURST, RATE) };
        Self(Mutex::new(Inner {
            deferred: VecDeque::new(),
            tokens: burst,
            filled: Instant::now(),
            burst,
            rate,
            closed: false,
        }))
    }

    /// Resets the stream now if the rate allows, else later.
    pub fn defer(&self, stream: Deferred) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.closed && (!inner.deferred.is_empty() || !inner.take()) {
            inner.deferred.push_back(stream);
        }
        // Otherwise it is dropped at the end of this function, after the lock.
    }

    /// The tunnel is no more: nothing has to wait. What was deferred holds the tunnel, which holds this, so
    /// that without a word neither would ever be freed.
    pub fn close(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.closed = true;
        let deferred = std::mem::take(&mut inner.deferred);
        drop(inner);
        // After the lock, since what is dropped may defer something.
        drop(deferred);
    }

    /// Resets those whose time has come; true while some are left. To be called every second or so.
    pub fn release(&self) -> bool {
        let mut due = Vec::new();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !inner.deferred.is_empty() && inner.take() {
            due.extend(inner.deferred.pop_front());
        }
        !inner.deferred.is_empty()
    }
}

impl Inner {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let earned = (now - self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + earned).min(self.burst);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

/// Below Node's defaults, the strictest of the servers that can be a backend.
const BURST: f64 = 800.0;
const RATE: f64 = 30.0;
/// Our client's accept loop keeps up with any rate; the burst stays below what it lets pend.
const OUR_BURST: f64 = 8_000.0;
const OUR_RATE: f64 = 50_000.0;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    /// A tunnel that ends leaves nothing behind, however many of its streams waited for their reset.
    #[tokio::test(start_paused = true)]
    async fn with_the_tunnel_go_all_that_waited() {
        let reset_limiter = ResetLimiter::new(false);
        let alive = Arc::new(());
        for _ in 0..1000 {
            reset_limiter.defer(Box::new(alive.clone()));
        }
        assert_eq!(Arc::strong_count(&alive), 201);
        reset_limiter.close();
        assert_eq!(Arc::strong_count(&alive), 1);
        reset_limiter.defer(Box::new(alive.clone()));
        assert_eq!(Arc::strong_count(&alive), 1, "nor does anything wait that comes later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_backend_is_never_sent_more_resets_than_it_allows() {
        let reset_limiter = ResetLimiter::new(false);
        let alive = Arc::new(());
        for _ in 0..5000 {
            reset_limiter.defer(Box::new(alive.clone()));
        }
        let reset = |alive: &Arc<()>| 5000 - (Arc::strong_count(alive) - 1);
        assert_eq!(reset(&alive), 800);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(reset_limiter.release());
        assert_eq!(reset(&alive), 1100);
        tokio::time::advance(Duration::from_secs(200)).await;
        while reset_limiter.release() {
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert_eq!(reset(&alive), 5000, "every stream is reset in the end");
    }
}
