//! A request's body on its way into a tunnel, watched: has it been touched, does it move, is it too slow?

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use ptth_link::deadline::Deadline;
use ptth_link::headers;
use ptth_link::limits::SLOWEST_RATE;
use ptth_link::pump::{Heard, Patience, PumpError, pump};
use tokio::time::Instant;

/// A visitor's body that a second attempt may take over as long as the first one took nothing of it.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Mutex<State>>);

struct State {
    body: Option<UnsyncBoxBody<Bytes, ()>>,
    touched: bool,
    moved: u64,
    /// Since when the visitor lets us wait, and how long he did before.
    hungry: Option<Instant>,
    waited: Duration,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    /// Watches `body`. What exactly is wrong with it, the visitor's side knows; here it is `()`.
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        Self(Arc::new(Mutex::new(State {
            body: Some(body.map_err(|_| ()).boxed_unsync()),
            touched: false,
            moved: 0,
            hungry: None,
            waited: Duration::ZERO,
        })))
    }

    /// Whether anything was taken from it.
    pub(crate) fn is_touched(&self) -> bool {
        self.lock().touched
    }

    /// Bytes taken from it so far.
    pub(crate) fn moved(&self) -> u64 {
        self.lock().moved
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        let mut state = self.lock();
        let Some(body) = &mut state.body else { return Poll::Ready(Some(Err(()))) };
        let polled = Pin::new(body).poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            state.hungry.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        state.touched = true;
        if let Some(since) = state.hungry.take() {
            state.waited += since.elapsed();
        }
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame?;
            if let Some(data) = frame.data_ref() {
                state.moved += data.len() as u64;
            }
            if let Some(trailers) = frame.trailers_mut() {
                headers::trailers(trailers);
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.lock().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}

type Pumping = Pin<Box<dyn Future<Output = Result<u64, PumpError<()>>> + Send>>;

/// The copying of a request's body into its stream.
pub(crate) struct Upload {
    body: Watched,
    pumping: Option<Pumping>,
    heard: Heard,
    /// The visitor waits for a 100 (Continue) before he sends; we wait with him, but not for ever.
    hold: Option<Deadline>,
    pace: Pace,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("done", &self.pumping.is_none()).finish_non_exhaustive()
    }
}

impl Upload {
    /// Copies `body` to `stream`; after the backend said 100 (Continue), where the visitor `expects` it.
    pub(crate) fn new(
        body: Watched,
        mut stream: SendStream<Bytes>,
        patience: Patience,
        expects: bool,
    ) -> Self {
        let (source, heard) = (body.clone(), Heard::default());
        let answers = heard.clone();
        let pumping = Box::pin(async move { pump(source, &mut stream, patience, &answers).await });
        let hold = expects.then(Deadline::default);
        Self { body, pumping: Some(pumping), heard, hold, pace: Pace::default() }
    }

    /// Says how many bytes the backend has answered with.
    pub(crate) fn heard(&self, bytes: u64) {
        self.heard.note(bytes);
    }

    /// Ready once, when the copying has ended; `Ok` at every later call.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, PumpError<()>>> {
        if let Some(hold) = &mut self.hold {
            if hold.poll_after(cx, CONTINUE_TIMEOUT).is_pending() {
                return Poll::Pending;
            }
            self.hold = None;
        }
        let Some(pumping) = &mut self.pumping else { return Poll::Ready(Ok(0)) };
        let result = pumping.as_mut().poll(cx);
        if result.is_ready() {
            self.pumping = None;
        }
        result
    }

    /// The backend wants the body.
    pub(crate) fn proceed(&mut self) {
        self.hold = None;
    }

    /// Whether it still waits for the backend to want the body.
    pub(crate) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Bytes taken from the visitor so far.
    pub(crate) fn moved(&self) -> u64 {
        self.body.moved()
    }

    /// Whether anything was taken from him.
    pub(crate) fn is_touched(&self) -> bool {
        self.body.is_touched()
    }

    /// Whether it waits for the visitor.
    pub(crate) fn is_hungry(&self) -> bool {
        self.body.lock().hungry.is_some()
    }

    /// Whether the visitor, given all the time he took, sent less than the slowest honest link would.
    pub(crate) fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        if self.pumping.is_none() || self.hold.is_some() {
            return false;
        }
        self.pace.is_too_slow(&self.body, cx)
    }

    /// Gives the visitor's body back to its connection: nothing more is taken from it.
    pub(crate) fn abandon(&mut self) {
        self.body.lock().body = None;
    }
}

/// Looks again and again whether a body comes too slowly.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    next: Option<Instant>,
    timer: Deadline,
}

impl Pace {
    /// Whether the sender of `body`, given all the time he took, sent less than the slowest honest link
    /// would. If not, the task is woken to ask again.
    pub(crate) fn is_too_slow(&mut self, body: &Watched, cx: &mut Context<'_>) -> bool {
        let next = self.next.get_or_insert_with(|| Instant::now() + RATE_GRACE);
        while self.timer.poll_at(cx, *next).is_ready() {
            *next = Instant::now() + RATE_INTERVAL;
            let state = body.lock();
            let waited =
                state.waited + state.hungry.map_or(Duration::ZERO, |since| since.elapsed());
            if waited >= RATE_GRACE
                && (state.moved as f64) < waited.as_secs_f64() * f64::from(SLOWEST_RATE)
            {
                return true;
            }
        }
        false
    }
}

/// How long a backend that knows nothing of 100 (Continue) delays an upload; curl's own patience.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
const RATE_GRACE: Duration = Duration::from_secs(30);
const RATE_INTERVAL: Duration = Duration::from_secs(1);
