//! A visitor that speaks HTTP/2.
//!
//! Invariant: a fault of one of its streams ends that stream; misconduct ends its connection; neither reaches the
//! tunnel or another visitor.

mod conduct;
mod door;
mod engine;
mod frames;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use log::debug;
use ptth_link::alpn::CONNECT_TCP;
use ptth_link::body::{Body, Inflow, Timed, split};
use ptth_link::deadline::Reading;
use ptth_link::h2::Ended;
use ptth_link::headers;
use ptth_link::limits::SLOWEST_RATE;
use ptth_link::lock::Mutex;
use ptth_link::pump::Pump;
use ptth_link::shutdown::Phase;
use ptth_link::upgrade::WEBSOCKET;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::{ExchangeError, RequestId};
use crate::exchange::Exchange;

use self::conduct::Conduct;
use self::engine::Engine;
use super::register;
use super::stall::{Outlet, READING};
use super::{Account, Visitor, admit, check};

/// Answers one visitor's HTTP/2 connection to its end. Dropping the future cuts it.
pub async fn serve<IO>(visitor: Arc<Visitor>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed, since what a handshake needs isn't to be held by thousands of visitors at rest.
    let shared = visitor.trusts(visitor.address);
    let conduct = Arc::new(Conduct::new(shared));
    if let Some(mut engine) = Box::pin(Engine::start(&visitor, conduct.clone(), io)).await {
        run(&mut engine, visitor, conduct).await;
        engine.wire.close().await;
    }
}

/// The requests of one connection that are under way.
struct Requests {
    visitor: Arc<Visitor>,
    conduct: Arc<Conduct>,
    streams: JoinSet<()>,
    /// So far.
    accepted: u64,
    /// The visitor was asked to open no more.
    ending: bool,
}

impl Requests {
    /// Takes those that come, until the connection ends, or there is something to decide: the first one came,
    /// the last one left, or there were too many.
    fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        engine: &mut Engine<IO>,
        were_open: bool,
    ) -> Poll<Option<Ended>> {
        let mut left = false;
        while let Poll::Ready(Some(_)) = self.streams.poll_join_next(cx) {
            left = true;
        }
        let outlet = engine.outlet.clone();
        let ended = engine.poll(cx, |request, respond| {
            self.accepted += 1;
            self.streams.spawn(exchange(&self.visitor, request, respond, &self.conduct, &outlet));
        });
        let changed = self.streams.is_empty() == were_open || (left && self.ending);
        match ended {
            Poll::Pending if changed || self.is_last() || self.conduct.is_bad() => {
                Poll::Ready(None)
            }
            ended => ended.map(Some),
        }
    }

    fn is_last(&self) -> bool {
        self.accepted >= LIFETIME_STREAMS && !self.ending
    }
}

async fn run<IO: AsyncRead + AsyncWrite + Unpin>(
    engine: &mut Engine<IO>,
    visitor: Arc<Visitor>,
    conduct: Arc<Conduct>,
) {
    let mut shutdown = visitor.shard.shutdown.clone();
    let streams = JoinSet::new();
    let mut requests = Requests { visitor, conduct, streams, accepted: 0, ending: false };
    let mut idle = Instant::now() + FIRST_REQUEST;
    let mut busy = None;
    loop {
        let open = !requests.streams.is_empty();
        busy = if open { busy.or_else(|| requests.visitor.permit.busy()) } else { None };
        select! {
            ended = poll_fn(|cx| requests.poll(cx, engine, open)) => match ended {
                Some(ended) => {
                    debug!("visitor: {} connection ended: {ended}", requests.visitor.address);
                    break;
                }
                None if open => idle = Instant::now() + IDLE,
                None => {}
            },
            () = sleep_until(idle), if !open => {
                if requests.ending {
                    break;
                }
                idle = Instant::now() + FAREWELL;
                requests.ending = true;
                engine.wire.connection.graceful_shutdown();
            }
            () = shutdown.reached(Phase::Draining), if !requests.ending => {
                requests.ending = true;
                engine.wire.connection.graceful_shutdown();
            }
        }
        if requests.conduct.is_bad() {
            debug!("visitor: {} cancels too much", requests.visitor.address);
            engine.wire.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            requests.conduct.forgive();
        }
        if requests.is_last() {
            requests.ending = true;
            engine.wire.connection.graceful_shutdown();
        }
        let tunnels = requests.conduct.tunnels();
        if requests.ending && tunnels > 0 && requests.streams.len() <= tunnels {
            requests.visitor.permit.await_end(None);
        }
    }
}

/// One stream, from its head to its end. Boxed, since tokio moves what it runs five times; its head in a box
/// of its own, since each future on the way to the tunnel would have room for it.
fn exchange(
    visitor: &Arc<Visitor>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    conduct: &Arc<Conduct>,
    outlet: &Outlet,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (parts, stream) = request.into_parts();
    let visitor = visitor.seen(&parts.headers);
    let account = Account::open(&visitor, &parts);
    let conduct = conduct.clone();
    if register::is_registration(&parts) {
        return Box::pin(door::register(visitor, parts, stream, respond, (account, conduct)));
    }
    Box::pin(answer(
        visitor,
        (Box::new(parts), stream),
        (respond, outlet.clone()),
        account,
        conduct,
    ))
}

