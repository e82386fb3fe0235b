//! A deadline without a timer until somebody waits for it.
//!
//! Most waits end at once. A timer that is made for each of them, or set anew at each move, costs more than what
//! it guards; so it is made at the first poll that waits, and set later only when it fires too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that may move. Ready again at each poll once it has passed.
#[derive(Debug, Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Ready at `due`, which may be another instant at each call.
    pub fn poll_at(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }

    /// Ready so long after the first call since [`Self::clear`].
    pub fn poll_after(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + time)));
        timer.as_mut().poll(cx)
    }

    /// Forgets that anybody waits.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}
