//! One exchange over one stream of one tunnel, under deadlines.
//!
//! In:  a visitor's request whose head was checked and cleaned, and its body.
//! Out: the response's head and body, and a [`Carry`] that moves both bodies and must be polled.
//!
//! Invariant: every exchange ends, and it runs at most once: another tunnel is tried only if the first
//! one surely did nothing with it (RFC 9113 §8.7) and no byte of the body was taken.

mod way;

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use log::debug;
use ptth_link::body::{Body, split};
use ptth_link::budget::Held;
use ptth_link::headers;
use ptth_link::limits::INFORMATIONAL_RESPONSES;
use ptth_link::pump::{Patience, PumpError};
use tokio::time::Instant;

use crate::carry::{Carry, Idle, Stillness};
use crate::error::ExchangeError;
use crate::pool::{Lease, NoTunnel};
use crate::quota::{Permit, SMALL};
use crate::router;
use crate::upload::{Upload, Watched};

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
/// [`ExchangeError`] names who is at fault.
pub(crate) async fn forward<B>(
    way: &Way<'_>,
    mut head: Box<Parts>,
    body: B,
    informational: Informational<'_>,
) -> Result<(Response<Body>, Carry), ExchangeError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let mut way = Cow::Borrowed(way);
    let expects_continue = head.headers.contains_key(http::header::EXPECT);
    let upgrade = head.extensions.remove::<Upgrade>();
    let body = (!body.is_end_stream() || upgrade.is_some()).then(|| Watched::new(body));
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
                NoTunnel::Absent => ExchangeError::Absent(way.route.no_backend.clone()),
                NoTunnel::Full => ExchangeError::Full,
                NoTunnel::Moved => ExchangeError::Moved,
            })?,
        };
        // One that falls through goes as it came.
        let backend = !lease.tunnel().grants.is_empty();
        if way.strip > 0 && !stripped && backend {
            take_prefix(head, way.strip)?;
            stripped = true;
        }
        let tunnel = lease.tunnel().id;
        let extended = lease.tunnel().is_extended();
        if !extended && head.method == Method::CONNECT {
            return Err(ExchangeError::NoExtendedConnect);
        }
        // A backend that can't do it sees an ordinary request; RFC 9110 §7.8 lets it ignore the wish.
        let protocol = upgrade.as_ref().filter(|_| extended);
        let body = body.as_ref().filter(|_| upgrade.is_none() || extended);
        let (response, stream) = match open(&lease, head, protocol, body.is_none()) {
            Ok(opened) => opened,
            Err(err) if is_local_mistake(&err) => return Err(ExchangeError::Tunnel(err)),
            Err(err) if attempts == ATTEMPTS => return Err(ExchangeError::Tunnel(err)),
            Err(err) => {
                // This tunnel takes no more; nothing was sent, so any other one may be tried.
                debug!("tunnel: {} refused a stream: {err}", lease.tunnel().id);
                lease.tunnel().drain();
                continue;
            }
        };
        let upload = body.cloned().map(|body| {
            let expects = expects_continue && upgrade.is_none();
            let patience = Patience { receiver: Some(way.stall_timeout), ..Patience::default() };
            Upload::new(body, stream, patience, expects)
        });
        let extended = protocol.is_some() || head.method == Method::CONNECT;
        let waits = Some(lease.tunnel().wait());
        let exchange =
            Exchange(Some(Open { response, upload, lease, waits, extended, idle: None }));
        match exchange.head(&way, &mut kept, informational).await {
            Ok(done) => return Ok(done),
            Err(Failed::ForGood(err)) => return Err(err),
            Err(Failed::Unprocessed(err)) => {
                if attempts == ATTEMPTS || kept.is_none() {
                    return Err(ExchangeError::Tunnel(err));
                }
                debug!("exchange: not processed, trying again: {err}");
                refused.push(tunnel);
            }
        }
    }
    Err(ExchangeError::Backend("no stream"))
}

