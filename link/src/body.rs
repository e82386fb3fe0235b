//! A message body that comes off an HTTP/2 stream, decoupled from its reader.
//!
//! In:  an h2 `RecvStream`, whose frames [`Inflow`] takes at once, whether or not the body is read.
//! Out: a [`Body`], which gives flow-control credit back as its reader takes bytes.
//!
//! Invariant: h2 never keeps frames for a slow reader. On a connection that many share, h2 counts its
//! own backlog of small frames against the *connection* and ends it; here the backlog is one stream's,
//! merged, and bounded by the window that the sender was given.

mod shared;
mod tap;
mod timed;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::bandwidth::Turns;
use crate::budget::{Budget, Held};
use crate::headers;
use crate::lock::Mutex;

use self::shared::Shared;

pub use self::tap::Tap;
use self::tap::heard;
pub use self::timed::Timed;

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The sender reset the stream, or its connection broke.
    Sender(h2::Error),
    /// Its feeder gave up on it.
    Abandoned,
    /// More of it came than may be held.
    Excess,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sender(_) => "the sender cut the body short",
            Self::Abandoned => "the body was abandoned",
            Self::Excess => "more of the body came than may be held",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sender(err) => Some(err),
            Self::Abandoned | Self::Excess => None,
        }
    }
}

/// Splits a received stream into the part that takes frames off it and the part that reads them.
///
/// The bytes in between are counted against `budget`.
pub fn split(mut stream: RecvStream, budget: &Arc<Budget>) -> (Inflow, Body) {
    if stream.is_end_stream() {
        // As with most requests; then nothing is made for it.
        let inflow = Inflow { flow: None, stream: None, taken: 0, complete: true, breach: false };
        return (inflow, Body::empty());
    }
    let shared = Shared::new(Some(stream.flow_control().clone()), budget.clone());
    budget.renews(|| Arc::<Mutex<Shared>>::downgrade(&shared));
    let body = Body::of(shared.clone(), None);
    let flow = Some(shared);
    (Inflow { flow, stream: Some(stream), taken: 0, complete: false, breach: false }, body)
}

/// Takes frames off the stream until it ends or the [`Body`] is dropped. Must be polled for the body to move.
///
/// Dropping it before its end makes the body fail, so that a cut never looks like an end.
#[derive(Debug)]
#[must_use = "the body doesn't move unless this is polled"]
pub struct Inflow {
    stream: Option<RecvStream>,
    flow: Option<Arc<Mutex<Shared>>>,
    taken: u64,
    complete: bool,
    breach: bool,
}

impl Inflow {
    /// Whether the whole body came through.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the sender broke the protocol, like one whose body contradicts its length.
    pub fn is_breach(&self) -> bool {
        self.breach
    }

    /// Bytes that came in so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes that came in and bytes that were read so far: it grows while either side moves.
    pub fn moved(&self) -> u64 {
        self.taken + self.flow.as_ref().map_or(0, |shared| shared.lock().read)
    }

    /// Bytes for the reader: of a whole body all, else those that were read so far.
    pub fn read(&self) -> u64 {
        match (self.complete, &self.flow) {
            (false, Some(shared)) => shared.lock().read,
            _ => self.taken,
        }
    }

    /// Bytes that were read so far, if more wait for the reader.
    pub fn unread(&self) -> Option<u64> {
        let shared = self.flow.as_ref()?.lock();
        shared.waits().then_some(shared.read)
    }

    /// Gives up: the body fails, and the stream is returned, whose drop resets it. What waits for the reader is
    /// dropped: a reader that takes nothing would keep the stream and its credit.
    pub fn abandon(&mut self) -> Option<RecvStream> {
        let stream = self.stream.take();
        if let (Some(_), Some(shared)) = (&stream, &self.flow) {
            let mut shared = shared.lock();
            shared.clear();
            shared.finish(Err(BodyError::Abandoned));
        }
        stream
    }

    /// The end of the stream; or none, when what comes can't be kept.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Option<HeaderMap>, h2::Error>>> {
        loop {
            let (Some(stream), Some(shared)) = (&mut self.stream, &self.flow) else {
                return Poll::Pending;
            };
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.taken += data.len() as u64;
                    if shared.lock().push(data).is_err() {
                        return Poll::Ready(None);
                    }
                }
                Some(Err(err)) => return Poll::Ready(Some(Err(err))),
                None => return stream.poll_trailers(cx).map(Some),
            }
        }
    }
}

