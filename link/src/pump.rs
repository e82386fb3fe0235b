//! Copies a body onto an HTTP/2 stream: the one sender of DATA in both programs.
//!
//! Backpressure is end to end: nothing is taken from the body before the receiver granted room for it.
//! Empty chunks are dropped and small ones merged, because peers count frames against us.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

/// Who ended a pump early.
#[derive(Debug)]
pub enum PumpError<E> {
    /// The body failed, so its receiver is never to be sent an end.
    Body(E),
    /// The receiver reset the stream, or its connection is gone.
    Receiver(h2::Error),
    /// The receiver granted no room for too long.
    Stalled(Duration),
    /// The body gave nothing for too long.
    Silent(Duration),
}

/// How long each side may keep still. `None`: as long as it lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// For the receiver to grant room.
    pub receiver: Option<Duration>,
    /// For the body to give the next frame.
    pub body: Option<Duration>,
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
) -> Result<u64, PumpError<B::Error>>
where
    B: Body<Data = Bytes>,
{
    let mut source = Source { body: pin!(body), ahead: None };
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
            let room = room(stream, data.len(), patience.receiver).await?;
            let part = data.split_to(room.min(data.len()));
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
    /// What the body gave while a chunk was being merged, and wasn't part of it: a frame, its end, an error.
    ahead: Option<Option<Result<Frame<Bytes>, B::Error>>>,
}

impl<B: Body<Data = Bytes>> Source<'_, B> {
    fn is_end(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, B::Error>> {
        loop {
            let frame = match self.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(Next::End)),
                Poll::Ready(Some(Err(err))) => return Poll::Ready(Err(err)),
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) if data.len() >= SMALL => return Poll::Ready(Ok(Next::Data(data))),
                Ok(data) => return self.merge(cx, data).map(|data| Ok(Next::Data(data))),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(Ok(Next::Trailers(trailers)));
                    }
                }
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.ahead.take() {
            Some(polled) => Poll::Ready(polled),
            None => self.body.as_mut().poll_frame(cx),
        }
    }

    /// Adds what is there already, without waiting for more.
    fn merge(&mut self, cx: &mut Context<'_>, first: Bytes) -> Poll<Bytes> {
        let mut merged = BytesMut::new();
        while !self.body.is_end_stream() {
            let Poll::Ready(polled) = self.body.as_mut().poll_frame(cx) else { break };
            let data = polled.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            match data {
                Some(data) if first.len() + merged.len() + data.len() <= MERGED => {
                    if merged.is_empty() {
                        merged.reserve(first.len() + data.len());
                        merged.extend_from_slice(&first);
                    }
                    merged.extend_from_slice(data);
                }
                _ => {
                    self.ahead = Some(polled);
                    break;
                }
            }
        }
        Poll::Ready(if merged.is_empty() { first } else { merged.freeze() })
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
    let mut clock = Clock::new(patience);
    poll_fn(|cx| {
        if let Poll::Ready(reset) = stream.poll_reset(cx) {
            return Poll::Ready(Err(PumpError::Receiver(reset.map_or_else(|err| err, Into::into))));
        }
        match source.poll_next(cx) {
            Poll::Ready(next) => Poll::Ready(next.map_err(PumpError::Body)),
            Poll::Pending => clock.poll(cx).map(|after| Err(PumpError::Silent(after))),
        }
    })
    .await
}

/// Waits until the receiver granted room for at least one byte of `wanted`.
async fn room<E>(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    patience: Option<Duration>,
) -> Result<usize, PumpError<E>> {
    stream.reserve_capacity(wanted);
    let mut clock = Clock::new(patience);
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
            Poll::Pending => clock.poll(cx).map(|after| Err(PumpError::Stalled(after))),
        }
    })
    .await
}

/// A deadline that costs nothing until somebody really waits.
struct Clock {
    patience: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn new(patience: Option<Duration>) -> Self {
        Self { patience, timer: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(patience) = self.patience else { return Poll::Pending };
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        timer.as_mut().poll(cx).map(|()| patience)
    }
}

/// A chunk below this waits for company, if company is there already.
const SMALL: usize = 4096;
/// One DATA frame of the default size (RFC 9113 §6.5.2), one TLS record.
const MERGED: usize = 16 * 1024;
