//! Tells whether the peer of a tunnel is still there.
//!
//! Invariant: a peer from which nothing came for two intervals is dead, though the socket says nothing.
//! Any byte counts as a sign of life, not the PONG alone: on a slow link that sits behind the data.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::{PING_INTERVAL, PROBE_TIMEOUT};

/// Sends PING (RFC 9113 §6.7) and watches what comes back. Polled beside the connection, in its task.
#[derive(Debug)]
pub struct Keepalive {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    outstanding: bool,
    received: u64,
    asked: Instant,
    round_trip: Option<Duration>,
}

impl Keepalive {
    /// Starts the clock.
    pub fn new(pings: PingPong) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + PING_INTERVAL));
        let asked = Instant::now();
        Self { pings, timer, outstanding: false, received: 0, asked, round_trip: None }
    }

    /// Ready when the peer is dead. `received` counts the bytes that came from it so far.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<()> {
        if let Poll::Ready(Ok(_)) = self.pings.poll_pong(cx) {
            self.outstanding = false;
            if self.round_trip.is_none() {
                // Whoever drives the connection looks at it before he polls this.
                cx.waker().wake_by_ref();
            }
            let waited = received.saturating_sub(self.received) > LITTLE;
            self.round_trip = Some(settle(self.round_trip, self.asked.elapsed(), waited));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.outstanding && received == self.received {
                return Poll::Ready(());
            }
            self.ping(received);
            self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
        }
        Poll::Pending
    }

    /// Asks now, and takes silence of [`PROBE_TIMEOUT`] for death. For a tunnel that was replaced: either
    /// the peer renews it while it works, or it has been gone for some time.
    pub fn probe(&mut self, received: u64) {
        self.ping(received);
        self.timer.as_mut().reset(Instant::now() + PROBE_TIMEOUT);
    }

    /// Whether the last PING was answered.
    pub fn is_answered(&self) -> bool {
        !self.outstanding
    }

    /// How long it takes to the peer and back: of the PINGs so far about the fastest, since the others waited
    /// behind data.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Asks now.
    pub fn ping(&mut self, received: u64) {
        self.received = received;
        // An error means that one is under way already, which serves as well.
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            self.asked = Instant::now();
        }
        self.outstanding = true;
    }
}

/// What is known of the round trip after a PING that `took` so long. A way that became longer is found out
/// within minutes; but a PING whose answer `waited` behind data that we were sent says nothing of the way, and to
/// believe it would widen the window, and so the wait. One that waits behind what we send is believed, a
/// sixteenth of it each time; while we send so much, little comes through the window that is too wide then.
fn settle(fastest: Option<Duration>, took: Duration, waited: bool) -> Duration {
    match fastest {
        Some(fastest) if took > fastest && waited => fastest,
        Some(fastest) if took > fastest => fastest + (took - fastest) / 16,
        _ => took,
    }
}

/// Bytes that delay nothing.
const LITTLE: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_that_waited_behind_data_makes_no_way_longer() {
        let ms = Duration::from_millis;
        assert_eq!(settle(None, ms(20), true), ms(20));
        assert_eq!(settle(Some(ms(20)), ms(10), true), ms(10), "it is this near at least");
        assert_eq!(settle(Some(ms(10)), ms(900), true), ms(10));
        let mut known = ms(10);
        for _ in 0..60 {
            known = settle(Some(known), ms(100), false);
        }
        assert!(known > ms(90) && known <= ms(100), "{known:?} after ten minutes");
    }
}
