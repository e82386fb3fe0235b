//! Stands between an HTTP/1.1 visitor's TLS stream and hyper: hyper reads only what was approved.
//!
//! In:  the visitor's bytes, which [`super::strict`] judges.
//! Out: to hyper the same bytes, one whole head at a time; to the service a [`Verdict`] for each head,
//! in order. A refused head is replaced by a blank one, so that the refusal is answered in its turn,
//! after the responses before it, and nothing that the visitor wrote can pass for a verdict. Small pieces
//! of a body that are there together are handed over as one ([`approved`]).
//!
//! The deadlines of RFC 9112 §9.5 are kept here too, since only here is known what a silence means.

mod approved;
mod clock;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use self::approved::Approved;
use self::clock::Clock;

use super::strict::{BodyKind, Checker, Head, Next, Place, Refusal};

/// What the guard thinks of one head.
pub(super) type Verdict = Result<Head, Refusal>;

/// What the guard and the service tell each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    verdicts: VecDeque<Verdict>,
    /// Requests whose response isn't written yet. While there are any, silence isn't idleness.
    open: usize,
    /// When hyper had taken all of the last response.
    rested: Option<Instant>,
    /// Why the body of the last request broke off, if the visitor broke it.
    body_refusal: Option<Refusal>,
    upgrade: Option<bool>,
    reader: Option<Waker>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict on the head that hyper has just parsed. `None` can't be, and is to be refused.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.lock().verdicts.pop_front()
    }

    /// Why the visitor's body failed, if that was his doing.
    pub(super) fn body_refusal(&self) -> Option<Refusal> {
        self.lock().body_refusal
    }

    /// Decides on the upgrade that the last head asked for.
    pub(super) fn upgrade(&self, accepted: bool) {
        self.change(|state| state.upgrade = Some(accepted));
    }

    /// An exchange that isn't over before the result is dropped.
    pub(super) fn exchange(&self) -> Exchange {
        Exchange(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        let mut state = self.lock();
        change(&mut state);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

/// Keeps the idle clock still.
#[derive(Debug)]
pub(super) struct Exchange(Gate);

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.open = state.open.saturating_sub(1);
        state.rested = Some(Instant::now());
    }
}