/// Opens the stream. The head is kept for another attempt. Not a part of [`forward`], whose future would
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

enum Failed {
    /// The backend surely did nothing with the request.
    Unprocessed(h2::Error),
    /// Somebody is at fault.
    ForGood(ExchangeError),
}

/// A stream before its response's head. Dropping it hands the stream to the tunnel's reset limiter.
struct Exchange(Option<Open>);

struct Open {
    response: ResponseFuture,
    upload: Option<Upload>,
    lease: Lease,
    #[allow(dead_code, reason = "held for its drop")]
    waits: Option<Permit>,
    extended: bool,
    /// Once nothing has moved for a while.
    idle: Option<Idle>,
}

impl Exchange {
    /// Drops the head that is `kept` once a part of the body is gone: the two can't be sent again.
    async fn head(
        mut self,
        way: &Way<'_>,
        kept: &mut Option<Box<Parts>>,
        informational: Informational<'_>,
    ) -> Result<(Response<Body>, Carry), Failed> {
        let mut wait = Stillness::new(way.head_timeout);
        let mut early = 0;
        let result = poll_fn(|cx| match &mut self.0 {
            Some(open) => {
                let mut inform = |status, fields: &mut HeaderMap| {
                    way.confine(fields);
                    informational(status, fields);
                };
                let mut polled = open.poll_head(cx, &mut wait, &mut early, &mut inform);
                if polled.is_pending() {
                    polled = open.poll_pressed(cx, wait.lasts()).map(Err);
                }
                if open.upload.as_ref().is_some_and(Upload::is_touched) {
                    *kept = None;
                }
                polled
            }
            None => Poll::Pending,
        })
        .await;
        let response = match result {
            Ok(response) => response,
            Err(failed) => {
                if matches!(&failed, Failed::ForGood(ExchangeError::Tunnel(err)) if err.is_library())
                {
                    self.penalize();
                }
                if let (Failed::Unprocessed(_), Some(open)) = (&failed, &mut self.0) {
                    // Not abandoned with this attempt: the next one may send it.
                    open.upload = None;
                }
                return Err(failed);
            }
        };
        let Some(Open { mut upload, lease, extended, .. }) = self.0.take() else {
            return Err(Failed::ForGood(ExchangeError::Backend("no stream")));
        };
        let (mut head, stream) = response.into_parts();
        way.confine(&mut head.headers);
        let mut held = Held::of(lease.tunnel().budget.clone());
        let counted = held.set(headers::weight(&head.headers));
        // RFC 9110 §10.1.1: instead of the 100; so nobody will ever want that body.
        let refused = upload.as_mut().filter(|held| held.is_held() && !head.status.is_success());
        let unasked = refused.map(Upload::abandon).is_some();
        let (inflow, body) = split(stream, &lease.tunnel().budget);
        let carry = Carry::new(inflow, upload, lease, way.stall_timeout);
        let mut carry = carry.extended(extended).unasked(unasked);
        // A small response is often here as a whole already; then nothing is left to carry.
        poll_fn(|cx| Poll::Ready(Pin::new(&mut carry).poll(cx).is_ready())).await;
        if counted.is_err() {
            debug!("exchange: too many heads of its tunnel wait for visitors");
            return Err(Failed::ForGood(ExchangeError::Full));
        }
        if carry.is_broken() {
            // Nothing of it went out yet, so it can still be said whose fault it is.
            return Err(Failed::ForGood(ExchangeError::Backend("its response broke off")));
        }
        Ok((Response::from_parts(head, body.with_head(held)), carry))
    }

