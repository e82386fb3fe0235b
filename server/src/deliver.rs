//! Requests whose sender was answered before their backend saw them (`respond` of a route).
//!
//! In:  a request of such a route, whose body is read whole (`intake`) and kept in the [`crate::outbox`].
//! Out: an empty answer at once; and the request, in its turn, to the route's backends (`dispatch`).
//!
//! A request is delivered at least once, not at most once: an attempt that failed may have been
//! processed. So each attempt carries the same Idempotency-Key.

mod dispatch;
mod intake;
mod queue;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use ptth_link::body::Body;
use ptth_link::crypto;
use tokio::time::Instant;

use crate::config::Respond;
use crate::error::{ExchangeError, RequestId};
use crate::exchange::{Informational, Way};
use crate::outbox::Delivery;

pub use dispatch::run;

/// Whether a route's `respond` is for such a request. Safe methods want the backend's own answer: several senders of
/// webhooks verify an address by a GET first.
pub(crate) fn suits(method: &Method) -> bool {
    !method.is_safe() && *method != Method::CONNECT
}

/// Takes a request that came `from` an address: reads its body, keeps it, and answers. Dropping the
/// future before it is ready gives the request up; its sender wasn't told that it was taken.
///
/// # Errors
/// [`ExchangeError::Request`] with 413 for a body beyond the limit, [`ExchangeError::Backlog`] where
/// there is no room, and what any upload may fail of.
pub(crate) async fn take<B>(
    way: &Way<'_>,
    respond: Respond,
    (address, id): (IpAddr, RequestId),
    request: Request<B>,
    informational: Informational<'_>,
) -> Result<Response<Body>, ExchangeError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let outbox = &way.shard.outbox;
    let (mut head, body) = request.into_parts();
    let route = way.found.route.id.clone();
    let limit = respond.limit.min(Respond::LARGEST);
    intake::check_length(&head.headers, limit)?;
    if head.headers.get_all(IDEMPOTENCY_KEY).iter().count() > 1 {
        let why = "There are two Idempotency-Key fields.";
        return Err(ExchangeError::Request(StatusCode::BAD_REQUEST, why));
    }
    let permit = outbox.unread.take(&route, address, intake::weight(&head));
    let mut permit = permit.ok_or_else(|| outbox.refuse())?;
    if outbox.is_closed() {
        return Err(outbox.refuse());
    }
    // Here the gateway is the server that RFC 9110 §10.1.1 means.
    if head.headers.remove(EXPECT).is_some() {
        informational(StatusCode::CONTINUE, &HeaderMap::new());
    }
    let read = intake::read(body, limit, &mut permit, way.shard.limits.head).await;
    let (body, trailers) = read.map_err(|err| match err {
        ExchangeError::Backlog => outbox.refuse(),
        err => err,
    })?;
    let permit = permit.moved(&outbox.kept).ok_or_else(|| outbox.refuse())?;
    seal(&mut head, body.len(), trailers.is_some());
    let expires = Instant::now() + KEPT;
    let (attempts, last) = Default::default();
    outbox.push(Delivery { id, address, head, body, trailers, attempts, last, expires, permit })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = respond.status;
    response.headers_mut().insert("2ptth-request-id", id.value());
    response.extensions_mut().insert(Acknowledged);
    Ok(response)
}

/// Completes the head of a request that is kept whole, and that may arrive more than once.
fn seal(head: &mut Parts, length: usize, trailers: bool) {
    head.extensions.clear();
    if !trailers && !head.headers.contains_key(CONTENT_LENGTH) {
        // RFC 9110 §8.6: it is known now, and many origins want it.
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    // An empty one tells nothing apart, as a string or as nothing.
    let own = head.headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
    if own.is_none_or(|key| matches!(key, b"" | b"\"\""))
        && let Ok(key) =
            HeaderValue::try_from(format!("\"{:032x}\"", u128::from_ne_bytes(crypto::random())))
    {
        head.headers.insert(IDEMPOTENCY_KEY, key);
    }
}

/// Marks a response that is the gateway's own, so that its fields need no hygiene.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged;

/// draft-ietf-httpapi-idempotency-key-header: a structured field, whose value is a string.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// A night and a working day: by then the operator has noticed that the backend is away, and the sender's own list
/// of its requests is the better source.
const KEPT: Duration = Duration::from_secs(24 * 3600);