/// The stream that hyper is given.
#[derive(Debug)]
pub(super) struct Guard<T> {
    io: T,
    gate: Gate,
    checker: Checker,
    /// What came from the visitor and hyper hasn't seen.
    raw: BytesMut,
    /// What of it is sound.
    approved: Approved,
    mode: Mode,
    /// Where the checker was before it judged what came last.
    place: Place,
    clock: Clock,
    /// Until when to read on: after the last byte, and at most.
    linger: Option<(Pin<Box<Sleep>>, Instant)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    /// HTTP/1.1.
    Http,
    /// A head asked for an upgrade. What follows it is held back until somebody decides (RFC 9931).
    Undecided,
    /// Upgraded: the bytes are none of our business.
    Raw,
    /// Refused: nothing more is read.
    Refused,
    /// The visitor has closed his side.
    Ended,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guard<T> {
    pub(super) fn new(io: T) -> (Self, Gate) {
        let gate = Gate::default();
        let guard = Self {
            io,
            gate: gate.clone(),
            checker: Checker::new(),
            raw: BytesMut::new(),
            approved: Approved::default(),
            mode: Mode::Http,
            place: Place::Between,
            clock: Clock::first(),
            linger: None,
        };
        (guard, gate)
    }

    /// Judges what is there. True if hyper has enough to read.
    fn judge(&mut self) -> io::Result<bool> {
        loop {
            match self.checker.next(self.raw.get(self.approved.plain()..).unwrap_or_default()) {
                Next::More | Next::End => return Ok(self.approved.is_enough()),
                Next::Body { len, part } => {
                    let enough = self.approved.take_body(&mut self.raw, len, part);
                    if enough || !self.checker.is_amid() {
                        return Ok(true);
                    }
                }
                Next::Head { len, mut head } => {
                    self.approved.take(len);
                    // The next silence is a new one.
                    self.clock.silent = None;
                    // An upgrade after a body would have to wait for it; nobody does that.
                    head.upgrade &= head.body == BodyKind::None;
                    if head.upgrade {
                        self.mode = Mode::Undecided;
                    }
                    self.pass(Ok(head));
                    return Ok(true);
                }
                Next::Refuse(refusal) => return self.refuse(refusal),
            }
        }
    }

    fn pass(&mut self, verdict: Verdict) {
        self.clock.fresh = false;
        let mut state = self.gate.lock();
        state.open += 1;
        state.upgrade = None;
        state.verdicts.push_back(verdict);
    }

    fn refuse(&mut self, refusal: Refusal) -> io::Result<bool> {
        let in_body = self.place == Place::Body;
        self.mode = Mode::Refused;
        self.raw.clear();
        self.approved = Approved::default();
        if in_body {
            self.gate.lock().body_refusal = Some(refusal);
            return Err(io::Error::new(io::ErrorKind::InvalidData, refusal.reason));
        }
        self.pass(Err(refusal));
        self.raw.extend_from_slice(BLANK_HEAD);
        self.approved.take(BLANK_HEAD.len());
        Ok(true)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.raw.reserve(CHUNK);
        let polled = pin!(self.io.read_buf(&mut self.raw)).poll(cx);
        if polled.is_pending() && self.raw.is_empty() {
            // An idle connection holds no buffer.
            self.raw = BytesMut::new();
        }
        polled
    }

    /// Between the head that asks for an upgrade and the answer, only an end is looked for.
    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut state = self.gate.lock();
                match state.upgrade {
                    Some(accepted) => {
                        self.mode = if accepted { Mode::Raw } else { Mode::Http };
                        self.clock.fresh = false;
                        return Poll::Ready(Ok(()));
                    }
                    None => state.reader = Some(cx.waker().clone()),
                }
            }
            if self.raw.len() >= CHUNK {
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                self.mode = Mode::Ended;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// What a silence at this place means, once it has lasted long enough.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let rested = {
            let state = self.gate.lock();
            (state.open == 0).then_some(state.rested)
        };
        match ready!(self.clock.poll(cx, self.checker.place(), rested)) {
            Place::Head => Poll::Ready(self.refuse(TOO_SLOW)),
            _ => {
                self.mode = Mode::Ended;
                Poll::Ready(Ok(true))
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.approved.is_ready() {
                this.approved.hand_over(&mut this.raw, buf);
                return Poll::Ready(Ok(()));
            }
            match this.mode {
                Mode::Http => {}
                Mode::Undecided => {
                    ready!(this.poll_undecided(cx))?;
                    continue;
                }
                Mode::Raw if this.raw.is_empty() => {
                    return Pin::new(&mut this.io).poll_read(cx, buf);
                }
                Mode::Raw => {
                    this.approved.take(this.raw.len());
                    this.approved.release();
                    continue;
                }
                Mode::Refused => return Poll::Pending,
                Mode::Ended => return Poll::Ready(Ok(())),
            }
            this.place = this.checker.place();
            if this.judge()? {
                this.approved.release();
                continue;
            }
            if this.place == Place::Body && this.checker.place() == Place::Between {
                // The message ended; what is there already may be the next head.
                continue;
            }
            match this.poll_fill(cx) {
                Poll::Ready(Ok(0)) => {
                    this.approved.release();
                    this.mode = Mode::Ended;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                Poll::Pending if this.approved.len() > 0 => this.approved.release(),
                Poll::Pending => {
                    if ready!(this.poll_silence(cx))? {
                        this.approved.release();
                    }
                }
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Says that nothing more comes, then reads on for a moment: closing a socket with unread bytes in
    /// it resets the connection, and the visitor would lose the response he was just sent (RFC 9112 §9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            let now = Instant::now();
            this.linger = Some((Box::pin(sleep_until(now + LINGER)), now + LINGER_AT_MOST));
        }
        let clean = this.checker.place() == Place::Between && this.raw.is_empty();
        if matches!(this.mode, Mode::Ended | Mode::Raw) || clean {
            return Poll::Ready(Ok(()));
        }
        loop {
            let ended = matches!(this.poll_fill(cx), Poll::Ready(Ok(0) | Err(_)));
            let Some((timer, last)) = &mut this.linger else { return Poll::Ready(Ok(())) };
            if ended || timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if this.raw.is_empty() {
                return Poll::Pending;
            }
            this.raw.clear();
            timer.as_mut().reset((Instant::now() + LINGER).min(*last));
        }
    }
}

/// What hyper parses in place of a head that was refused.
const BLANK_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";
const TOO_SLOW: Refusal =
    Refusal { status: StatusCode::REQUEST_TIMEOUT, reason: "The request's head came too slowly." };
/// For a visitor who is still sending to notice our last response: after each of his bytes, and in all.
/// Many read only when they have sent everything.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_AT_MOST: Duration = Duration::from_secs(30);
/// One TLS record.
const CHUNK: usize = 16 * 1024;
