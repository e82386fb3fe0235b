//! Tells whether the peer of a tunnel is still there.
//!
//! Invariant: a peer from which nothing came for two intervals is dead, though the socket says nothing.
//! Any byte counts as a sign of life, not the PONG alone: on a slow link that sits behind the data.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

use super::pulse::Answer;
use crate::deadline::Deadline;
use crate::limits::{PING_INTERVAL, PROBE_TIMEOUT};

/// Sends PING (RFC 9113 §6.7), measures how long the answer takes, and watches whether anything comes back. Polled
/// beside the connection, in its task.
#[derive(Debug)]
pub struct Keepalive {
    pings: PingPong,
    /// When the last PING was sent, and how many bytes had come by then.
    asked: (Instant, u64),
    outstanding: bool,
    round_trip: Option<Duration>,
    pub(super) answer: Answer,
    /// Without it, silence means nothing.
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    timer: Deadline,
    /// When to look next.
    look: Instant,
    /// When the next PING is due in any case.
    regular: Instant,
    /// When silence is death, if a sign of life was asked for.
    verdict: Option<Instant>,
    /// Bytes that had come when it was last looked, and since when there were no more.
    heard: (u64, Instant),
    /// It is looked often, since a request waits or did lately.
    hurried: bool,
}

impl Keepalive {
    /// Measures the round trip, and no more.
    pub fn measuring(pings: PingPong) -> Self {
        let asked = (Instant::now(), 0);
        Self {
            pings,
            asked,
            outstanding: false,
            round_trip: None,
            answer: Answer::default(),
            watch: None,
        }
    }

    /// The same, and watches from now on.
    pub fn watching(pings: PingPong) -> Self {
        let now = Instant::now();
        let regular = now + PING_INTERVAL;
        let watch = Watch {
            timer: Deadline::default(),
            look: regular,
            regular,
            verdict: None,
            heard: (0, now),
            hurried: false,
        };
        Self { watch: Some(watch), ..Self::measuring(pings) }
    }

    /// Asks now. `received` counts the bytes that came from the peer so far.
    pub fn ping(&mut self, received: u64) {
        self.asked.1 = received;
        // An error means that one is under way already, which serves as well.
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            self.asked.0 = Instant::now();
        }
        self.outstanding = true;
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

    /// Whether silence is death.
    pub fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Asks now, and takes silence of [`PROBE_TIMEOUT`] for death. For a tunnel that was replaced: either
    /// the peer renews it while it works, or it has been gone for some time.
    pub fn probe(&mut self, received: u64) {
        self.ping(received);
        if let Some(watch) = &mut self.watch {
            let now = Instant::now();
            let verdict = now + PROBE_TIMEOUT;
            watch.heard = (received, now);
            watch.verdict = Some(verdict);
            watch.look = watch.look.min(verdict);
        }
    }

    /// Ready when the peer is dead. `received` counts the bytes that came from it so far; `waiting`: a request
    /// waits for it to answer, so that silence means more.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>, received: u64, waiting: bool) -> Poll<()> {
        self.poll_pong(cx, received);
        let Some(watch) = &mut self.watch else { return Poll::Pending };
        if waiting && !watch.hurried {
            watch.hurried = true;
            let now = Instant::now();
            watch.hear(received, now);
            watch.heard.1 = now;
            watch.look = watch.look.min(now + LOOK);
        }
        while let Some(watch) = &mut self.watch {
            ready!(watch.timer.poll_at(cx, watch.look));
            match watch.look(received, waiting, self.round_trip.unwrap_or_default()) {
                Look::Fine => {}
                Look::Ask => self.ping(received),
                Look::Dead => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn poll_pong(&mut self, cx: &mut Context<'_>, received: u64) {
        if !matches!(self.pings.poll_pong(cx), Poll::Ready(Ok(_))) {
            return;
        }
        self.outstanding = false;
        if self.round_trip.is_none() {
            // The window follows it at the next poll of the connection.
            cx.waker().wake_by_ref();
        }
        let (since, before) = self.asked;
        let waited = received.saturating_sub(before) > LITTLE;
        let round_trip = settle(self.round_trip, since.elapsed(), waited);
        self.round_trip = Some(round_trip);
        self.answer = Answer::now(round_trip);
    }
}

enum Look {
    Fine,
    Ask,
    Dead,
}

impl Watch {
    /// Any byte acquits.
    fn hear(&mut self, received: u64, now: Instant) {
        if received != self.heard.0 {
            (self.heard, self.verdict) = ((received, now), None);
        }
    }

    /// Looks, and says when to look again.
    fn look(&mut self, received: u64, waiting: bool, way: Duration) -> Look {
        let now = Instant::now();
        self.hear(received, now);
        if self.verdict.is_some_and(|verdict| now >= verdict) {
            return Look::Dead;
        }
        let mut found = Look::Fine;
        if waiting && now >= self.heard.1 + HUSH.max(way * 4) {
            let verdict = now + ANSWER.max(way * 8);
            // Once for each silence.
            if self.verdict.is_none_or(|earlier| earlier > verdict) {
                self.verdict = Some(verdict);
                found = Look::Ask;
            }
        }
        if now >= self.regular {
            self.regular = now + PING_INTERVAL;
            self.verdict.get_or_insert(self.regular);
            found = Look::Ask;
        }
        self.hurried = waiting;
        let look = if waiting { now + LOOK } else { self.regular };
        let next = look.min(self.regular);
        self.look = self.verdict.map_or(next, |verdict| verdict.min(next));
        found
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
