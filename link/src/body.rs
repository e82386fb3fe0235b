//! A message body that comes off an HTTP/2 stream, decoupled from whoever reads it.
//!
//! In:  an h2 `RecvStream`, whose frames [`Inflow`] takes at once, whether or not anybody reads.
//! Out: a [`Body`], which gives flow-control credit back as its reader takes bytes.
//!
//! Invariant: h2 never keeps frames for a slow reader. On a connection that many share, h2 counts its
//! own backlog of small frames against the *connection* and ends it; here the backlog is one stream's,
//! merged, and bounded by the window that the sender was given.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use h2::{FlowControl, RecvStream};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::window::Budget;

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The sender reset the stream, or its connection broke.
    Sender(h2::Error),
    /// Whoever fed the body gave up on it.
    Abandoned,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sender(_) => "the sender cut the body short",
            Self::Abandoned => "the body was abandoned",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sender(err) => Some(err),
            Self::Abandoned => None,
        }
    }
}

/// Splits a received stream into the part that takes frames off it and the part that reads them.
///
/// The bytes in between are counted against `budget`.
pub fn split(mut stream: RecvStream, budget: Arc<Budget>) -> (Inflow, Body) {
    if stream.is_end_stream() {
        // As with most requests; then nothing is made for it.
        let inflow = Inflow { flow: None, stream: None, taken: 0, complete: true, breach: false };
        return (inflow, Body::empty());
    }
    let shared = Shared::new(Some(stream.flow_control().clone()));
    let body = Body { shared: Some(shared.clone()), budget: Some(budget.clone()), length: None };
    let flow = Some((shared, budget));
    (Inflow { flow, stream: Some(stream), taken: 0, complete: false, breach: false }, body)
}

/// Takes frames off the stream until it ends or the [`Body`] is dropped. Must be polled for the body to move.
///
/// Dropping it before its end makes the body fail, so that a cut never looks like an end.
#[derive(Debug)]
#[must_use = "the body doesn't move unless this is polled"]
pub struct Inflow {
    stream: Option<RecvStream>,
    flow: Option<(Arc<Mutex<Shared>>, Arc<Budget>)>,
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
        self.taken + self.flow.as_ref().map_or(0, |(shared, _)| lock(shared).read)
    }

    /// Bytes that were read so far, if more wait for the reader.
    pub fn unread(&self) -> Option<u64> {
        let shared = lock(&self.flow.as_ref()?.0);
        let waits = !shared.chunks.is_empty() || !shared.tail.is_empty();
        waits.then_some(shared.read)
    }

    /// Gives up: the body fails, and the stream is returned, whose drop resets it. What waits for the reader is
    /// dropped: a reader that takes nothing would keep the stream and its credit.
    pub fn abandon(&mut self) -> Option<RecvStream> {
        let stream = self.stream.take();
        if let (Some(_), Some((shared, budget))) = (&stream, &self.flow) {
            let mut shared = lock(shared);
            shared.clear(budget);
            shared.finish(Err(BodyError::Abandoned));
        }
        stream
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        loop {
            let (Some(stream), Some((shared, budget))) = (&mut self.stream, &self.flow) else {
                return Poll::Pending;
            };
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.taken += data.len() as u64;
                    lock(shared).push(data, budget);
                }
                Some(Err(err)) => return Poll::Ready(Err(err)),
                None => return stream.poll_trailers(cx),
            }
        }
    }
}

