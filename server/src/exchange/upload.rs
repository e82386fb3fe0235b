//! A request's body on its way into a tunnel, watched: has it been touched, does it move, is it too slow?

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use ptth_link::deadline::Deadline;
use ptth_link::headers;
use ptth_link::limits::SLOWEST_RATE;
use ptth_link::pump::{Pump, PumpError};
use ptth_link::reading::Reading;
use tokio::time::Instant;

/// A visitor's body, and how the visitor sends it.
pub(crate) struct Watched {
    /// `None`: given back to the visitor's connection, or at its end.
    body: Option<UnsyncBoxBody<Bytes, ()>>,
    touched: bool,
    moved: u64,
    /// Since when the visitor keeps us waiting, and how long it did before.
    hungry: Option<Instant>,
    waited: Duration,
    /// When its rate is looked at next.
    look: Option<Instant>,
    timer: Deadline,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("moved", &self.moved).finish_non_exhaustive()
    }
}

impl Watched {
    /// Watches `body`. What exactly is wrong with it, the visitor's side knows; here it is `()`.
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        Self {
            body: Some(body.map_err(|_| ()).boxed_unsync()),
            touched: false,
            moved: 0,
            hungry: None,
            waited: Duration::ZERO,
            look: None,
            timer: Deadline::default(),
        }
    }

    /// Bytes taken from it so far.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether its sender, given all the time that it took, sent less than the slowest honest link would. If not, the
    /// task is woken to ask again.
    pub(crate) fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let mut look = *self.look.get_or_insert_with(|| Instant::now() + RATE_GRACE);
        while self.timer.poll_at(cx, look).is_ready() {
            look = Instant::now() + RATE_INTERVAL;
            self.look = Some(look);
            let waited = self.waited + self.hungry.map_or(Duration::ZERO, |since| since.elapsed());
            let least = waited.as_secs_f64() * f64::from(SLOWEST_RATE);
            if waited >= RATE_GRACE && (self.moved as f64) < least {
                return true;
            }
        }
        false
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Some(Err(()))) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            self.hungry.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        self.touched = true;
        if let Some(since) = self.hungry.take() {
            self.waited += since.elapsed();
        }
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame?;
            self.moved += frame.data_ref().map_or(0, |data| data.len() as u64);
            if let Some(trailers) = frame.trailers_mut() {
                headers::trailers(trailers);
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}

/// The copying of a request's body into its stream.
#[derive(Debug)]
pub(super) struct Upload {
    /// Boxed: few requests have a body, and each exchange's future would have room for it.
    pump: Box<Pump<Watched>>,
    done: bool,
    /// The visitor waits for a 100 (Continue) before it sends; we wait with it, but not for ever.
    hold: Option<Deadline>,
}

impl Upload {
    /// Copies `body` to `stream`, whose backend grants room within each `patience`; after the backend said 100
    /// (Continue), where the visitor `expects` it.
    pub(super) fn new(
        body: Watched,
        stream: SendStream<Bytes>,
        patience: Duration,
        expects: bool,
    ) -> Self {
        let pump = Box::new(Pump::new(body, stream, Some(Reading::new(patience, 0))));
        Self { pump, done: false, hold: expects.then(Deadline::default) }
    }

    /// Ready when the copying has ended; `Ok` at every later call. `heard`: as of [`Pump::poll`].
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        heard: u64,
    ) -> Poll<Result<(), PumpError<()>>> {
        if let Some(hold) = &mut self.hold {
            ready!(hold.poll_after(cx, CONTINUE_TIMEOUT));
            self.hold = None;
        }
        if self.done {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(self.pump.poll(cx, heard));
        self.done = true;
        Poll::Ready(result)
    }

    /// The backend wants the body.
    pub(super) fn proceed(&mut self) {
        self.hold = None;
    }

    /// Whether it still waits for the backend to want the body.
    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Bytes taken from the visitor so far.
    pub(super) fn moved(&self) -> u64 {
        self.pump.body().moved
    }

    /// Whether anything was taken from the visitor.
    pub(super) fn is_touched(&self) -> bool {
        self.pump.body().touched
    }

    /// Whether it waits for the visitor.
    pub(super) fn is_hungry(&self) -> bool {
        self.pump.body().hungry.is_some()
    }

    /// As [`Watched::is_too_slow`], where the body is wanted.
    pub(super) fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        !self.done && self.hold.is_none() && self.pump.body_mut().is_too_slow(cx)
    }

    /// Gives the visitor's body back to its connection: nothing more is taken from it. The stream stays open.
    pub(super) fn abandon(&mut self) {
        self.pump.body_mut().body = None;
    }

    /// The body, for another attempt.
    pub(super) fn into_body(self) -> Watched {
        self.pump.into_body()
    }
}

/// How long a backend that knows nothing of 100 (Continue) delays an upload; curl's own patience.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
const RATE_GRACE: Duration = Duration::from_secs(30);
const RATE_INTERVAL: Duration = Duration::from_secs(1);
