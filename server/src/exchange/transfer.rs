//! One exchange on one stream of a tunnel: both its bodies, and what ends them before their time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::client::ResponseFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use log::debug;
use ptth_link::body::Inflow;
use ptth_link::failure::Party;
use ptth_link::headers;
use ptth_link::limits::INFORMATIONAL_RESPONSES;
use ptth_link::pump::PumpError;
use tokio::time::Instant;

use super::stillness::{Idle, Stillness};
use super::upload::Upload;
use crate::error::ExchangeError;
use crate::observe::{End, Record};
use crate::pool::Lease;
use crate::quota::{Permit, SMALL};

/// Moves the bodies of an exchange whose response has begun: the two directions joined, not raced.
///
/// Ready when both are done. Dropping it before resets the stream, as the tunnel's rate allows.
#[must_use = "neither body moves unless this is polled"]
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    open: Option<Box<Open>>,
    /// The request crossed as extended CONNECT, so that a success makes two byte streams of it.
    pub(crate) extended: bool,
    /// The response refused the body that the visitor offered before it was asked for it.
    pub(crate) unasked: bool,
    /// How its bodies ended, as far as it is known here.
    pub(super) end: End,
    /// Bytes of the bodies, from the visitor and to it, once they have ended.
    moved: [u64; 2],
    /// Times that the request's body waited for the backend's window, likewise.
    stalls: u64,
    /// Is told when this is dropped.
    pub(crate) record: Record,
    /// It counts among those of its route until it is dropped.
    pub(crate) permit: Option<Permit>,
}

/// The stream.
#[derive(Debug)]
struct Open {
    response: Awaited,
    upload: Option<Upload>,
    lease: Lease,
    /// `None`: an upgraded connection may be silent for days.
    still: Option<Stillness>,
    /// While others may need the stream more.
    idle: Option<Idle>,
}

#[derive(Debug)]
enum Awaited {
    /// The head is awaited; the tunnel knows that by the permit.
    Head(ResponseFuture, #[allow(dead_code, reason = "held for its drop")] Permit),
    Body(Inflow),
}

/// Why a stream has no response.
pub(super) enum Failed {
    /// The backend surely did nothing with the request.
    Unprocessed(h2::Error),
    ForGood(ExchangeError),
}

impl From<ExchangeError> for Failed {
    fn from(err: ExchangeError) -> Self {
        Self::ForGood(err)
    }
}

impl Exchange {
    /// One that was opened, and whose response's head is to come within `patience` of the last upload progress.
    pub(super) fn new(
        response: ResponseFuture,
        upload: Option<Upload>,
        lease: Lease,
        (extended, patience): (bool, Duration),
    ) -> Self {
        let response = Awaited::Head(response, lease.tunnel().wait());
        let still = Some(Stillness::new(patience));
        let open = Some(Box::new(Open { response, upload, lease, still, idle: None }));
        let mut exchange = Self::nothing();
        (exchange.open, exchange.extended) = (open, extended);
        exchange
    }

    /// Nothing to move.
    pub(crate) fn nothing() -> Self {
        let mut nothing = Self::default();
        nothing.end = End::Complete;
        nothing
    }

    /// Lifts the limit on stillness.
    pub(crate) fn be_patient(&mut self) {
        self.open.iter_mut().for_each(|open| open.still = None);
    }

    /// Bytes taken from the visitor so far.
    pub(crate) fn uploaded(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.uploaded())
    }

    /// Whether anything was taken from the visitor.
    pub(super) fn is_touched(&self) -> bool {
        let upload = self.open.as_ref().and_then(|open| open.upload.as_ref());
        upload.is_some_and(Upload::is_touched)
    }

    /// The body, for another attempt.
    pub(super) fn take_upload(&mut self) -> Option<Upload> {
        self.open.as_mut()?.upload.take()
    }

    /// Whether it ended for others that waited for its stream, since nothing of the response was read.
    pub(crate) fn is_ceded(&self) -> bool {
        self.end == End::Ceded
    }

    /// The visitor took all that there was of the response.
    pub(crate) fn delivered(&mut self) {
        self.record.ended(self.end, self.moved);
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        self.open.is_none()
    }

