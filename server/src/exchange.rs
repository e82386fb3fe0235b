//! One exchange over one stream of one tunnel, under deadlines.
//!
//! In:  a visitor's request whose head was checked and cleaned, and its body.
//! Out: the response's head and body, and an [`Exchange`] that moves both bodies and must be polled.
//!
//! Invariant: every exchange ends, and it runs at most once: another tunnel is tried only if the first
//! one surely did nothing with it (RFC 9113 §8.7) and no byte of the body was taken.

mod transfer;
mod upload;
mod way;

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use log::debug;
use ptth_link::body::{Body, split};
use ptth_link::budget::Held;
use ptth_link::headers;

use crate::error::ExchangeError;
use crate::pool::{Lease, NoTunnel, Tunnel};
use crate::router;

use transfer::Failed;
use upload::Upload;

pub(crate) use transfer::{Exchange, Stillness};
pub(crate) use upload::{LeastRate, watched};
pub(crate) use way::Way;

/// The upgrade that a visitor asks for, and how it would cross (RFC 8441).
#[derive(Clone, Debug)]
pub(crate) struct Upgrade(pub h2::ext::Protocol);

/// Receives 1xx responses on their way to the visitor.
pub(crate) type Informational<'a> = &'a mut (dyn FnMut(StatusCode, &HeaderMap) + Send);

/// Sends a request through a tunnel and waits for the response's head. Cancel safe: dropping it resets
/// the stream.
///
/// A request with an [`Upgrade`] among its extensions crosses as extended CONNECT. The head is boxed, since the
/// futures on its way would each have room for it.
///
/// # Errors
/// [`ExchangeError`] names the party at fault.
pub(crate) async fn ask<B>(
    way: &Way<'_>,
    mut head: Box<Parts>,
    body: B,
    informational: Informational<'_>,
) -> Result<(Response<Body>, Exchange), ExchangeError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let mut way = Cow::Borrowed(way);
    let expects_continue = head.headers.contains_key(http::header::EXPECT);
    let upgrade = head.extensions.remove::<Upgrade>();
    let mut body = (!body.is_end_stream() || upgrade.is_some()).then(|| watched(body));
    let mut attempts = 0;
    let mut refused = Vec::new();
    // For as long as there may be another attempt.
    let mut kept = Some(head);
    let mut stripped = false;
    while let Some(head) = &mut kept {
        attempts += 1;
        let target = Some(&head.uri).filter(|_| !stripped);
        let lease = match way.lease(target, &refused).await {
            Err(NoTunnel::Moved) if !stripped && attempts < ATTEMPTS => {
                way = Cow::Owned(way.anew(&head.uri).ok_or(ExchangeError::Moved)?);
                continue;
            }
            lease => lease.map_err(|none| match none {
                NoTunnel::Absent => ExchangeError::Absent(way.found.route.no_backend.clone()),
                NoTunnel::Full => ExchangeError::Full,
                NoTunnel::Moved => ExchangeError::Moved,
            })?,
        };
        // A request that goes to the origin of `no_backend` in place of a tunnel keeps its path.
        let backend = !lease.tunnel().grants.is_empty();
        if way.found.strip > 0 && !stripped && backend {
            take_prefix(head, way.found.strip)?;
            stripped = true;
        }
        let tunnel = lease.tunnel().clone();
        let extended = tunnel.is_extended();
        if !extended && head.method == Method::CONNECT {
            return Err(ExchangeError::NoExtendedConnect);
        }
        // A backend that can't do it sees an ordinary request; RFC 9110 §7.8 lets it ignore the wish.
        let protocol = upgrade.as_ref().filter(|_| extended);
        let crosses = upgrade.is_none() || extended;
        let (response, stream) = match open(&lease, head, protocol, body.is_none() || !crosses) {
            Ok(opened) => opened,
            Err(err) if is_local_mistake(&err) => return Err(ExchangeError::Tunnel(err)),
            Err(err) if attempts == ATTEMPTS => return Err(ExchangeError::Tunnel(err)),
            Err(err) => {
                // This tunnel takes no more; nothing was sent, so any other one may be tried.
                debug!("tunnel: {} refused a stream: {err}", tunnel.id);
                tunnel.drain();
                continue;
            }
        };
        let waits = expects_continue && upgrade.is_none();
        let upload = body
            .take_if(|_| crosses)
            .map(|body| Upload::new(body, stream, way.shard.limits.stall, waits));
        let extended = protocol.is_some() || head.method == Method::CONNECT;
        let mut exchange =
            Exchange::new(response, upload, lease, (extended, way.shard.limits.head));
        match self::response(&mut exchange, (&way, &tunnel), &mut kept, informational).await {
            Ok(response) => return Ok((response, exchange)),
            Err(Failed::ForGood(err)) => {
                if matches!(&err, ExchangeError::Tunnel(err) if err.is_library()) {
                    tunnel.penalize();
                }
                return Err(err);
            }
            Err(Failed::Unprocessed(err)) => {
                if attempts == ATTEMPTS || kept.is_none() {
                    return Err(ExchangeError::Tunnel(err));
                }
                debug!("exchange: not processed, trying again: {err}");
                refused.push(tunnel.id);
                // Not abandoned with this attempt: the next one may send it.
                body = exchange.take_upload().map(Upload::into_body).or(body);
            }
        }
    }
    Err(ExchangeError::Backend("no stream"))
}

