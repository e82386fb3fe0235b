//! Copies a body onto an HTTP/2 stream: the one sender of DATA in both programs.
//!
//! Backpressure is end to end: nothing is taken from the body before the receiver granted room for it.
//! Empty chunks are dropped and small ones merged, because peers count frames against us. Pieces that stay
//! small go out at once while few do, or while the receiver answers; beyond that they wait for company, a
//! moment at most.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::reading::Reading;

/// Who ended a pump early.
#[derive(Debug)]
pub enum PumpError<E> {
    /// The body failed, so its receiver is never to be sent an end.
    Body(E),
    /// The receiver reset the stream, or its connection is gone.
    Receiver(h2::Error),
    /// The receiver granted no room, or too little, for too long.
    Stalled(Duration),
    /// The body gave nothing for too long.
    Silent(Duration),
}

/// How long each side may keep still. `None`: as long as it lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// For the receiver to grant room.
    pub receiver: Option<Duration>,
    /// Bytes a second that the receiver takes at least while something waits for it.
    pub rate: u32,
    /// For the body to give the next frame.
    pub body: Option<Duration>,
}

/// Bytes that came from the receiver on the same stream, as whoever reads them knows it: where two talk
/// with each other, small pieces go out at once.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Says how many bytes came so far.
    pub fn note(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// Copies `body` to `stream` up to and including the trailers, and returns the number of bytes.
///
/// Not cancel safe as a copy (bytes may be lost), but safe to drop. After an error, as after a drop, the
/// stream is still open: its owner resets it by dropping the last of its handles, now or when he may.
///
/// # Errors
/// A [`PumpError`].
pub async fn pump<B>(
    body: B,
    stream: &mut SendStream<Bytes>,
    patience: Patience,
    heard: &Heard,
) -> Result<u64, PumpError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    let (body, pace) = (pin!(body), Pace::new(heard));
    let mut source = Source { body, held: Held::default(), ahead: None, pace };
    let mut reading = patience.receiver.map(|receiver| Reading::new(receiver, patience.rate));
    let mut copied = 0;
    loop {
        let (mut data, more) = match next(&mut source, stream, patience.body).await? {
            Next::Data(data) => {
                let more = !source.is_end();
                (data, more)
            }
            Next::Trailers(trailers) => {
                stream.send_trailers(trailers).map_err(PumpError::Receiver)?;
                return Ok(copied);
            }
            Next::End => {
                stream.send_data(Bytes::new(), true).map_err(PumpError::Receiver)?;
                return Ok(copied);
            }
        };
        copied += data.len() as u64;
        while !data.is_empty() {
            let room = room(stream, data.len(), reading.as_mut()).await?;
            let part = data.split_to(room.min(data.len()));
            reading.iter_mut().for_each(|reading| reading.took(part.len()));
            let end = data.is_empty() && !more;
            stream.send_data(part, end).map_err(PumpError::Receiver)?;
            if end {
                return Ok(copied);
            }
        }
    }
}

enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

struct Source<'a, B: Body<Data = Bytes>> {
    body: Pin<&'a mut B>,
    /// Small pieces, merged.
    held: Held,
    /// What the body gave that isn't a part of those: a frame, its end, an error.
    ahead: Option<Option<Result<Frame<Bytes>, B::Error>>>,
    pace: Pace<'a>,
}

impl<B: Body<Data = Bytes>> Source<'_, B> {
    fn is_end(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, B::Error>> {
        loop {
            if self.held.len() > 0 && self.is_end() {
                return Poll::Ready(Ok(Next::Data(self.held.take())));
            }
            let polled = match self.ahead.take() {
                Some(polled) => Poll::Ready(polled),
                None => self.body.as_mut().poll_frame(cx),
            };
            let Poll::Ready(polled) = polled else { return self.poll_held(cx).map(Ok) };
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
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let small = self.held.len() < LEAST;
        if self.held.len() == 0 || small && self.pace.poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(Next::Data(self.held.take()))
    }
}

/// Pieces on their way into one frame. A single one isn't copied.
#[derive(Default)]
struct Held {
    first: Bytes,
    /// With the first one, as soon as there is a second.
    merged: BytesMut,
}

impl Held {
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
struct Pace<'a> {
    heard: &'a Heard,
    known: u64,
    /// When all that went out so far would have gone, one each [`GAP`].
    next: Option<Instant>,
    timer: Deadline,
}

impl<'a> Pace<'a> {
    fn new(heard: &'a Heard) -> Self {
        Self { heard, known: 0, next: None, timer: Deadline::default() }
    }

    /// Ready when a small piece may go, which then counts.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let heard = self.heard.0.load(Ordering::Relaxed);
        if heard != std::mem::replace(&mut self.known, heard) {
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

/// The body's next frame, unless the receiver resets the stream first.
async fn next<B>(
    source: &mut Source<'_, B>,
    stream: &mut SendStream<Bytes>,
    patience: Option<Duration>,
) -> Result<Next, PumpError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    let mut deadline = Deadline::default();
    poll_fn(|cx| {
        if let Poll::Ready(reset) = stream.poll_reset(cx) {
            return Poll::Ready(Err(PumpError::Receiver(reset.map_or_else(|err| err, Into::into))));
        }
        match source.poll_next(cx) {
            Poll::Ready(next) => Poll::Ready(next.map_err(PumpError::Body)),
            Poll::Pending => match patience {
                Some(time) => deadline.poll_after(cx, time).map(|()| Err(PumpError::Silent(time))),
                None => Poll::Pending,
            },
        }
    })
    .await
}

/// Waits until the receiver granted room for at least one byte of `wanted`.
async fn room<E>(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    mut reading: Option<&mut Reading>,
) -> Result<usize, PumpError<E>> {
    stream.reserve_capacity(wanted);
    poll_fn(|cx| {
        if let Poll::Ready(reset) = stream.poll_reset(cx) {
            return Poll::Ready(Err(PumpError::Receiver(reset.map_or_else(|err| err, Into::into))));
        }
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(stream.capacity()));
        }
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(room))) if room > 0 => Poll::Ready(Ok(room)),
            Poll::Ready(Some(Ok(_))) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Err(err))) => Poll::Ready(Err(PumpError::Receiver(err))),
            Poll::Ready(None) => Poll::Ready(Err(PumpError::Receiver(Reason::CANCEL.into()))),
            Poll::Pending => match reading.as_mut() {
                Some(reading) => {
                    reading.poll_wait(cx).map(|()| Err(PumpError::Stalled(reading.patience())))
                }
                None => Poll::Pending,
            },
        }
    })
    .await
}

/// A chunk below this waits for company, if company is there already.
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
