//! A body on its way onto a stream, and how its sender keeps the reader waiting.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::tap::{Tap, heard};
use crate::headers;

/// A body whose bytes and pauses are counted, and whose trailers are cleaned for the crossing.
pub struct Timed<B> {
    /// `None`: given back.
    body: Option<B>,
    touched: bool,
    moved: u64,
    /// Since when the sender keeps the reader waiting, and how long it did before.
    since: Option<Instant>,
    waited: Duration,
    tap: Option<Tap>,
}

impl<B> fmt::Debug for Timed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("moved", &self.moved).finish_non_exhaustive()
    }
}

impl<B> Timed<B> {
    /// Nothing is taken from `body` yet.
    pub fn new(body: B) -> Self {
        let (body, waited) = (Some(body), Duration::ZERO);
        Self { body, touched: false, moved: 0, since: None, waited, tap: None }
    }

    /// Has each frame heard when it is taken.
    #[must_use]
    pub fn with_tap(mut self, tap: Option<Tap>) -> Self {
        self.tap = tap;
        self
    }

    /// Drops the body: nothing more is taken from it, and a reader finds it broken.
    pub fn abandon(&mut self) {
        self.body = None;
    }

    /// Whether anything was taken, be it the end.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// Bytes taken so far.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether the reader waits now.
    pub fn is_awaited(&self) -> bool {
        self.since.is_some()
    }

    /// How long the reader waited so far.
    pub fn waited(&self) -> Duration {
        self.waited + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Timed<B> {
    type Data = Bytes;
    /// `None`: the body was given back.
    type Error = Option<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Option<B::Error>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Some(Err(None))) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            self.since.get_or_insert_with(Instant::now);
            return Poll::Pending;
        };
        self.touched = true;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame.map_err(Some)?;
            self.moved += frame.data_ref().map_or(0, |data| data.len() as u64);
            frame.trailers_mut().into_iter().for_each(headers::trailers);
            Ok(heard(&mut self.tap, frame))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::new, Body::size_hint)
    }
}