    /// The response's head, which comes at most once; 1xx responses before it go to `inform`.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        early: &mut usize,
        inform: &mut dyn FnMut(StatusCode, &mut HeaderMap),
    ) -> Poll<Result<Response<h2::RecvStream>, Failed>> {
        let Some(open) = &mut self.open else { return Poll::Pending };
        if let Poll::Ready(head) = open.poll_head(cx, self.extended, early, inform) {
            return Poll::Ready(head);
        }
        open.poll_pressed(cx, self.extended).map(|unsent| {
            debug!("exchange: others wait for its stream, on which nothing moves");
            let slow = if unsent { ExchangeError::VisitorSlow } else { ExchangeError::Full };
            Err(Failed::ForGood(slow))
        })
    }

    /// Has the response's body come by `inflow` from now on, for as long as something moves in each `patience`.
    pub(super) fn begin(&mut self, inflow: Inflow, success: bool, patience: Duration) {
        let Some(open) = &mut self.open else { return };
        (open.response, open.idle) = (Awaited::Body(inflow), None);
        open.still = Some(Stillness::new(patience));
        // RFC 9110 §10.1.1: instead of the 100; so that body is never wanted.
        let refused = open.upload.as_mut().filter(|upload| upload.is_held() && !success);
        self.unasked = refused.map(Upload::abandon).is_some();
    }

    /// Takes over what an end has to tell.
    fn close(&mut self, open: &mut Open) {
        self.moved = open.bodies();
        self.stalls = open.upload.as_mut().map_or(0, Upload::take_stalls);
    }

    /// Resets the stream: now, if the tunnel's rate of resets allows it, else later. Runs on drop, as when the visitor
    /// leaves.
    fn reset(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        self.close(&mut open);
        let Open { response, mut upload, lease, .. } = *open;
        upload.iter_mut().for_each(Upload::abandon);
        // A request whose head is awaited no longer counts as one that waits.
        let (head, stream) = match response {
            Awaited::Head(response, _) => (Some(response), None),
            Awaited::Body(mut inflow) => (None, inflow.abandon()),
        };
        let tunnel = lease.tunnel().clone();
        tunnel.reset_limiter.reset(Box::new((head, stream, upload, lease)));
    }
}

impl Future for Exchange {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(open) = &mut this.open else { return Poll::Ready(()) };
        let Awaited::Body(inflow) = &mut open.response else { return Poll::Pending };
        let received = Pin::new(&mut *inflow).poll(cx).is_ready();
        let complete = inflow.is_complete();
        let upload = open.upload.as_mut().filter(|_| !this.unasked);
        let (sent, cut) = match upload.map(|upload| upload.poll(cx, inflow.taken())) {
            Some(Poll::Pending) => (false, false),
            Some(Poll::Ready(Err(PumpError::Body(_)))) => (true, !complete),
            None | Some(Poll::Ready(_)) => (true, false),
        };
        if cut || received && (this.unasked || !complete) {
            // The request broke off or was refused, or the response did, or is not read: the rest is of no use.
            if inflow.is_breach() {
                open.lease.tunnel().penalize();
            }
            this.end = match (received, complete) {
                (_, true) => End::Complete,
                (true, false) => End::Broken,
                (false, false) => End::Cut,
            };
            this.reset();
            return Poll::Ready(());
        }
        if received && sent {
            // Nothing is reset by dropping what has ended on both sides.
            this.end = End::Complete;
            if let Some(mut open) = this.open.take() {
                this.close(&mut open);
            }
            return Poll::Ready(());
        }
        if open.poll_pressed(cx, this.extended).is_ready() {
            debug!("exchange: others wait for its stream, and nothing of its response is read");
            this.end = End::Ceded;
            this.reset();
            return Poll::Ready(());
        }
        let moved = open.moved();
        if let Some(still) = &mut open.still
            && still.poll(cx, moved).is_ready()
        {
            debug!("exchange: nothing moved for {} s", still.patience.as_secs());
            this.end = End::Still;
            this.reset();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.reset();
        // What came as a whole may still have been on its way to the visitor.
        let end = if self.end == End::Complete { End::Left } else { self.end };
        self.record.stalled(Party::Backend, self.stalls);
        self.record.left(end, self.moved);
    }
}

