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

/// Sends PING (RFC 9113 §6.7), and measures how long the answer takes.
#[derive(Debug)]
pub struct Echo {
    pings: PingPong,
    asked: Instant,
    received: u64,
    round_trip: Option<Duration>,
}

impl Echo {
    /// Nothing is asked yet.
    pub fn new(pings: PingPong) -> Self {
        Self { pings, asked: Instant::now(), received: 0, round_trip: None }
    }

    /// Asks now. `received` counts the bytes that came from the peer so far.
    pub fn ping(&mut self, received: u64) {
        self.received = received;
        // An error means that one is under way already, which serves as well.
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            self.asked = Instant::now();
        }
    }

    /// Whether the last PING is answered now.
    pub fn is_answered(&mut self, cx: &mut Context<'_>, received: u64) -> bool {
        let answered = matches!(self.pings.poll_pong(cx), Poll::Ready(Ok(_)));
        if answered {
            if self.round_trip.is_none() {
                // Whoever drives the connection looks at it before he polls this.
                cx.waker().wake_by_ref();
            }
            let waited = received.saturating_sub(self.received) > LITTLE;
            self.round_trip = Some(settle(self.round_trip, self.asked.elapsed(), waited));
        }
        answered
    }

    /// How long it takes to the peer and back: of the PINGs so far about the fastest, since the others waited
    /// behind data.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

/// Watches whether anything comes back. Polled beside the connection, in its task.
#[derive(Debug)]
pub struct Keepalive {
    echo: Echo,
    timer: Pin<Box<Sleep>>,
    outstanding: bool,
    /// When the next PING is due in any case.
    regular: Instant,
    /// When silence is death, if somebody asked for a sign of life.
    verdict: Option<Instant>,
    /// Bytes that had come when it was last looked, and since when there were no more.
    heard: (u64, Instant),
    /// It is looked often, since a request waits or did lately.
    hurried: bool,
}

impl Keepalive {
    /// Starts the clock.
    pub fn new(pings: PingPong) -> Self {
        let now = Instant::now();
        let regular = now + PING_INTERVAL;
        Self {
            echo: Echo::new(pings),
            timer: Box::pin(sleep_until(regular)),
            outstanding: false,
            regular,
            verdict: None,
            heard: (0, now),
            hurried: false,
        }
    }

    /// Ready when the peer is dead. `received` counts the bytes that came from it so far; `waiting`: a request
    /// waits for it to answer, so that silence means more.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>, received: u64, waiting: bool) -> Poll<()> {
        if self.echo.is_answered(cx, received) {
            self.outstanding = false;
        }
        if waiting && !self.hurried {
            self.hurried = true;
            let now = Instant::now();
            self.hear(received, now);
            self.heard.1 = now;
            let look = self.timer.deadline().min(now + LOOK);
            self.timer.as_mut().reset(look);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.is_dead(received, waiting) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Any byte acquits.
    fn hear(&mut self, received: u64, now: Instant) {
        if received != self.heard.0 {
            (self.heard, self.verdict) = ((received, now), None);
        }
    }

    /// Looks, asks where that is due, and sets the timer for the next look.
    fn is_dead(&mut self, received: u64, waiting: bool) -> bool {
        let now = Instant::now();
        self.hear(received, now);
        if self.verdict.is_some_and(|verdict| now >= verdict) {
            return true;
        }
        let way = self.round_trip().unwrap_or_default();
        let hush = HUSH.max(way * 4);
        if waiting && now >= self.heard.1 + hush {
            let verdict = now + ANSWER.max(way * 8);
            // Once for each silence.
            if self.verdict.is_none_or(|earlier| earlier > verdict) {
                self.verdict = Some(verdict);
                self.ping(received);
            }
        }
        if now >= self.regular {
            self.regular = now + PING_INTERVAL;
            self.verdict.get_or_insert(self.regular);
            self.ping(received);
        }
        self.hurried = waiting;
        let look = if waiting { now + LOOK } else { self.regular };
        let next = look.min(self.regular);
        self.timer.as_mut().reset(self.verdict.map_or(next, |verdict| verdict.min(next)));
        false
    }

    /// Asks now, and takes silence of [`PROBE_TIMEOUT`] for death. For a tunnel that was replaced: either
    /// the peer renews it while it works, or it has been gone for some time.
    pub fn probe(&mut self, received: u64) {
        self.ping(received);
        let now = Instant::now();
        let verdict = now + PROBE_TIMEOUT;
        self.heard = (received, now);
        self.verdict = Some(verdict);
        let look = self.timer.deadline().min(verdict);
        self.timer.as_mut().reset(look);
    }

    /// Whether the last PING was answered.
    pub fn is_answered(&self) -> bool {
        !self.outstanding
    }

    /// As [`Echo::round_trip`].
    pub fn round_trip(&self) -> Option<Duration> {
        self.echo.round_trip()
    }

    /// Asks now.
    pub fn ping(&mut self, received: u64) {
        self.echo.ping(received);
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

/// While a request waits, silence of so long is asked about; or four round trips, where those are longer.
const HUSH: Duration = Duration::from_secs(2);
/// For the answer then; or eight round trips.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked while a request waits.
const LOOK: Duration = Duration::from_millis(500);
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
