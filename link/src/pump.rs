//! Copies a body onto an HTTP/2 stream: the one sender of DATA in both programs.
//!
//! Backpressure is end to end: nothing is taken from the body before the receiver granted room for it.
//! Empty chunks are dropped and small ones merged, because peers count frames against us. Pieces that stay
//! small go out at once while few do, or while the receiver answers; beyond that they wait for company, a
//! moment at most.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::deadline::Reading;

/// Why a pump ended early.
#[derive(Debug)]
pub enum PumpError<E> {
    /// The body failed, so its receiver is never to be sent an end.
    Body(E),
    /// The receiver reset the stream, or its connection is gone.
    Receiver(h2::Error),
    /// The receiver granted no room, or too little, for too long.
    Stalled,
}

/// Copies a body to a stream, up to and including the trailers.
///
/// After an error, as after a drop, the stream is still open: its owner resets it by dropping the last of its handles.
pub struct Pump<B: Body<Data = Bytes>> {
    source: Source<B>,
    stream: SendStream<Bytes>,
    /// On its way, until the receiver grants room.
    waiting: Bytes,
    reading: Option<Reading>,
    /// Whether it waits for the receiver's window, or for a first part of it; and how often it began to wait since.
    stalled: bool,
    stalls: u64,
}

impl<B: Body<Data = Bytes>> std::fmt::Debug for Pump<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Pump<B> {
    /// Copies `body` to `stream`, as long as its receiver keeps to `reading`.
    pub fn new(body: B, stream: SendStream<Bytes>, reading: Option<Reading>) -> Self {
        let source = Source { body, held: Merging::default(), ahead: None, pace: Pace::default() };
        Self { source, stream, waiting: Bytes::new(), reading, stalled: true, stalls: 0 }
    }

    /// The body.
    pub fn body(&self) -> &B {
        &self.source.body
    }

    /// The body.
    pub fn body_mut(&mut self) -> &mut B {
        &mut self.source.body
    }

    /// How often it had to wait for the receiver's window (RFC 9113 §5.2) since the last call. The wait before its first
    /// byte is none of these: h2 has no room for a stream that it hasn't opened yet.
    pub fn take_stalls(&mut self) -> u64 {
        std::mem::take(&mut self.stalls)
    }

    /// The body, of which some bytes may be lost.
    pub fn into_body(self) -> B {
        self.source.body
    }

    /// Ready when all is handed to the stream; not to be polled again then. `heard` counts the bytes that came from
    /// the receiver on the same stream: where two talk with each other, small pieces go out at once.
    ///
    /// # Errors
    /// A [`PumpError`].
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        heard: u64,
    ) -> Poll<Result<(), PumpError<B::Error>>> {
        if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
            return Poll::Ready(Err(PumpError::Receiver(reset.map_or_else(|err| err, Into::into))));
        }
        loop {
            if self.waiting.is_empty() {
                match ready!(self.source.poll_next(cx, heard)).map_err(PumpError::Body)? {
                    Next::Data(data) => self.waiting = data,
                    Next::Trailers(trailers) => {
                        let sent = self.stream.send_trailers(trailers);
                        return Poll::Ready(sent.map_err(PumpError::Receiver));
                    }
                    Next::End => {
                        let sent = self.stream.send_data(Bytes::new(), true);
                        return Poll::Ready(sent.map_err(PumpError::Receiver));
                    }
                }
            }
            let room = ready!(self.poll_room(cx))?;
            let part = self.waiting.split_to(room.min(self.waiting.len()));
            self.reading.iter_mut().for_each(|reading| reading.took(part.len()));
            let end = self.waiting.is_empty() && self.source.is_end();
            self.stream.send_data(part, end).map_err(PumpError::Receiver)?;
            if end {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Ready when the receiver granted room for at least a byte of what waits.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, PumpError<B::Error>>> {
        self.stream.reserve_capacity(self.waiting.len());
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                self.stalled = false;
                return Poll::Ready(Ok(room));
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(err))) => return Poll::Ready(Err(PumpError::Receiver(err))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(PumpError::Receiver(Reason::CANCEL.into())));
                }
                Poll::Pending => break,
            }
        }
        if !std::mem::replace(&mut self.stalled, true) {
            self.stalls += 1;
        }
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        reading.poll_wait(cx).map(|()| Err(PumpError::Stalled))
    }
}

enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

struct Source<B: Body<Data = Bytes>> {
    body: B,
    /// Small pieces, merged.
    held: Merging,
    /// What the body gave that isn't a part of those: a frame, its end, an error.
    ahead: Option<Option<Result<Frame<Bytes>, B::Error>>>,
    pace: Pace,
}

