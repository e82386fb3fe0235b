//! A visitor who speaks HTTP/1.1: hyper behind the [`super::guard`], and exchanges behind hyper.

mod reply;

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use log::trace;
use ptth_link::body::Body;
use ptth_link::shutdown::{Phase, Shutdown};
use ptth_link::window::Budget;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::carry::Carry;
use crate::error::{ExchangeError, RegisterError, RequestId};
use crate::forward::forward;

use super::guard::{Exchange, Gate, Guard, Verdict};
use super::register;
use super::stall::{Outlet, Stall};
use super::strict::Head;
use super::upgrade::{self, Wish};
use super::{Account, Visitor, admit, declared_length};

use reply::Content;
pub(super) use reply::Reply;

/// Answers one visitor's HTTP/1.1 connection to its end. Dropping the future cuts it.
pub async fn serve<IO>(visitor: Arc<Visitor>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (address, shutdown, budget) =
        (visitor.address, visitor.shutdown.clone(), visitor.budget.clone());
    let answer = |wire| {
        let connection = Arc::new(Connection { visitor, wire });
        move |request: Request<Incoming>| {
            let (head, body) = request.into_parts();
            let answer = connection.clone().answer(Box::new(head), body);
            // Boxed, since hyper moves it about, and keeps room for it while there is no request.
            Box::pin(answer) as Answering
        }
    };
    drive(io, address, shutdown, budget, answer).await;
}

/// What whoever answers an HTTP/1.1 connection has to know of it.
pub(super) struct Wire {
    gate: Gate,
    outlet: Outlet,
    /// Bodies that must move on while hyper waits for its socket.
    background: mpsc::UnboundedSender<Work>,
}

impl Wire {
    /// The verdict on the request that has just come, which is under way until the other is dropped.
    pub(super) fn begin(&self) -> (Option<Verdict>, Exchange) {
        self.outlet.clear();
        (self.gate.verdict(), self.gate.exchange())
    }

    /// The connection stays what it is.
    pub(super) fn refuse_upgrade(&self) {
        self.gate.upgrade(false);
    }
}

