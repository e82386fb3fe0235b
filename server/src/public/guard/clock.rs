//! How long a visitor who speaks HTTP/1.1 may be silent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::super::strict::Place;

/// One timer for the three silences that mean something. It isn't set anew for each request: where it fires
/// before a silence was long enough, it is set to when that will be.
#[derive(Debug)]
pub(super) struct Clock {
    timer: Option<Pin<Box<Sleep>>>,
    /// Where he is silent, and since when.
    pub(super) silent: Option<(Place, Instant)>,
    pub(super) fresh: bool,
}

impl Clock {
    /// For a connection of which nothing has come yet.
    pub(super) fn first() -> Self {
        Self { timer: None, silent: None, fresh: true }
    }

    /// Ready with the place at which the visitor was silent for too long. `rested`: no exchange is under way,
    /// and then when the last one ended, if there was any.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        place: Place,
        rested: Option<Option<Instant>>,
    ) -> Poll<Place> {
        let patience = match place {
            Place::Between if self.fresh => FIRST_BYTE,
            Place::Between => IDLE,
            Place::Head => HEAD,
            // The pace of a body is watched where it is sent on, until the response begins.
            Place::Body | Place::Refused => {
                self.silent = None;
                return Poll::Pending;
            }
        };
        let since = match self.silent {
            Some((silent, since)) if silent == place => since,
            _ => Instant::now(),
        };
        self.silent = Some((place, since));
        let due = rested.map(|rested| rested.map_or(since, |rested| rested.max(since)) + patience);
        loop {
            // During an exchange nobody tells us of its end: to look again in time is enough.
            let next = due.unwrap_or_else(|| Instant::now() + patience);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            ready!(timer.as_mut().poll(cx));
            if due.is_some_and(|due| due <= Instant::now()) {
                return Poll::Ready(place);
            }
            timer.as_mut().reset(next);
        }
    }
}

/// From the TLS handshake to the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// From the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Where it fired, and after how many seconds.
    async fn fired(
        clock: &mut Clock,
        place: Place,
        rested: Option<Option<Instant>>,
    ) -> (Place, u64) {
        let begun = Instant::now();
        let place = poll_fn(|cx| clock.poll(cx, place, rested)).await;
        (place, begun.elapsed().as_secs())
    }

    async fn quiet(
        clock: &mut Clock,
        place: Place,
        rested: Option<Option<Instant>>,
        time: Duration,
    ) {
        let poll = poll_fn(|cx| clock.poll(cx, place, rested));
        assert!(timeout(time, poll).await.is_err(), "{place:?} after {time:?}");
    }

    /// D2
    #[tokio::test(start_paused = true)]
    async fn each_silence_has_its_time() {
        assert_eq!(
            fired(&mut Clock::first(), Place::Between, Some(None)).await,
            (Place::Between, 10)
        );
        let later = || Clock { fresh: false, ..Clock::first() };
        assert_eq!(fired(&mut later(), Place::Between, Some(None)).await, (Place::Between, 75));
        assert_eq!(fired(&mut later(), Place::Head, Some(None)).await, (Place::Head, 10));
        quiet(&mut later(), Place::Body, Some(None), 1000 * SECOND).await;
        quiet(&mut later(), Place::Between, None, 1000 * SECOND).await;
    }

    /// D2: one timer, for a connection whose requests come one after the other and which rests then.
    #[tokio::test(start_paused = true)]
    async fn what_happened_meanwhile_counts_when_the_timer_fires() {
        let mut clock = Clock { fresh: false, ..Clock::first() };
        quiet(&mut clock, Place::Between, Some(None), 70 * SECOND).await;
        // A request and its response, of which the clock isn't told; then half of a head behind another.
        clock.silent = None;
        quiet(&mut clock, Place::Between, None, 3 * SECOND).await;
        let rested = Some(Some(Instant::now()));
        tokio::time::advance(SECOND).await;
        assert_eq!(fired(&mut clock, Place::Between, rested).await, (Place::Between, 74));
        clock.silent = None;
        quiet(&mut clock, Place::Head, None, 7 * SECOND).await;
        let rested = Some(Some(Instant::now()));
        tokio::time::advance(SECOND).await;
        assert_eq!(fired(&mut clock, Place::Head, rested).await, (Place::Head, 9));
    }

    /// D2: half of a head behind a request under way, of whose end the clock isn't told.
    #[tokio::test(start_paused = true)]
    async fn it_looks_again_in_time() {
        let mut clock = Clock { fresh: false, ..Clock::first() };
        quiet(&mut clock, Place::Between, None, SECOND).await;
        quiet(&mut clock, Place::Head, None, SECOND).await;
        let looks = clock.timer.as_ref().map(|timer| timer.deadline());
        assert_eq!(looks, Some(Instant::now() + 9 * SECOND));
    }

    /// D2: a head that is begun late in a long rest has less time than the rest had left.
    #[tokio::test(start_paused = true)]
    async fn a_shorter_silence_sets_the_timer_forward() {
        let mut clock = Clock { fresh: false, ..Clock::first() };
        quiet(&mut clock, Place::Between, Some(None), SECOND).await;
        assert_eq!(fired(&mut clock, Place::Head, Some(None)).await, (Place::Head, 10));
    }
}
