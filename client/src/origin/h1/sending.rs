//! A request on its way to the origin.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::iter::once;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body::Body as HttpBody;
use ptth_link::body::Body;
use tokio::io::AsyncWrite;

use super::H1Error;
use super::head::{self, Framing};

/// What of a request is still to be sent.
#[derive(Debug, Default)]
pub(in crate::origin) struct Sending {
    head: Bytes,
    body: Option<(Body, Left)>,
    /// Of the body, framed.
    queue: VecDeque<Bytes>,
    /// The method is idempotent and there is no body (RFC 9110 §9.2.2).
    repeatable: bool,
    /// The whole head, as long as it may be sent again.
    whole: Bytes,
    touched: bool,
    /// Something was written since the last flush.
    unflushed: bool,
}

/// How much of the body is to come.
#[derive(Debug)]
enum Left {
    Length(u64),
    Chunks,
}

impl Sending {
    /// A request with this body. Of the fields, those that frame it and `Host` don't count.
    pub(in crate::origin) fn new(
        method: &Method,
        target: &str,
        host: &HeaderValue,
        fields: &HeaderMap,
        body: Body,
    ) -> Self {
        let (framing, body) = match body.size_hint().exact() {
            _ if body.is_end_stream() && !fields.contains_key(CONTENT_LENGTH) => {
                (Framing::None, None)
            }
            _ if body.is_end_stream() => (Framing::Length(0), None),
            Some(0) => (Framing::Length(0), None),
            Some(length) => (Framing::Length(length), Some((body, Left::Length(length)))),
            None => (Framing::Chunked, Some((body, Left::Chunks))),
        };
        let head = head::write(method, target, host, fields, framing);
        let repeatable = method.is_idempotent() && body.is_none();
        Self { head, body, repeatable, ..Self::default() }
    }

    /// Keeps what it takes to send the request again on another connection.
    pub(in crate::origin) fn remember(&mut self) {
        if self.repeatable {
            self.whole = self.head.clone();
        }
    }

    /// Something of a response came: the request isn't sent again.
    pub(super) fn forget(&mut self) {
        self.whole = Bytes::new();
    }

    /// Sends no more of it.
    pub(super) fn stop(&mut self) {
        *self = Self { whole: std::mem::take(&mut self.whole), ..Self::default() };
    }

    /// As it was, if the origin surely saw nothing of it.
    pub(super) fn untouched(self) -> Option<Self> {
        self.is_untouched().then_some(self)
    }

    /// As it was, if the origin surely saw nothing of it, or it may be repeated.
    pub(super) fn repeated(self) -> Option<Self> {
        if self.whole.is_empty() {
            return self.untouched();
        }
        Some(Self { head: self.whole, ..Self::default() })
    }

    /// Whether the origin surely saw nothing of it.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched && !self.head.is_empty()
    }

    /// Whether it is all out.
    pub(super) fn is_over(&self) -> bool {
        !self.unflushed && self.head.is_empty() && self.body.is_none() && self.queue.is_empty()
    }

    /// Writes as much as there is and `io` takes. Ready when it is over.
    ///
    /// # Errors
    /// [`H1Error::Io`], [`H1Error::Request`] or [`H1Error::Length`].
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), H1Error>> {
        loop {
            self.gather(cx)?;
            if self.head.is_empty() && self.queue.is_empty() {
                ready!(Pin::new(io).poll_flush(cx)).map_err(H1Error::Io)?;
                self.unflushed = false;
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let mut slices = [IoSlice::new(&[]); BATCH];
            let waiting = once(&self.head).chain(&self.queue);
            let count = slices
                .iter_mut()
                .zip(waiting)
                .map(|(slice, bytes)| *slice = IoSlice::new(bytes))
                .count();
            let slices = slices.get(..count).unwrap_or_default();
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices));
            match written.map_err(H1Error::Io)? {
                0 => return Poll::Ready(Err(H1Error::Io(io::ErrorKind::WriteZero.into()))),
                written => self.wrote(written),
            }
        }
    }

    fn wrote(&mut self, mut written: usize) {
        (self.touched, self.unflushed) = (true, true);
        let part = written.min(self.head.len());
        self.head.advance(part);
        written -= part;
        while let Some(first) = self.queue.front_mut() {
            let part = written.min(first.len());
            first.advance(part);
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
    }

    /// Takes of the body what is there, as far as there is room.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), H1Error> {
        while let Some((body, left)) = &mut self.body
            && self.queue.len() + CHUNK < BATCH
        {
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(()) };
            let data = match frame.transpose().map_err(H1Error::Request)?.map(|f| f.into_data()) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => data,
                ended => {
                    let trailers = ended.and_then(Result::err).and_then(|f| f.into_trailers().ok());
                    match left {
                        // Fewer bytes than the head says.
                        Left::Length(_) => return Err(H1Error::Length),
                        Left::Chunks => self.queue.push_back(last_chunk(trailers)),
                    }
                    self.body = None;
                    return Ok(());
                }
            };
            match left {
                Left::Length(left) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(H1Error::Length)?;
                    let over = *left == 0;
                    self.queue.push_back(data);
                    if over {
                        self.body = None;
                    }
                }
                Left::Chunks => {
                    let size = format!("{:x}\r\n", data.len());
                    self.queue.extend([size.into(), data, Bytes::from_static(b"\r\n")]);
                }
            }
        }
        Ok(())
    }
}

/// What ends a body in chunks (RFC 9112 §7.1).
fn last_chunk(trailers: Option<HeaderMap>) -> Bytes {
    let mut last = BytesMut::from("0");
    for (name, value) in trailers.iter().flatten() {
        head::write_field(&mut last, name, value);
    }
    last.extend_from_slice(b"\r\n\r\n");
    last.freeze()
}

/// What one write takes at most; bodies come in pieces of 16 KiB.
const BATCH: usize = 12;
/// Pieces of a chunk: its size, itself, the end of its line.
const CHUNK: usize = 3;
