//! The two bodies of an exchange whose response has begun, and what ends them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use log::debug;
use ptth_link::body::Inflow;
use ptth_link::deadline::Deadline;
use ptth_link::pump::PumpError;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::pool::Lease;
use crate::quota::SMALL;
use crate::upload::Upload;

/// Moves the bodies of an exchange whose response has begun: the two directions joined, not raced.
///
/// Ready when both are done. Dropping it before resets the stream, as the tunnel's rate allows.
#[must_use = "neither body moves unless this is polled"]
#[derive(Debug)]
pub(crate) struct Carry {
    moving: Option<Moving>,
    extended: bool,
    unasked: bool,
    /// It ended before the response did.
    broken: bool,
    /// It ended for others, since nobody read.
    ceded: bool,
}

#[derive(Debug)]
struct Moving {
    inflow: Inflow,
    upload: Option<Upload>,
    lease: Lease,
    stall: Option<Stillness>,
    /// While bytes wait for the visitor, or for them from him.
    idle: Option<Idle>,
}

/// A stream on which nothing moves, whose place others may need.
#[derive(Debug)]
pub(crate) struct Idle {
    /// What had moved before.
    moved: u64,
    since: Instant,
    pressed: Pin<Box<OwnedNotified>>,
}

impl Idle {
    /// One on whose stream nothing has moved since then.
    pub(crate) fn new(lease: &Lease, moved: u64, since: Instant) -> Self {
        Self { moved, since, pressed: Box::pin(lease.pressed()) }
    }

