//! One exchange over one stream of one tunnel, under deadlines.
//!
//! In:  a visitor's request whose head was checked and cleaned, and its body.
//! Out: the response's head and body, and an [`Exchange`] that moves both bodies and must be polled.
//!
//! Invariant: every exchange ends, and it runs at most once: another tunnel is tried only if the first
//! one surely did nothing with it (RFC 9113 §8.7) and no byte of the body was taken.

mod stillness;
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
use crate::observe::{End, Record};
use crate::pool::{Lease, NoTunnel, Tunnel, TunnelId};
use crate::router;

use transfer::Failed;
use upload::{Upload, Watched};

pub(crate) use stillness::Stillness;
pub(crate) use transfer::Exchange;
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
    record: &mut Record,
) -> Result<(Response<Body>, Exchange), ExchangeError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let upgrade = head.extensions.remove::<Upgrade>();
    let has_body = !body.is_end_stream() || upgrade.is_some();
    let mut asked = Asked {
        way: Cow::Borrowed(way),
        expects_continue: head.headers.contains_key(http::header::EXPECT),
        upgrade,
        body: has_body.then(|| watched(body)),
        head: Some(head),
        stripped: false,
        refused: Vec::new(),
        attempts: 0,
        record,
    };
    loop {
        match asked.attempt(informational).await {
            Ok(begun) => return Ok(begun),
            Err(Failed::ForGood(err)) => return Err(err),
            Err(Failed::Unprocessed(err)) if asked.attempts >= ATTEMPTS || asked.head.is_none() => {
                return Err(ExchangeError::Tunnel(err));
            }
            Err(Failed::Unprocessed(err)) => debug!("exchange: not processed, trying again: {err}"),
        }
    }
}

/// A request, and what is kept of it for another attempt.
struct Asked<'a> {
    way: Cow<'a, Way<'a>>,
    /// Until a part of its body is gone.
    head: Option<Box<Parts>>,
    /// Until it is on its way.
    body: Option<Watched>,
    upgrade: Option<Upgrade>,
    expects_continue: bool,
    /// The route's prefix is off its path.
    stripped: bool,
    /// The tunnels whose backends did nothing with it.
    refused: Vec<TunnelId>,
    /// Looks for a tunnel so far, [`ATTEMPTS`] at most.
    attempts: usize,
    record: &'a mut Record,
}

impl Asked<'_> {
    async fn attempt(
        &mut self,
        informational: Informational<'_>,
    ) -> Result<(Response<Body>, Exchange), Failed> {
        let lease = self.lease().await?;
        let tunnel = lease.tunnel().clone();
        self.record.leased(tunnel.id);
        let (response, stream) = self.open(&lease)?;
        let patience = self.way.shard.limits.head;
        let waits = self.expects_continue && self.upgrade.is_none();
        let crosses = self.upgrade.is_none() || tunnel.is_extended();
        let turns = self.way.found.route.turns();
        let upload = self.body.take_if(|_| crosses);
        let upload = upload.map(|it| Upload::new(it, stream, waits, turns));
        let is_connect = self.head.as_ref().is_some_and(|head| head.method == Method::CONNECT);
        let extended = is_connect || self.upgrade.is_some() && tunnel.is_extended();
        let mut exchange = Exchange::new(response, upload, lease, (extended, patience));
        match response_of(&mut exchange, (&self.way, &tunnel), &mut self.head, informational).await
        {
            Ok(response) => Ok((response, exchange)),
            Err(Failed::Unprocessed(err)) => {
                self.refused.push(tunnel.id);
                // Not abandoned with this attempt: the next one may send it.
                self.body = exchange.take_upload().map(Upload::into_body).or(self.body.take());
                Err(Failed::Unprocessed(err))
            }
            Err(Failed::ForGood(err)) => {
                if matches!(&err, ExchangeError::Tunnel(err) if err.is_library()) {
                    tunnel.penalize();
                }
                Err(err.into())
            }
        }
    }

    /// The right to a stream, of the tunnels to which the host and path lead by then.
    async fn lease(&mut self) -> Result<Lease, ExchangeError> {
        while self.attempts < ATTEMPTS {
            self.attempts += 1;
            let target = self.head.as_ref().map(|head| &head.uri).filter(|_| !self.stripped);
            match (self.way.lease(target, &self.refused).await, target) {
                (Ok(lease), _) => return Ok(lease),
                (Err(NoTunnel::Moved), Some(uri)) => {
                    self.way = Cow::Owned(self.way.anew(uri).ok_or(ExchangeError::Moved)?);
                }
                (Err(NoTunnel::Moved), None) => break,
                (Err(NoTunnel::Absent), _) => {
                    return Err(ExchangeError::Absent(self.way.found.route.no_backend.clone()));
                }
                (Err(NoTunnel::Full), _) => return Err(ExchangeError::Full),
            }
        }
        Err(ExchangeError::Moved)
    }

    /// Opens the stream. Not a part of the future of an attempt, which would keep room for all that is only needed here.
    fn open(&mut self, lease: &Lease) -> Result<(ResponseFuture, SendStream<Bytes>), Failed> {
        let tunnel = lease.tunnel();
        let head = self.head.as_mut().ok_or(ExchangeError::Backend("no stream"))?;
        // A request that goes to the origin of `no_backend` in place of a tunnel keeps its path.
        let strip = self.way.found.strip;
        if strip > 0 && !self.stripped && !tunnel.grants.is_empty() {
            take_prefix(head, strip)?;
            self.stripped = true;
        }
        let extended = tunnel.is_extended();
        if !extended && head.method == Method::CONNECT {
            return Err(ExchangeError::NoExtendedConnect.into());
        }
        let mut head = Parts::clone(head);
        // A backend that can't do it sees an ordinary request; RFC 9110 §7.8 lets it ignore the wish.
        if let Some(Upgrade(protocol)) = self.upgrade.as_ref().filter(|_| extended) {
            head.method = Method::CONNECT;
            head.extensions.insert(protocol.clone());
        }
        let end = self.body.is_none() || self.upgrade.is_some() && !extended;
        let opened = tunnel.sender.clone().send_request(Request::from_parts(head, ()), end);
        opened.map_err(|err| match is_local_mistake(&err) {
            true => Failed::ForGood(ExchangeError::Tunnel(err)),
            false => {
                // This tunnel takes no more; nothing was sent, so any other one may be tried.
                debug!("tunnel: {} refused a stream: {err}", tunnel.id);
                tunnel.drain();
                Failed::Unprocessed(err)
            }
        })
    }
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
async fn response_of(
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
        return Err(ExchangeError::Full.into());
    }
    if exchange.end == End::Broken {
        // Nothing of it went out yet, so the page can still name the party at fault.
        return Err(ExchangeError::Backend("its response broke off").into());
    }
    let body = body.with_head(held).with_turns(way.found.route.turns());
    Ok(Response::from_parts(head, body))
}

/// Tunnels that one request may try.
const ATTEMPTS: usize = 4;