impl Open {
    fn uploaded(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::moved)
    }

    /// Bytes from the visitor, and those that are on their way to it.
    fn bodies(&self) -> [u64; 2] {
        let received = match &self.response {
            Awaited::Head(..) => 0,
            Awaited::Body(inflow) => inflow.read(),
        };
        [self.uploaded(), received]
    }

    /// Bytes that moved so far, in either direction.
    fn moved(&self) -> u64 {
        match &self.response {
            Awaited::Head(..) => self.uploaded(),
            Awaited::Body(inflow) => inflow.moved() + self.uploaded(),
        }
    }

    fn is_hungry(&self) -> bool {
        self.upload.as_ref().is_some_and(Upload::is_hungry)
    }

    /// The progress that keeps the stream from others; the time of the last one, if it isn't now; and a threshold: the
    /// stream is ended only for an address that holds more streams than this. Any address may have a few that wait for
    /// a response, or for each other.
    fn eviction_terms(&self, extended: bool) -> Option<(u64, Option<Instant>, usize)> {
        match &self.response {
            Awaited::Head(..) => {
                let lasts = self.still.as_ref().and_then(Stillness::lasts);
                let since = lasts.or(self.idle.as_ref().map(|idle| idle.since))?;
                let yields = if self.is_hungry() && !extended { 0 } else { SMALL };
                Some((self.uploaded(), Some(since), yields))
            }
            Awaited::Body(inflow) => match inflow.unread() {
                Some(read) => Some((read, None, 0)),
                None if self.is_hungry() => Some((self.moved(), None, SMALL)),
                None => None,
            },
        }
    }

    /// Ready when others wait for streams, and on this one nothing moves; with whether its visitor keeps its request's
    /// body waiting.
    fn poll_pressed(&mut self, cx: &mut Context<'_>, extended: bool) -> Poll<bool> {
        let Some((moved, since, most)) = self.eviction_terms(extended) else {
            self.idle = None;
            return Poll::Pending;
        };
        let idle = self.idle.get_or_insert_with(|| Idle::new(&self.lease, moved, since));
        ready!(idle.poll(cx, &self.lease, moved, most));
        Poll::Ready(self.is_hungry())
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        extended: bool,
        early: &mut usize,
        inform: &mut dyn FnMut(StatusCode, &mut HeaderMap),
    ) -> Poll<Result<Response<h2::RecvStream>, Failed>> {
        let fail = |err| Poll::Ready(Err(Failed::ForGood(err)));
        let Awaited::Head(response, _) = &mut self.response else { return Poll::Pending };
        while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            let status = interim.status();
            if status == StatusCode::CONTINUE {
                self.upload.iter_mut().for_each(Upload::proceed);
            }
            if status == StatusCode::SWITCHING_PROTOCOLS {
                // RFC 9113 §8.6: HTTP/2 has none.
                return fail(ExchangeError::Backend("a 101"));
            }
            *early += 1;
            if *early > INFORMATIONAL_RESPONSES {
                return fail(ExchangeError::Backend("one 1xx after the other"));
            }
            let mut fields = interim.headers().clone();
            headers::response(&mut fields);
            // RFC 9110 §8.6: an interim response has no content.
            fields.remove(CONTENT_LENGTH);
            inform(status, &mut fields);
        }
        if let Poll::Ready(result) = Pin::new(response).poll(cx) {
            return Poll::Ready(result.map_err(classify));
        }
        // Where the receiver stopped the upload, its response, or the error, is on its way.
        let sent = self.upload.as_mut().map(|upload| upload.poll(cx, 0));
        if let Some(Poll::Ready(Err(PumpError::Body(_)))) = sent {
            return fail(ExchangeError::VisitorBody);
        }
        // Before its answer an upgrade has no body that could be slow.
        let upload = self.upload.as_mut().filter(|_| !extended);
        if upload.is_some_and(|upload| upload.is_too_slow(cx)) {
            return fail(ExchangeError::VisitorSlow);
        }
        let moved = self.uploaded();
        let Some(still) = &mut self.still else { return Poll::Pending };
        ready!(still.poll(cx, moved));
        fail(ExchangeError::BackendTimeout(still.patience))
    }
}

/// RFC 9113 §8.7: a stream above GOAWAY's last id, or REFUSED_STREAM, was not processed.
fn classify(err: h2::Error) -> Failed {
    let refused =
        err.is_reset() && err.is_remote() && err.reason() == Some(h2::Reason::REFUSED_STREAM);
    // h2 gives GOAWAY's error to exactly those streams that it says weren't processed.
    let above = err.is_go_away() && err.is_remote();
    if refused || above {
        Failed::Unprocessed(err)
    } else {
        Failed::ForGood(ExchangeError::Tunnel(err))
    }
}
