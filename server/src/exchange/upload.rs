//! A request's body on its way into a tunnel: has it been touched, does it move, is it too slow?

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use ptth_link::bandwidth::Turns;
use ptth_link::body::Timed;
use ptth_link::deadline::Deadline;
use ptth_link::limits::SLOWEST_RATE;
use ptth_link::pump::{Pump, PumpError};
use tokio::time::Instant;

/// A visitor's body. What exactly is wrong with it, the visitor's side knows; here it is `()`.
pub(crate) type Watched = Timed<UnsyncBoxBody<Bytes, ()>>;

pub(crate) fn watched<B>(body: B) -> Watched
where
    B: Body<Data = Bytes> + Send + 'static,
{
    Timed::new(body.map_err(|_| ()).boxed_unsync())
}

/// Looks again and again whether a body comes too slowly.
#[derive(Debug, Default)]
pub(crate) struct LeastRate {
    look: Option<Instant>,
    timer: Deadline,
}

impl LeastRate {
    /// Whether the sender of `body`, given all the time that it took, sent less than the slowest honest link would. If
    /// not, the task is woken to ask again.
    pub(crate) fn is_too_slow(&mut self, body: &Watched, cx: &mut Context<'_>) -> bool {
        let look = self.look.get_or_insert_with(|| Instant::now() + RATE_GRACE);
        while self.timer.poll_at(cx, *look).is_ready() {
            *look = Instant::now() + RATE_INTERVAL;
            let waited = body.waited();
            let least = waited.as_secs_f64() * f64::from(SLOWEST_RATE);
            if waited >= RATE_GRACE && (body.moved() as f64) < least {
                return true;
            }
        }
        false
    }
}

/// What [`Upload::poll`] may fail of.
pub(super) type UploadError = PumpError<Option<()>>;

/// The copying of a request's body into its stream.
#[derive(Debug)]
pub(super) struct Upload {
    /// Boxed: few requests have a body, and each exchange's future would have room for it.
    pump: Box<Pump<Watched>>,
    done: bool,
    /// The visitor waits for a 100 (Continue) before it sends; we wait with it, but not for ever.
    hold: Option<Deadline>,
    pace: LeastRate,
    /// Of the route's bandwidth, where that is limited.
    turns: Option<Turns>,
}

impl Upload {
    /// Copies `body` to `stream`; after the backend said 100 (Continue), where the visitor `expects` it. How long the
    /// backend may grant no room is the exchange's to say.
    pub(super) fn new(
        body: Watched,
        stream: SendStream<Bytes>,
        expects: bool,
        turns: Option<Turns>,
    ) -> Self {
        let (pump, hold) =
            (Box::new(Pump::new(body, stream, None)), expects.then(Deadline::default));
        Self { pump, done: false, hold, pace: LeastRate::default(), turns }
    }

    /// Ready when the copying has ended; `Ok` at every later call. `heard`: as of [`Pump::poll`].
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        heard: u64,
    ) -> Poll<Result<(), UploadError>> {
        if let Some(hold) = &mut self.hold {
            ready!(hold.poll_after(cx, CONTINUE_TIMEOUT));
            self.hold = None;
        }
        if self.done {
            return Poll::Ready(Ok(()));
        }
        if let Some(turns) = &mut self.turns {
            let rest = self.pump.body().size_hint().upper();
            ready!(turns.poll(cx, rest.map_or(FRAME, |rest| rest.min(FRAME))));
        }
        let before = self.moved();
        let polled = self.pump.poll(cx, heard);
        let moved = self.moved() - before;
        self.turns.iter_mut().for_each(|turns| turns.took(moved));
        let result = ready!(polled);
        self.done = true;
        self.turns = None;
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
        self.pump.body().moved()
    }

    /// Whether anything was taken from the visitor.
    pub(super) fn is_touched(&self) -> bool {
        self.pump.body().is_touched()
    }

    /// Whether it waits for the visitor.
    pub(super) fn is_hungry(&self) -> bool {
        self.pump.body().is_awaited()
    }

    /// As [`Pump::take_stalls`].
    pub(super) fn take_stalls(&mut self) -> u64 {
        self.pump.take_stalls()
    }

    /// As [`LeastRate::is_too_slow`], where the body is wanted.
    pub(super) fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        !self.done && self.hold.is_none() && self.pace.is_too_slow(self.pump.body(), cx)
    }

    /// Gives the visitor's body back to its connection: nothing more is taken from it. The stream stays open.
    pub(super) fn abandon(&mut self) {
        self.pump.body_mut().abandon();
    }

    /// The body, for another attempt.
    pub(super) fn into_body(self) -> Watched {
        self.pump.into_body()
    }
}

/// How long a backend that knows nothing of 100 (Continue) delays an upload; curl's own patience.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// What may come of a body at a time (RFC 9113 §6.5.2).
const FRAME: u64 = 16 << 10;
const RATE_GRACE: Duration = Duration::from_secs(30);
const RATE_INTERVAL: Duration = Duration::from_secs(1);