/// Opens the stream. The head is kept for another attempt. Not a part of [`ask`], whose future would
/// keep room for all that is only needed here.
fn open(
    lease: &Lease,
    head: &Parts,
    upgrade: Option<&Upgrade>,
    end: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut head = head.clone();
    if let Some(Upgrade(protocol)) = upgrade {
        head.method = Method::CONNECT;
        head.extensions.insert(protocol.clone());
    }
    lease.tunnel().sender.clone().send_request(Request::from_parts(head, ()), end)
}

/// Takes the route's prefix off the path, once, and tells the origin of it.
fn take_prefix(head: &mut Parts, length: usize) -> Result<(), ExchangeError> {
    let malformed = || ExchangeError::Request(StatusCode::BAD_REQUEST, "The target is malformed.");
    let target = head.uri.path_and_query().ok_or_else(malformed)?;
    let prefix = target.as_str().get(..length).ok_or_else(malformed)?;
    headers::prefix(&mut head.headers, prefix);
    let rest = router::strip(target, length);
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(rest);
    head.uri = Uri::from_parts(parts).map_err(|_| malformed())?;
    Ok(())
}

/// Neither the peer nor the socket: the head itself is one that h2 won't send.
fn is_local_mistake(err: &h2::Error) -> bool {
    !err.is_io() && !err.is_go_away() && !err.is_reset()
}

/// The response, once its head is here. Takes the head that is `kept` once a part of the request's body is gone: the
/// two can't be sent again.
async fn response(
    exchange: &mut Exchange,
    (way, tunnel): (&Way<'_>, &Tunnel),
    kept: &mut Option<Box<Parts>>,
    informational: Informational<'_>,
) -> Result<Response<Body>, Failed> {
    let mut early = 0;
    let mut inform = |status, fields: &mut HeaderMap| {
        way.confine(fields);
        informational(status, fields);
    };
    let result = poll_fn(|cx| {
        let polled = exchange.poll_head(cx, &mut early, &mut inform);
        if exchange.is_touched() {
            *kept = None;
        }
        polled
    });
    let (mut head, stream) = result.await?.into_parts();
    way.confine(&mut head.headers);
    let mut held = Held::of(tunnel.budget.clone());
    let counted = held.set(headers::weight(&head.headers));
    let (inflow, body) = split(stream, &tunnel.budget);
    exchange.begin(inflow, head.status.is_success(), way.shard.limits.stall);
    // A small response is often here as a whole already; then nothing is left to move.
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *exchange).poll(cx).is_ready())).await;
    if counted.is_err() {
        debug!("exchange: too many heads of its tunnel wait for visitors");
        return Err(Failed::ForGood(ExchangeError::Full));
    }
    if exchange.broken {
        // Nothing of it went out yet, so the page can still name the party at fault.
        return Err(Failed::ForGood(ExchangeError::Backend("its response broke off")));
    }
    Ok(Response::from_parts(head, body.with_head(held)))
}

/// Tunnels that one request may try.
const ATTEMPTS: usize = 4;
