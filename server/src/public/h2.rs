//! A visitor that speaks HTTP/2.
//!
//! Invariant: a fault of one of its streams ends that stream; misconduct ends its connection; neither reaches the
//! tunnel or another visitor.

mod abuse;
mod connection;
mod frames;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::Either;
use ptth_link::body::{Body, Inflow, Timed, split};
use ptth_link::deadline::Reading;
use ptth_link::failure::{Failure, Party};
use ptth_link::headers;
use ptth_link::limits::SLOWEST_RATE;
use ptth_link::lock::Mutex;
use ptth_link::nested::Nested;
use ptth_link::pump::Pump;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::error::{ExchangeError, RegisterError};
use crate::exchange::Exchange;

use self::abuse::{Abuse, NESTED};
use self::connection::Connection;
use super::register::{Registered, is_registration};
use super::stall::{Outlet, READING};
use super::{Account, Answer, Then, Visitor, check};

/// Answers one visitor's HTTP/2 connection to its end. Dropping the future cuts it.
pub async fn serve<IO>(visitor: Arc<Visitor>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Boxed, since what a handshake needs isn't to be held by thousands of visitors at rest.
    if let Some(mut connection) = Box::pin(Connection::start(visitor, io)).await {
        connection.run().await;
        connection.wire.close().await;
    }
}

/// One stream, from its head to its end.
async fn answer(
    mut account: Account,
    (mut head, stream): (Box<Parts>, RecvStream),
    (mut respond, outlet): (SendResponse<Bytes>, Arc<Outlet>),
    abuse: Arc<Abuse>,
) {
    // Taken back before it was looked at: it isn't sent at all.
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        return;
    }
    if !check::is_well_formed(&head) {
        account.note(&"malformed");
        account.record.failed(Failure::Request, None);
        abuse.malformed();
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    }
    let visitor = account.visitor.clone();
    let registers = is_registration(&head);
    // Until the end of the tunnel that it may become.
    let nesting = if registers { abuse.tunnels.take(NESTED) } else { None };
    let sound = match registers && nesting.is_none() {
        true => Err(ExchangeError::Register(RegisterError::Full)),
        false => check::limits(&mut head),
    };
    let (mut inflow, body) = split(stream, &visitor.budget);
    let asking = (account, head, body, sound);
    // What comes of a registration's stream is the tunnel's.
    let taking = (!registers).then_some(&mut inflow);
    let answered = ask(asking, taking, (&mut respond, &outlet)).await;
    let Some((response, then)) = answered else { return abuse.cancelled() };
    match then {
        // Not REFUSED_STREAM, since a backend may have seen the request (RFC 9113 §8.7); and some clients take
        // CANCEL for an end without an error.
        Then::Withhold => respond.send_reset(Reason::INTERNAL_ERROR),
        Then::Nothing => {
            drop(inflow);
            reply((respond, outlet), response, Exchange::nothing()).await;
        }
        Then::Exchange(exchange) | Then::Upgrade(exchange) => {
            // The request's body goes on while the response comes.
            let replying = reply((respond, outlet), response, exchange);
            let (_, done) = tokio::join!(&mut inflow, replying);
            if done {
                abuse.answered();
            } else {
                abuse.cancelled();
            }
        }
        Then::Tunnel(registered) => {
            let Some(stream) = inflow.abandon() else { return };
            nest(&visitor, *registered, respond, response, stream).await;
        }
    }
}

type Asking = (Account, Box<Parts>, Body, Result<(), ExchangeError>);

/// The answer, unless the visitor takes the request back. `inflow` takes its body off the stream.
async fn ask(
    (account, head, body, sound): Asking,
    mut inflow: Option<&mut Inflow>,
    (respond, outlet): (&mut SendResponse<Bytes>, &Outlet),
) -> Option<(Response<Answer>, Then)> {
    // 1xx responses come while the future below holds everything else; they are passed on between its polls.
    let early = Mutex::new(Vec::new());
    let mut note = |status, fields: &HeaderMap| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        early.lock().push(response);
    };
    let mut asking = pin!(account.answer(head, body, None, sound, &mut note, || None));
    poll_fn(|cx| {
        if let Some(inflow) = &mut inflow {
            let _ = Pin::new(&mut **inflow).poll(cx);
        }
        let answer = asking.as_mut().poll(cx);
        for response in early.lock().drain(..) {
            // Left out as over HTTP/1.1 while much waits for a slow visitor; but not a 100, which it may wait for.
            if outlet.has_room() || response.status() == StatusCode::CONTINUE {
                outlet.hand(headers::weight(response.headers()));
                let _ = respond.send_informational(response);
            }
        }
        match answer.map(Some) {
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
            answer => answer,
        }
    })
    .await
}

/// Has the stream carry the tunnel, and stays as long as it lives: the connection carries it.
async fn nest(
    visitor: &Visitor,
    registered: Registered,
    mut respond: SendResponse<Bytes>,
    response: Response<Answer>,
    stream: RecvStream,
) {
    let Ok(sender) = respond.send_response(response.map(drop), false) else { return };
    let (over, is_over) = oneshot::channel::<()>();
    let tunnel = registered.tunnel(Nested::new(sender, stream, over), visitor.shard.clone());
    // It lives to the end of the process, like those of door A.
    if visitor.shard.drive(Box::pin(tunnel)) {
        let _ = is_over.await;
    }
}

/// Sends the response. False if the visitor didn't take it all.
async fn reply(
    (mut respond, outlet): (SendResponse<Bytes>, Arc<Outlet>),
    response: Response<Answer>,
    mut exchange: Exchange,
) -> bool {
    let (parts, mut body) = response.into_parts();
    if exchange.extended {
        exchange.be_patient();
    }
    {
        let mut room = pin!(outlet.room());
        let ceded = poll_fn(|cx| {
            let _ = Pin::new(&mut exchange).poll(cx);
            if exchange.is_ceded() || room.as_mut().poll(cx).is_ready() {
                return Poll::Ready(exchange.is_ceded());
            }
            respond.poll_reset(cx).map(|_| false)
        });
        if ceded.await {
            return false;
        }
    }
    outlet.hand(headers::weight(&parts.headers));
    let end = body.is_end_stream();
    let Ok(stream) = respond.send_response(Response::from_parts(parts, ()), end) else {
        return false;
    };
    if let Either::Left(body) = &mut body {
        body.headless();
    }
    let reading = (!exchange.extended).then(|| Reading::new(READING, SLOWEST_RATE));
    let mut pump = (!end).then(|| Pump::new(Timed::new(body), stream, reading));
    // When the pump fails, dropping the exchange resets the stream on the tunnel.
    poll_fn(|cx| {
        let moved = Pin::new(&mut exchange).poll(cx).is_ready();
        if exchange.is_ceded() {
            return Poll::Ready(false);
        }
        let polled =
            pump.as_mut().map(|pump| (pump.poll(cx, exchange.uploaded()), pump.take_stalls()));
        let (polled, stalls) = polled.unzip();
        exchange.record.stalled(Party::Visitor, stalls.unwrap_or_default());
        match polled {
            Some(Poll::Ready(Ok(()))) => pump = None,
            Some(Poll::Ready(Err(_))) => return Poll::Ready(false),
            Some(Poll::Pending) | None => {}
        }
        if pump.is_none() && moved {
            exchange.delivered();
            return Poll::Ready(true);
        }
        Poll::Pending
    })
    .await
}
