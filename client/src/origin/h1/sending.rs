//! A request on its way to the origin.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use ptth_link::body::Body;
use ptth_link::h1::{Framing, Outgoing, write_request};
use tokio::io::AsyncWrite;

use super::super::OriginError;

/// The rest of a request.
#[derive(Debug, Default)]
pub(in crate::origin) struct Sending {
    out: Outgoing,
    body: Option<Body>,
    /// The whole head if it may be sent again: of an idempotent method (RFC 9110 §9.2.2), and without a body.
    whole: Bytes,
}

impl Sending {
    /// Ignores the fields that frame the body, and `Host`.
    pub(in crate::origin) fn new(
        method: &Method,
        target: &str,
        host: &HeaderValue,
        fields: &HeaderMap,
        body: Body,
    ) -> Self {
        let framing = match body.size_hint().exact() {
            _ if body.is_end_stream() && !fields.contains_key(CONTENT_LENGTH) => Framing::None,
            _ if body.is_end_stream() => Framing::Length(0),
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let head = write_request(method, target, host, fields, framing);
        let body = (!matches!(framing, Framing::None | Framing::Length(0))).then_some(body);
        let repeatable = method.is_idempotent() && body.is_none();
        let whole = if repeatable { head.clone() } else { Bytes::new() };
        let mut out = Outgoing::default();
        out.head(head, framing);
        Self { out, body, whole }
    }

    pub(super) fn stop(&mut self) {
        *self = Self { whole: std::mem::take(&mut self.whole), ..Self::default() };
    }

    /// The request as it was, if it is untouched, or if it is `unanswered` and may be repeated.
    pub(super) fn again(self, unanswered: bool) -> Option<Self> {
        if self.whole.is_empty() || !unanswered {
            return self.is_untouched().then_some(self);
        }
        let mut out = Outgoing::default();
        out.head(self.whole, Framing::None);
        Some(Self { out, ..Self::default() })
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.out.untouched().is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.body.is_none() && self.out.is_flushed()
    }

    /// Ready when all is written. Fails with `Broken`, `Body` or `Length`.
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), OriginError>> {
        loop {
            self.gather(cx)?;
            if self.out.waiting() > 0 {
                ready!(self.out.poll_write(io, cx))?;
                continue;
            }
            ready!(self.out.poll_flush(io, cx))?;
            return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), OriginError> {
        while let Some(body) = &mut self.body
            && self.out.waiting() < BATCH
        {
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(()) };
            let frame = frame.transpose()?;
            let trailers = match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.out.data(data).map_err(|_| OriginError::Length)?;
                    if self.out.is_whole() {
                        self.body = None;
                    }
                    continue;
                }
                Some(Err(frame)) => frame.into_trailers().ok(),
                None => None,
            };
            self.out.end(trailers.as_ref()).map_err(|_| OriginError::Length)?;
            self.body = None;
        }
        Ok(())
    }
}

/// Bytes of one write; bodies come in pieces of 16 KiB.
const BATCH: usize = 64 * 1024;