/// Ready when the stream has ended, one way or the other, or when the body isn't read any more, or can't be
/// kept; the stream is then still there, for [`Inflow::abandon`].
impl Future for Inflow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.flow.as_ref().filter(|_| self.stream.is_some()) else {
            return Poll::Ready(());
        };
        {
            let mut shared = shared.lock();
            if shared.unread {
                return Poll::Ready(());
            }
            keep(&mut shared.inflow, cx);
        }
        let Some(end) = ready!(self.poll_end(cx)) else { return Poll::Ready(()) };
        self.stream = None;
        self.complete = end.is_ok();
        self.breach = end.as_ref().is_err_and(h2::Error::is_library);
        let Some(shared) = &self.flow else { return Poll::Ready(()) };
        let mut shared = shared.lock();
        shared.inflow = None;
        match end {
            Ok(trailers) => {
                shared.trailing = trailers.as_ref().map_or(0, headers::weight);
                shared.trailers = trailers;
                // It is all that comes, and was let in by the limit of a head.
                let _ = shared.count();
                shared.finish(Ok(()));
            }
            Err(err) => shared.finish(Err(BodyError::Sender(err))),
        }
        Poll::Ready(())
    }
}

/// Has the task woken that polls; most often it is the same one as before.
fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        drop(self.abandon());
    }
}

/// The reading side. Bytes that its reader took are credited to their sender.
#[derive(Debug)]
pub struct Body {
    shared: Option<Arc<Mutex<Shared>>>,
    /// What the head holds that belongs to it.
    head: Option<Held>,
    length: Option<u64>,
    turns: Option<Box<Turns>>,
    tap: Option<Tap>,
}

impl Body {
    /// A body without a byte.
    pub fn empty() -> Self {
        Self { shared: None, head: None, length: Some(0), turns: None, tap: None }
    }

    fn of(shared: Arc<Mutex<Shared>>, length: Option<u64>) -> Self {
        Self { shared: Some(shared), head: None, length, turns: None, tap: None }
    }

    /// Counts what the head holds that belongs to it, until it is sent.
    #[must_use]
    pub fn with_head(mut self, held: Held) -> Self {
        self.head = Some(held);
        self
    }

    /// Says that the head is sent.
    pub fn headless(&mut self) {
        self.head = None;
    }

    /// States the length that the head declared, so that an HTTP/1.1 peer isn't sent chunks.
    #[must_use]
    pub fn with_length(mut self, length: Option<u64>) -> Self {
        if self.shared.is_some() {
            self.length = length;
        }
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(shared) = &this.shared else { return Poll::Ready(None) };
        let mut shared = shared.lock();
        if let Some(turns) = this.turns.as_mut().filter(|_| shared.waits()) {
            ready!(turns.poll(cx, shared.next() as u64));
        }
        if let Some(data) = shared.pop() {
            drop(shared);
            this.turns.iter_mut().for_each(|turns| turns.took(data.len() as u64));
            this.length = this.length.map(|length| length.saturating_sub(data.len() as u64));
            let data = Frame::data(data);
            return Poll::Ready(Some(Ok(heard(&mut this.tap, data))));
        }
        if let Some(trailers) = shared.trailers.take() {
            shared.trailing = 0;
            let _ = shared.count();
            let trailers = Frame::trailers(trailers);
            return Poll::Ready(Some(Ok(heard(&mut this.tap, trailers))));
        }
        match &shared.end {
            None => {
                keep(&mut shared.reader, cx);
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(None),
            // It stays failed: a second look must not show an end.
            Some(Err(_)) => {
                let end = shared.end.replace(Err(BodyError::Abandoned));
                Poll::Ready(end.and_then(Result::err).map(Err))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let shared = shared.lock();
        matches!(shared.end, Some(Ok(()))) && !shared.waits() && shared.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// Writes a body to one half of a socket, and shuts that down when the body has ended.
///
/// # Errors
/// Those of the body and of the socket.
pub async fn write_out<B>(body: B, half: &mut (impl AsyncWrite + Unpin)) -> io::Result<()>
where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            half.write_all(&data).await?;
            half.flush().await?;
        }
    }
    half.shutdown().await
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let mut shared = shared.lock();
        shared.unread = true;
        shared.clear();
        let inflow = shared.inflow.take();
        drop(shared);
        inflow.into_iter().for_each(Waker::wake);
    }
}