    /// Ready when others wait for streams, and nothing has moved here for a second, for an address that has more
    /// than `most`.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        lease: &Lease,
        moved: u64,
        most: usize,
    ) -> Poll<()> {
        if self.moved != moved {
            (self.moved, self.since) = (moved, Instant::now());
        }
        while self.pressed.as_mut().poll(cx).is_ready() {
            self.pressed.set(lease.pressed());
            if self.since.elapsed() >= STILL && lease.yields(most) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl Moving {
    /// Ready when others wait for streams, and this one's visitor doesn't read; or lets his body wait, where he has
    /// more than the few that any address may have: two who talk with each other may be silent.
    fn poll_pressed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let hungry = self.upload.as_ref().filter(|upload| upload.is_hungry());
        let unread = self.inflow.unread().map(|read| (read, 0));
        let idle = unread.or_else(|| hungry.map(|it| (it.moved() + self.inflow.moved(), SMALL)));
        let Some((moved, most)) = idle else {
            self.idle = None;
            return Poll::Pending;
        };
        let idle = self.idle.get_or_insert_with(|| Idle::new(&self.lease, moved, Instant::now()));
        idle.poll(cx, &self.lease, moved, most)
    }
}

impl Carry {
    /// Moves `inflow` to the visitor and `upload` to the backend, on the stream that `lease` stands for;
    /// gives up when neither moved for `patience`.
    pub(crate) fn new(
        inflow: Inflow,
        upload: Option<Upload>,
        lease: Lease,
        patience: Duration,
    ) -> Self {
        let stall = Some(Stillness::new(patience));
        let moving = Some(Moving { inflow, upload, lease, stall, idle: None });
        Self { moving, extended: false, unasked: false, broken: false, ceded: false }
    }

    /// Nothing to move.
    pub(crate) fn nothing() -> Self {
        Self { moving: None, extended: false, unasked: false, broken: false, ceded: false }
    }

    /// Says that the request crossed as extended CONNECT.
    pub(crate) fn extended(mut self, extended: bool) -> Self {
        self.extended = extended;
        self
    }

    /// Says that the response refused the body that the visitor offered before he was asked for it.
    pub(crate) fn unasked(mut self, unasked: bool) -> Self {
        self.unasked = unasked;
        self
    }

    /// Whether it ended before the response did.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether it ended since others waited for its stream, and nobody read the response.
    pub(crate) fn is_ceded(&self) -> bool {
        self.ceded
    }

    /// Lifts the limit on stillness: an upgraded connection may be silent for days.
    pub(crate) fn be_patient(&mut self) {
        if let Some(moving) = &mut self.moving {
            moving.stall = None;
        }
    }

    /// Whether the request crossed as extended CONNECT, so that a success makes two byte streams of it.
    pub(crate) fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether the response refused the body that the visitor offered before he was asked for it.
    pub(crate) fn is_unasked(&self) -> bool {
        self.unasked
    }

    /// Bytes taken from the visitor so far.
    pub(crate) fn uploaded(&self) -> u64 {
        let moving = self.moving.as_ref();
        moving.and_then(|moving| moving.upload.as_ref()).map_or(0, Upload::moved)
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.moving.is_none()
    }
}

impl Future for Carry {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let unasked = self.unasked;
        let Some(moving) = &mut self.moving else { return Poll::Ready(()) };
        let received = Pin::new(&mut moving.inflow).poll(cx).is_ready();
        let upload = moving.upload.as_mut().filter(|_| !unasked);
        upload.iter().for_each(|upload| upload.heard(moving.inflow.taken()));
        let (sent, broken) = match upload.map(|upload| upload.poll(cx)) {
            Some(Poll::Pending) => (false, false),
            Some(Poll::Ready(Err(PumpError::Body(())))) => (true, !moving.inflow.is_complete()),
            None | Some(Poll::Ready(_)) => (true, false),
        };
        if broken || received && (unasked || !moving.inflow.is_complete()) {
            // The request broke off or was refused, or the response did, or nobody reads it: the rest
            // is of no use.
            if moving.inflow.is_breach() {
                moving.lease.tunnel().penalize();
            }
            self.broken = received && !moving.inflow.is_complete();
            self.defer();
            return Poll::Ready(());
        }
        if received && sent {
            // Nothing is reset by dropping what has ended on both sides.
            self.moving = None;
            return Poll::Ready(());
        }
        if moving.poll_pressed(cx).is_ready() {
            debug!("exchange: others wait for its stream, and nobody reads its response");
            self.ceded = true;
            self.defer();
            return Poll::Ready(());
        }
        let moved = moving.inflow.moved() + moving.upload.as_ref().map_or(0, Upload::moved);
        if let Some(stall) = &mut moving.stall
            && stall.poll(cx, moved).is_ready()
        {
            debug!("exchange: nothing moved for {} s", stall.patience.as_secs());
            self.defer();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Carry {
    fn defer(&mut self) {
        if let Some(Moving { mut inflow, upload, lease, .. }) = self.moving.take() {
            let stream = inflow.abandon();
            let upload = upload.map(|mut upload| {
                upload.abandon();
                upload
            });
            let tunnel = lease.tunnel().clone();
            tunnel.reset_limiter.defer(Box::new((stream, upload, lease)));
        }
    }
}

impl Drop for Carry {
    fn drop(&mut self) {
        self.defer();
    }
}

/// A deadline that begins anew whenever something moved.
#[derive(Debug)]
pub(crate) struct Stillness {
    /// How long nothing may move.
    pub patience: Duration,
    since: Instant,
    /// When it is looked at once before: whoever polls may have something to do when it begins to last.
    first: Option<Instant>,
    timer: Deadline,
    moved: u64,
}

impl Stillness {
    /// Begins now.
    pub(crate) fn new(patience: Duration) -> Self {
        let since = Instant::now();
        let first = Some(since + patience.min(STILL));
        Self { patience, since, first, timer: Deadline::default(), moved: 0 }
    }

    /// Since when nothing has moved, if that lasts.
    pub(crate) fn lasts(&self) -> Option<Instant> {
        Some(self.since).filter(|since| since.elapsed() >= STILL)
    }

    /// Ready when `moved` has been the same for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        if moved != self.moved {
            (self.moved, self.since) = (moved, Instant::now());
        }
        if let Some(first) = self.first {
            ready!(self.timer.poll_at(cx, first));
            self.first = None;
        }
        self.timer.poll_at(cx, self.since + self.patience)
    }
}

/// Where others wait for streams, longer than a working link keeps still.
const STILL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stillness_begins_anew_whenever_something_moved() {
        let second = Duration::from_secs(1);
        let mut still = Stillness::new(60 * second);
        for moved in 0..5 {
            let poll = poll_fn(|cx| still.poll(cx, moved));
            assert!(timeout(59 * second, poll).await.is_err(), "{moved}");
        }
        // What moved last was seen 59 s ago.
        let begun = Instant::now();
        poll_fn(|cx| still.poll(cx, 4)).await;
        assert_eq!(begun.elapsed(), second);
        assert!(poll_fn(|cx| Poll::Ready(still.poll(cx, 4))).await.is_ready());
    }
}
