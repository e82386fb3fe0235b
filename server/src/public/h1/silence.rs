//! How long a visitor that speaks HTTP/1.1 may be silent (RFC 9112 §9.5).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for the silences that mean something. It isn't set anew for each request: where it fires too early, it
/// is set to when it will be time.
#[derive(Debug, Default)]
pub(super) struct Silence(Option<Pin<Box<Sleep>>>);

impl Silence {
    /// Ready when `due` has come.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if due <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

/// From the TLS handshake to the first byte.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(10);
/// From the first byte of a head to its last.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// Between two requests.
pub(super) const IDLE: Duration = Duration::from_secs(75);
/// For a visitor that has just come to say what it wants, of a gateway that is to end.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// D2: one timer, for a connection whose requests come one after the other and which rests then.
    #[tokio::test(start_paused = true)]
    async fn a_silence_is_measured_from_its_own_beginning() {
        let (mut silence, begun) = (Silence::default(), Instant::now());
        let idle = begun + IDLE;
        assert!(timeout(70 * SECOND, poll_fn(|cx| silence.poll(cx, idle))).await.is_err());
        // A request and its response, of which the timer isn't told.
        advance(3 * SECOND).await;
        let rested = Instant::now();
        poll_fn(|cx| silence.poll(cx, rested + IDLE)).await;
        assert_eq!(rested.elapsed(), IDLE);
    }

    /// D2: a head that is begun late in a long rest has less time than the rest had left.
    #[tokio::test(start_paused = true)]
    async fn a_shorter_silence_sets_the_timer_forward() {
        let (mut silence, begun) = (Silence::default(), Instant::now());
        let idle = begun + IDLE;
        assert!(timeout(SECOND, poll_fn(|cx| silence.poll(cx, idle))).await.is_err());
        let head = Instant::now();
        poll_fn(|cx| silence.poll(cx, head + HEAD)).await;
        assert_eq!(head.elapsed(), HEAD);
    }
}