/// Has what `answer` makes of the connection answer its requests, to its end. Dropping the future cuts it.
pub(super) async fn drive<IO, A, F>(
    io: IO,
    address: IpAddr,
    mut shutdown: Shutdown,
    budget: Arc<Budget>,
    answer: impl FnOnce(Wire) -> A,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<Reply>, NoResponse>>,
{
    let (io, outlet) = Stall::new(io, budget);
    let (io, gate) = Guard::new(io);
    let (background, mut arriving) = mpsc::unbounded_channel();
    let answer = answer(Wire { gate, outlet, background });
    // hyper closes a connection that is asked to end before its first request, which may be under way.
    let asked = AtomicBool::new(false);
    let answer = |request| {
        asked.store(true, Ordering::Relaxed);
        answer(request)
    };
    let http = http1::Builder::new()
        // A visitor who closes his half is gone: HTTP/1.1 has no other way to say so.
        .half_close(false)
        // What the guard lets pass, hyper must not refuse in its own words. Its default holds 400 KiB of bodies
        // in each direction.
        .max_header_size(HEAD_ROOM)
        .max_buf_size(HEAD_ROOM)
        .max_headers(MAX_FIELDS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .with_upgrades();
    let mut http = Some(Box::pin(http));
    let mut running = JoinSet::new();
    let (mut draining, mut told) = (None, false);
    loop {
        let due = |until: Instant| asked.load(Ordering::Relaxed) || until <= Instant::now();
        if draining.is_some_and(due) && !told {
            told = true;
            http.iter_mut().for_each(|http| http.as_mut().graceful_shutdown());
        }
        let waits = draining.is_some() && !told;
        let connection = poll_fn(|cx| match http.as_mut().map(|http| http.as_mut().poll(cx)) {
            Some(Poll::Ready(result)) => Poll::Ready(Some(result)),
            // Its first request has come.
            Some(Poll::Pending) if waits && asked.load(Ordering::Relaxed) => Poll::Ready(None),
            _ => Poll::Pending,
        });
        select! {
            ended = connection => if let Some(result) = ended {
                // With it go the socket and a body that nobody will read to its end.
                http = None;
                if let Err(err) = result {
                    trace!("visitor: {address} connection ended: {err}");
                }
            },
            Some(work) = arriving.recv() => {
                running.spawn(work);
            }
            Some(_) = running.join_next() => {}
            () = shutdown.reached(Phase::Draining), if draining.is_none() => {
                draining = Some(Instant::now() + FIRST_REQUEST);
            }
            () = sleep_until(draining.unwrap_or_else(Instant::now)), if waits => {}
        }
        if http.is_none() && running.is_empty() && arriving.is_empty() {
            return;
        }
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Reply>, NoResponse>> + Send>>;

/// The connection is closed in place of a response.
#[derive(Debug)]
pub(super) struct NoResponse;

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed without a response")
    }
}

impl std::error::Error for NoResponse {}

/// What the requests of one connection share.
struct Connection {
    visitor: Arc<Visitor>,
    wire: Wire,
}

impl Connection {
    /// The head in a box, since each future on the way to the tunnel would have room for it.
    async fn answer(
        self: Arc<Self>,
        request: Box<Parts>,
        body: Incoming,
    ) -> Result<Response<Reply>, NoResponse> {
        let (verdict, exchange) = self.wire.begin();
        let exchange = (exchange, self.visitor.stay.busy());
        let visitor = &*self.visitor.seen(&request.headers);
        let account = Account::open(visitor, &request);
        let result = match verdict {
            Some(Ok(head)) if head.upgrade => {
                // Boxed, since few requests need it.
                Box::pin(self.upgrade(visitor, request, body, head, account.id)).await
            }
            Some(verdict) => self.exchange(visitor, request, body, verdict, account.id).await,
            None => Err(ExchangeError::Request(StatusCode::BAD_REQUEST, "Unexpected request.")),
        };
        poll_fn(|cx| self.wire.outlet.poll_informed(cx)).await;
        Ok(match result {
            Ok(mut response) => {
                account.answered(response.status());
                // The tunnel's version would make hyper forget to tell HTTP/1.0 that it keeps the
                // connection.
                *response.version_mut() = Version::HTTP_11;
                response.map(|body| Reply {
                    content: Content::Tunnel(body, self.wire.outlet.clone()),
                    exchange,
                })
            }
            Err(err) => {
                // A malformed body shows as a failed upload; the guard knows that the visitor broke it.
                let err = match (err, self.wire.gate.body_refusal()) {
                    (ExchangeError::VisitorBody, Some(refusal)) => {
                        ExchangeError::Request(refusal.status, refusal.reason)
                    }
                    (err, _) => err,
                };
                let page = account.failed(&err).ok_or(NoResponse)?;
                page.map(|text| Reply::page(text, exchange))
            }
        })
    }

    async fn exchange(
        &self,
        visitor: &Visitor,
        mut request: Box<Parts>,
        body: Incoming,
        verdict: Verdict,
        id: RequestId,
    ) -> Result<Response<Body>, ExchangeError> {
        let head =
            verdict.map_err(|refusal| ExchangeError::Request(refusal.status, refusal.reason))?;
        if request.method == Method::CONNECT {
            return Err(ExchangeError::Method);
        }
        if register::is_registration(&request) {
            // With a body, or by HTTP/1.0, it is no upgrade; and nobody else's business either.
            let why = RegisterError::Malformed("a registration has no body");
            return Err(ExchangeError::Register(why));
        }
        let version = if head.http10 { "1.0" } else { "1.1" };
        let way = visitor.prepare(&mut request, version, id)?;
        let is_head = request.method == Method::HEAD;
        let mut inform = |status, fields: &HeaderMap| {
            // RFC 9110 §15.2: HTTP/1.0 has no interim responses.
            if !head.http10 {
                self.wire.outlet.inform(status, fields);
            }
        };
        let (mut response, carry) = visitor.ask(&way, request, body, id, &mut inform).await?;
        admit(&mut response)?;
        let (mut parts, body) = response.into_parts();
        if carry.is_unasked() {
            // RFC 9110 §10.1.1: or he couldn't know whether the body is still waited for.
            parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.carry(carry);
        let length = declared_length(&parts.headers).filter(|_| !is_head);
        if head.http10 && length.is_none() && !is_head && !body.is_end_stream() {
            self.visitor.stay.ends_with_response();
        }
        Ok(Response::from_parts(parts, body.with_length(length)))
    }

    async fn upgrade(
        &self,
        visitor: &Visitor,
        request: Box<Parts>,
        body: Incoming,
        head: Head,
        id: RequestId,
    ) -> Result<Response<Body>, ExchangeError> {
        // However this ends, somebody must tell the guard, who holds the visitor's bytes back.
        let decision = Decision(&self.wire.gate);
        let mut whole = Request::from_parts(*request, body);
        let upgraded = hyper::upgrade::on(&mut whole);
        let (request, body) = whole.into_parts();
        if register::is_registration(&request) {
            return self.register(visitor, request, upgraded, decision).await;
        }
        let mut request = Box::new(request);
        let Some(wish) = Wish::take(&mut request) else {
            // RFC 9110 §7.8: a wish may be ignored.
            return self.exchange(visitor, request, body, Ok(head), id).await;
        };
        let (body, writer) = upgrade::streams(upgraded);
        let way = visitor.prepare(&mut request, "1.1", id)?;
        let mut inform = |status, fields: &HeaderMap| self.wire.outlet.inform(status, fields);
        let (mut response, carry) = forward(&way, request, body, &mut inform).await?;
        admit(&mut response)?;
        if !(response.status().is_success() && carry.is_extended()) {
            drop(decision);
            self.carry(carry);
            let length = declared_length(response.headers());
            return Ok(response.map(|body| body.with_length(length)));
        }
        let (response, work) = upgrade::switch(&wish, response, carry, writer);
        let busy = visitor.stay.busy();
        let work = async move {
            work.await;
            drop(busy);
        };
        decision.accept();
        self.wire.outlet.lift();
        let _ = self.wire.background.send(Box::pin(work));
        Ok(response)
    }

    /// Door B: the connection becomes a tunnel.
    async fn register(
        &self,
        visitor: &Visitor,
        parts: Parts,
        upgraded: OnUpgrade,
        decision: Decision<'_>,
    ) -> Result<Response<Body>, ExchangeError> {
        let admitted = register::admit(visitor, &parts).await?;
        let mut response = Response::new(Body::empty());
        admitted.grant(&mut response, true);
        decision.accept();
        self.wire.outlet.lift();
        let io = async move { upgraded.await.ok().map(TokioIo::new) };
        visitor.stay.leave_to_tunnels();
        let tunnel = admitted.tunnel(io, visitor);
        // Fails only at the end of the process.
        let _ = visitor.drive.as_ref().map(|drive| drive.send(tunnel));
        Ok(response)
    }

    fn carry(&self, carry: Carry) {
        if !carry.is_finished() {
            // Fails only when the connection is gone, and then the drop is what is wanted.
            let _ = self.wire.background.send(Box::pin(carry));
        }
    }
}

/// Refuses the upgrade unless it is accepted.
struct Decision<'a>(&'a Gate);

impl Decision<'_> {
    fn accept(self) {
        self.0.upgrade(true);
        std::mem::forget(self);
    }
}

impl Drop for Decision<'_> {
    fn drop(&mut self) {
        self.0.upgrade(false);
    }
}

/// For a visitor who has just come to say what he wants, of a gateway that is to end.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Above the guard's 32 KiB, so that the guard's refusal, and not hyper's, is what the visitor reads.
const HEAD_ROOM: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;