/// Ready when the stream has ended, one way or the other, or when nobody reads the body any more; the
/// stream is then still there, for [`Inflow::abandon`].
impl Future for Inflow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((shared, _)) = self.flow.as_ref().filter(|_| self.stream.is_some()) else {
            return Poll::Ready(());
        };
        {
            let mut shared = lock(shared);
            if shared.unread {
                return Poll::Ready(());
            }
            keep(&mut shared.inflow, cx);
        }
        let end = ready!(self.poll_end(cx));
        self.stream = None;
        self.complete = end.is_ok();
        self.breach = end.as_ref().is_err_and(h2::Error::is_library);
        let Some((shared, _)) = &self.flow else { return Poll::Ready(()) };
        let mut shared = lock(shared);
        shared.inflow = None;
        match end {
            Ok(trailers) => {
                shared.trailers = trailers;
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

#[derive(Debug, Default)]
struct Shared {
    credit: Option<FlowControl>,
    chunks: VecDeque<Bytes>,
    /// Small chunks that came after those, merged.
    tail: BytesMut,
    /// Bytes of memory that `chunks` hold.
    waiting: usize,
    /// Bytes of memory that the budget was told of.
    held: usize,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), BodyError>>,
    unread: bool,
    /// Bytes that the reader took.
    read: u64,
    reader: Option<Waker>,
    inflow: Option<Waker>,
}

impl Shared {
    fn new(credit: Option<FlowControl>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { credit, ..Self::default() }))
    }

    fn push(&mut self, data: Bytes, budget: &Budget) {
        if self.unread {
            // The reader left a moment ago. h2 takes the credit back when the stream is dropped.
            return;
        }
        if data.len() < SMALL {
            if self.tail.len() + data.len() > MERGED {
                self.seal();
            }
            self.tail.extend_from_slice(&data);
        } else {
            self.seal();
            // A slice keeps all that was read with it, up to four times its length.
            let data = if budget.is_calm() { data } else { Bytes::copy_from_slice(&data) };
            self.keep(data);
        }
        self.count(budget);
        self.wake_reader();
    }

    fn keep(&mut self, data: Bytes) {
        self.waiting += data.len() + PIECE;
        self.chunks.push_back(data);
    }

    /// Tells the budget of all that is held now.
    fn count(&mut self, budget: &Budget) {
        let now = self.waiting + self.tail.capacity();
        if let Some(more) = now.checked_sub(self.held) {
            budget.take(more);
        } else {
            budget.give_back(self.held - now);
        }
        self.held = now;
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.keep(tail.freeze());
        }
    }

    fn pop(&mut self, budget: &Budget) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let data = self.chunks.pop_front()?;
        self.waiting -= data.len() + PIECE;
        self.count(budget);
        self.read += data.len() as u64;
        self.took(data.len());
        Some(data)
    }

    /// Credits the sender with what was taken.
    fn took(&mut self, bytes: usize) {
        if let Some(credit) = &mut self.credit {
            // Fails only on a stream that is gone, whose credit h2 has given back itself.
            let _ = credit.release_capacity(bytes);
        }
    }

    /// Drops what waits, and the handle. h2 gives a stream's credit back only when the last handle of it goes,
    /// which may be in the graveyard for long; and the budget would leak.
    fn clear(&mut self, budget: &Budget) {
        let rest = self.chunks.iter().map(Bytes::len).sum::<usize>() + self.tail.len();
        self.chunks = VecDeque::new();
        self.tail = BytesMut::new();
        self.waiting = 0;
        self.count(budget);
        self.took(rest);
        self.credit = None;
    }

    fn finish(&mut self, end: Result<(), BodyError>) {
        self.end = Some(end);
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

/// The reading side. Bytes that its reader took are credited to their sender.
#[derive(Debug)]
pub struct Body {
    shared: Option<Arc<Mutex<Shared>>>,
    budget: Option<Arc<Budget>>,
    length: Option<u64>,
}

impl Body {
    /// A body without a byte.
    pub fn empty() -> Self {
        Self { shared: None, budget: None, length: Some(0) }
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
        let (Some(shared), Some(budget)) = (&this.shared, &this.budget) else {
            return Poll::Ready(None);
        };
        let mut shared = lock(shared);
        if let Some(data) = shared.pop(budget) {
            drop(shared);
            this.length = this.length.map(|length| length.saturating_sub(data.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = shared.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match &shared.end {
            None => {
                keep(&mut shared.reader, cx);
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(None),
            // It stays failed: nobody may take a second look for the end.
            Some(Err(_)) => {
                let end = shared.end.replace(Err(BodyError::Abandoned));
                Poll::Ready(end.and_then(Result::err).map(Err))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let shared = lock(shared);
        matches!(shared.end, Some(Ok(())))
            && shared.chunks.is_empty()
            && shared.tail.is_empty()
            && shared.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let mut shared = lock(&shared);
        shared.unread = true;
        if let Some(budget) = &self.budget {
            shared.clear(budget);
        }
        let inflow = shared.inflow.take();
        drop(shared);
        inflow.into_iter().for_each(Waker::wake);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A chunk below this is copied into the tail rather than kept: it would keep all that was read with it.
const SMALL: usize = 2048;
/// Memory that a chunk needs beside its bytes: its place in the queue, and what counts its slices.
const PIECE: usize = 96;
/// What merged chunks grow to: one DATA frame, one TLS record.
const MERGED: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_keeps_only_itself_where_many_sockets_are_full() {
        let budget = Budget::new(1 << 20);
        let mut full = Vec::new();
        for (sockets, alone) in [(0, false), (100, true)] {
            full.resize_with(sockets, || budget.full());
            let read = Bytes::from(vec![0; 64 * 1024]);
            let shared = Shared::new(None);
            lock(&shared).push(read.slice(..MERGED), &budget);
            assert_eq!(read.is_unique(), alone, "{sockets}");
        }
        assert_eq!(budget.held(), 2 * (MERGED + PIECE));
    }

    /// E2
    #[test]
    fn the_budget_counts_what_pieces_really_hold() {
        let budget = Budget::new(1 << 20);
        let shared = Shared::new(None);
        let mut shared = lock(&shared);
        let read = Bytes::from(vec![0; 64 * 1024]);
        for _ in 0..MERGED + 1 {
            shared.push(read.slice(..1), &budget);
        }
        assert!(read.is_unique(), "a byte keeps a whole read");
        let buffers = shared.chunks.iter().map(|chunk| chunk.len() + PIECE).sum::<usize>();
        assert_eq!(budget.held(), buffers + shared.tail.capacity());
        assert!(budget.held() < 2 * MERGED, "{}", budget.held());
        for (piece, left) in [(MERGED, 1), (1, 0)] {
            assert_eq!(shared.pop(&budget).map(|data| data.len()), Some(piece));
            assert!((left..1024).contains(&budget.held()), "{}", budget.held());
        }
        assert_eq!(budget.held(), 0);
    }
}