    fn penalize(&self) {
        if let Some(open) = &self.0 {
            open.lease.tunnel().penalize();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(mut open) = self.0.take() {
            if let Some(upload) = &mut open.upload {
                upload.abandon();
            }
            let tunnel = open.lease.tunnel().clone();
            open.waits = None;
            tunnel.reset_limiter.defer(Box::new(open));
        }
    }
}

impl Open {
    /// Ready when others wait for streams, and on this one nothing moves: neither its body, nor its response, which
    /// the few that any address may have wait for as long as it takes.
    fn poll_pressed(&mut self, cx: &mut Context<'_>, since: Option<Instant>) -> Poll<Failed> {
        if self.idle.is_none() && since.is_none() {
            return Poll::Pending;
        }
        let moved = self.upload.as_ref().map_or(0, Upload::moved);
        let unsent = self.upload.as_ref().is_some_and(Upload::is_hungry);
        let begin = || since.map(|since| Idle::new(&self.lease, moved, since));
        self.idle = self.idle.take().or_else(begin);
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        let most = if unsent && !self.extended { 0 } else { SMALL };
        idle.poll(cx, &self.lease, moved, most).map(|()| {
            debug!("exchange: others wait for its stream, on which nothing moves");
            Failed::ForGood(if unsent { ExchangeError::VisitorSlow } else { ExchangeError::Full })
        })
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        wait: &mut Stillness,
        early: &mut usize,
        inform: &mut dyn FnMut(StatusCode, &mut HeaderMap),
    ) -> Poll<Result<Response<h2::RecvStream>, Failed>> {
        while let Poll::Ready(Some(Ok(response))) = self.response.poll_informational(cx) {
            if response.status() == StatusCode::CONTINUE
                && let Some(upload) = &mut self.upload
            {
                upload.proceed();
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                // RFC 9113 §8.6: HTTP/2 has none.
                return Poll::Ready(Err(Failed::ForGood(ExchangeError::Backend("a 101"))));
            }
            *early += 1;
            if *early > INFORMATIONAL_RESPONSES {
                let err = ExchangeError::Backend("one 1xx after the other");
                return Poll::Ready(Err(Failed::ForGood(err)));
            }
            let mut fields = response.headers().clone();
            headers::response(&mut fields);
            // RFC 9110 §8.6: an interim response has no content.
            fields.remove(CONTENT_LENGTH);
            inform(response.status(), &mut fields);
        }
        if let Poll::Ready(result) = Pin::new(&mut self.response).poll(cx) {
            return Poll::Ready(result.map_err(classify));
        }
        let timeout = ExchangeError::BackendTimeout(wait.patience);
        let Some(upload) = &mut self.upload else {
            return wait.poll(cx, 0).map(|()| Err(Failed::ForGood(timeout)));
        };
        match upload.poll(cx) {
            Poll::Ready(Err(PumpError::Body(()))) => {
                return Poll::Ready(Err(Failed::ForGood(ExchangeError::VisitorBody)));
            }
            Poll::Ready(Err(PumpError::Stalled(after) | PumpError::Silent(after))) => {
                let err = ExchangeError::BackendTimeout(after);
                return Poll::Ready(Err(Failed::ForGood(err)));
            }
            // The receiver stopped the upload: its response, or the error, is on its way.
            Poll::Ready(Ok(_) | Err(PumpError::Receiver(_))) | Poll::Pending => {}
        }
        // Before its answer an upgrade has no body that could be slow.
        if !self.extended && upload.is_too_slow(cx) {
            return Poll::Ready(Err(Failed::ForGood(ExchangeError::VisitorSlow)));
        }
        wait.poll(cx, upload.moved()).map(|()| Err(Failed::ForGood(timeout)))
    }
}

/// RFC 9113 §8.7: a stream above GOAWAY's last id, or REFUSED_STREAM, was not processed.
fn classify(err: h2::Error) -> Failed {
    let refused = err.is_reset() && err.is_remote() && err.reason() == Some(Reason::REFUSED_STREAM);
    // h2 gives GOAWAY's error to exactly those streams that it says weren't processed.
    let above = err.is_go_away() && err.is_remote();
    if refused || above {
        Failed::Unprocessed(err)
    } else {
        Failed::ForGood(ExchangeError::Tunnel(err))
    }
}

/// Tunnels that one request may try.
const ATTEMPTS: usize = 4;