impl<B: Body<Data = Bytes> + Unpin> Source<B> {
    fn is_end(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, heard: u64) -> Poll<Result<Next, B::Error>> {
        loop {
            if self.held.len() > 0 && self.is_end() {
                return Poll::Ready(Ok(Next::Data(self.held.take())));
            }
            let polled = match self.ahead.take() {
                Some(polled) => Poll::Ready(polled),
                None => Pin::new(&mut self.body).poll_frame(cx),
            };
            let Poll::Ready(polled) = polled else {
                return self.poll_held(cx, heard).map(Ok);
            };
            let frame = match polled.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => match self.hold(data) {
                    Some(data) => return Poll::Ready(Ok(Next::Data(data))),
                    None => continue,
                },
                Some(Ok(Err(frame))) => Some(Ok(frame)),
                Some(Err(err)) => Some(Err(err)),
                None => None,
            };
            if self.held.len() > 0 {
                self.ahead = Some(frame);
                return Poll::Ready(Ok(Next::Data(self.held.take())));
            }
            match frame.transpose()?.map(Frame::into_trailers) {
                Some(Ok(trailers)) => return Poll::Ready(Ok(Next::Trailers(trailers))),
                Some(Err(_)) => {}
                None => return Poll::Ready(Ok(Next::End)),
            }
        }
    }

    /// Adds `data` to what is held, and returns what is large enough to go.
    fn hold(&mut self, mut data: Bytes) -> Option<Bytes> {
        if self.held.len() == 0 && data.len() >= SMALL {
            return Some(data);
        }
        let fits = data.len() < SMALL && self.held.len() + data.len() <= MERGED;
        if fits || self.held.len() < LEAST {
            self.held.push(data.split_to(data.len().min(MERGED)));
        }
        if data.is_empty() {
            return None;
        }
        self.ahead = Some(Some(Ok(Frame::data(data))));
        Some(self.held.take())
    }

    /// What is held, when it may go alone.
    fn poll_held(&mut self, cx: &mut Context<'_>, heard: u64) -> Poll<Next> {
        let small = self.held.len() < LEAST;
        if self.held.len() == 0 || small && self.pace.poll(cx, heard).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(Next::Data(self.held.take()))
    }
}

/// Pieces on their way into one frame. A single one isn't copied.
#[derive(Debug, Default)]
struct Merging {
    first: Bytes,
    /// With the first one, as soon as there is a second.
    merged: BytesMut,
}

impl Merging {
    fn len(&self) -> usize {
        self.first.len() + self.merged.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.merged.is_empty() {
            self.merged.reserve(self.first.len() + data.len());
            self.merged.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.merged.extend_from_slice(&data);
    }

    fn take(&mut self) -> Bytes {
        if self.merged.is_empty() {
            return std::mem::take(&mut self.first);
        }
        std::mem::take(&mut self.merged).freeze()
    }
}

/// How often small pieces go out: [`AHEAD`] at once and one each [`GAP`], or as often as the receiver answers.
#[derive(Debug, Default)]
struct Pace {
    heard: u64,
    /// When all that went out so far would have gone, one each [`GAP`].
    next: Option<Instant>,
    timer: Deadline,
}

impl Pace {
    /// Ready when a small piece may go, which then counts.
    fn poll(&mut self, cx: &mut Context<'_>, heard: u64) -> Poll<()> {
        let now = Instant::now();
        if heard != std::mem::replace(&mut self.heard, heard) {
            self.next = None;
        }
        let next = self.next.map_or(now, |next| next.max(now));
        let early = (next - now).saturating_sub(GAP * AHEAD);
        if early.is_zero() {
            self.next = Some(next + GAP);
            self.timer.clear();
            return Poll::Ready(());
        }
        if self.timer.poll_after(cx, early).is_ready() {
            // It came due since the clock was read.
            cx.waker().wake_by_ref();
            self.timer.clear();
        }
        Poll::Pending
    }
}

/// A smaller chunk is merged with the next one, if that is there already.
const SMALL: usize = 4096;
/// A piece below this is small: each costs its receiver as much as a kilobyte, and h2's own defaults end the
/// connection at 128 pieces of a byte that wait unread.
const LEAST: usize = 1024;
/// Small pieces that go out at once: the messages of a handshake, a burst of events.
const AHEAD: u32 = 16;
/// One more small piece each: more often than a screen is drawn, and well within the 50 ms in which an event
/// is to arrive.
const GAP: Duration = Duration::from_millis(10);
/// One DATA frame of the default size (RFC 9113 §6.5.2), one TLS record.
const MERGED: usize = 16 * 1024;
