//! Reads a request's body as a whole, within its bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body;
use ptth_link::headers;

use crate::error::ExchangeError;
use crate::exchange::{LeastRate, Stillness, watched};

use crate::outbox::Permit;

/// Refuses a body whose declared length is too large, before any of it is read.
pub(super) fn check_length(fields: &HeaderMap, limit: usize) -> Result<(), ExchangeError> {
    // It was checked to be digits; more than fit a number are too many.
    let read = |length: &HeaderValue| length.to_str().ok()?.parse::<usize>().ok();
    let fits = |length| read(length).is_some_and(|length| length <= limit);
    if fields.get(CONTENT_LENGTH).is_none_or(fits) { Ok(()) } else { Err(too_large()) }
}

fn too_large() -> ExchangeError {
    let why = "The request's body is larger than this site takes.";
    ExchangeError::Request(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// In bytes.
pub(super) fn weight(head: &Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    OVERHEAD.saturating_add(target).saturating_add(headers::weight(&head.headers))
}

/// The whole of `body`, and its trailers. What it holds is taken from `permit`'s backlog as it comes; a sender
/// that sends nothing for `patience`, or too slowly, isn't waited for.
///
/// # Errors
/// 413 beyond `limit`, [`ExchangeError::Backlog`] without room, and the visitor's own failures.
pub(super) async fn read<B>(
    body: B,
    limit: usize,
    permit: &mut Permit,
    patience: Duration,
) -> Result<(Bytes, Option<HeaderMap>), ExchangeError>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let mut whole = Vec::new();
    let mut trailers = None;
    if body.is_end_stream() {
        return Ok((Bytes::new(), None));
    }
    let mut body = watched(body);
    let mut pace = LeastRate::default();
    let mut still = Stillness::new(patience);
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            let late = still.poll(cx, body.moved()).is_ready();
            if late || pace.is_too_slow(&body, cx) {
                return Poll::Ready(Err(ExchangeError::VisitorSlow));
            }
            Poll::Pending
        });
        let Some(frame) = frame.await? else { break };
        match frame.map_err(|_| ExchangeError::VisitorBody)?.into_data() {
            Ok(data) => append(&mut whole, &data, limit, permit)?,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let spare = whole.capacity() - whole.len();
    whole.shrink_to_fit();
    permit.shrink(spare);
    let trailers = trailers.filter(|trailers| !trailers.is_empty());
    if !permit.grow(trailers.as_ref().map_or(0, headers::weight)) {
        return Err(ExchangeError::Backlog);
    }
    Ok((whole.into(), trailers))
}

/// Copies, since a small piece of a visitor's may hold on to a large buffer.
fn append(
    whole: &mut Vec<u8>,
    data: &[u8],
    limit: usize,
    permit: &mut Permit,
) -> Result<(), ExchangeError> {
    let length = whole.len().saturating_add(data.len());
    if length > limit {
        return Err(too_large());
    }
    let before = whole.capacity();
    if length > before {
        let after = before.saturating_mul(2).clamp(length, limit);
        if !permit.grow(after - before) {
            return Err(ExchangeError::Backlog);
        }
        whole.reserve_exact(after - whole.len());
    }
    whole.extend_from_slice(data);
    Ok(())
}

/// A request's task, and the fields that the gateway adds.
const OVERHEAD: usize = 2048;