async fn answer(
    visitor: Arc<Visitor>,
    (head, stream): (Box<Parts>, RecvStream),
    (mut respond, outlet): (SendResponse<Bytes>, Outlet),
    account: Account,
    conduct: Arc<Conduct>,
) {
    // Taken back before it was looked at: it isn't sent at all.
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        return;
    }
    let is_head = head.method == Method::HEAD;
    let (mut inflow, body) = split(stream, &visitor.budget);
    match ask(&visitor, (head, body), &mut inflow, (&mut respond, &outlet), account.id).await {
        Ok((response, exchange)) => {
            account.answered(response.status());
            // The request's body goes on while the response comes.
            let (_, done) = tokio::join!(&mut inflow, reply((respond, outlet), response, exchange));
            if done {
                conduct.answered();
            } else {
                conduct.cancelled();
            }
        }
        Err(Unanswered::Cancelled) => conduct.cancelled(),
        Err(Unanswered::Malformed) => {
            account.note(&"malformed");
            conduct.malformed();
            respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        Err(Unanswered::Failed(err)) => {
            refuse(respond, account.failed(&err), is_head);
        }
    }
}

/// Sends a page of ours, or ends the stream without one.
fn refuse(mut respond: SendResponse<Bytes>, page: Option<Response<String>>, is_head: bool) {
    let Some(mut page) = page else {
        // Not REFUSED_STREAM, since a backend may have seen the request (RFC 9113 §8.7); and some clients take
        // CANCEL for an end without an error.
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    page.headers_mut().remove(CONNECTION);
    let (parts, text) = page.into_parts();
    if let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), is_head)
        && !is_head
    {
        let _ = stream.send_data(text.into(), true);
    }
}

/// Why a stream gets no response from a backend.
enum Unanswered {
    /// The visitor took it back.
    Cancelled,
    /// A stream error (RFC 9113 §8.1.1).
    Malformed,
    /// Answered with a page of ours.
    Failed(ExchangeError),
}

/// Asks a backend, and stops asking when the visitor takes the request back.
async fn ask(
    visitor: &Visitor,
    (mut head, body): (Box<Parts>, Body),
    inflow: &mut Inflow,
    (respond, outlet): (&mut SendResponse<Bytes>, &Outlet),
    id: RequestId,
) -> Result<(Response<Body>, Exchange), Unanswered> {
    check::h2(&mut head).map_err(|err| err.map_or(Unanswered::Malformed, Unanswered::Failed))?;
    match head.extensions.get::<Protocol>() {
        Some(protocol) if ![WEBSOCKET, CONNECT_TCP].contains(&protocol.as_str()) => {
            return Err(Unanswered::Failed(ExchangeError::NoExtendedConnect));
        }
        None if head.method == Method::CONNECT => {
            return Err(Unanswered::Failed(ExchangeError::Method));
        }
        _ => {}
    }
    let way = visitor.prepare(&mut head, "2", id).map_err(Unanswered::Failed)?;
    // 1xx responses come while the future below holds everything else; they are passed on between its polls.
    let early = Mutex::new(Vec::new());
    let mut note = |status, fields: &HeaderMap| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        early.lock().push(response);
    };
    let mut asking = pin!(visitor.ask(&way, head, body, id, &mut note));
    let (mut response, exchange) = poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        let answer = asking.as_mut().poll(cx);
        for response in early.lock().drain(..) {
            // Left out as over HTTP/1.1 while much waits for a slow visitor; but not a 100, which it may wait for.
            if outlet.has_room() || response.status() == StatusCode::CONTINUE {
                outlet.hand(headers::weight(response.headers()));
                let _ = respond.send_informational(response);
            }
        }
        if answer.is_pending() && respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Unanswered::Cancelled));
        }
        answer.map_err(Unanswered::Failed)
    })
    .await?;
    admit(&mut response).map_err(Unanswered::Failed)?;
    Ok((response, exchange))
}

/// Sends the response. False if the visitor didn't take it all.
async fn reply(
    (mut respond, outlet): (SendResponse<Bytes>, Outlet),
    response: Response<Body>,
    mut exchange: Exchange,
) -> bool {
    let (parts, mut body) = response.into_parts();
    if exchange.extended {
        exchange.be_patient();
    }
    let ceded = poll_fn(|cx| {
        let _ = Pin::new(&mut exchange).poll(cx);
        if exchange.ceded || outlet.poll_room(cx).is_ready() {
            return Poll::Ready(exchange.ceded);
        }
        respond.poll_reset(cx).map(|_| false)
    });
    if ceded.await {
        return false;
    }
    outlet.hand(headers::weight(&parts.headers));
    let end = body.is_end_stream();
    let Ok(stream) = respond.send_response(Response::from_parts(parts, ()), end) else {
        return false;
    };
    body.headless();
    let reading = (!exchange.extended).then(|| Reading::new(READING, SLOWEST_RATE));
    let mut pump = (!end).then(|| Pump::new(Timed::new(body), stream, reading));
    // When the pump fails, dropping the exchange resets the stream on the tunnel.
    poll_fn(|cx| {
        let moved = Pin::new(&mut exchange).poll(cx).is_ready();
        if exchange.ceded {
            return Poll::Ready(false);
        }
        match pump.as_mut().map(|pump| pump.poll(cx, exchange.uploaded())) {
            Some(Poll::Ready(Ok(()))) => pump = None,
            Some(Poll::Ready(Err(_))) => return Poll::Ready(false),
            Some(Poll::Pending) | None => {}
        }
        if pump.is_none() && moved { Poll::Ready(true) } else { Poll::Pending }
    })
    .await
}

/// After this many streams the visitor is asked to come again.
const LIFETIME_STREAMS: u64 = 1_000_000;
/// From the preface to the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(75);
/// Without a stream.
const IDLE: Duration = Duration::from_secs(75);
/// From our GOAWAY to the close, for a visitor that doesn't answer it.
const FAREWELL: Duration = Duration::from_secs(2);
