//! A visitor's HTTP/1.1 connection: one request after the other, each answered in its turn (RFC 9112 §9).
//!
//! Invariant: the next head is read only when the last message and its response are whole, and nothing is
//! read behind one that was refused.
//! Invariant: what cuts a response short cuts the connection, without TLS's own end.

mod reply;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use log::trace;
use ptth_link::deadline::Deadline;
use ptth_link::h1::{Decoder, Framing, Head, Refusal, Request, RequestReader};
use ptth_link::lock::Mutex;
use ptth_link::shutdown::Phase;
use ptth_link::tcp::{LINGER, Linger};
use ptth_link::upgrade::upgraded;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::error::{ExchangeError, RegisterError};
use crate::exchange::Exchange;

use super::register::{Registered, is_registration};
use super::stall::Stall;
use super::upgrade::Wish;
use super::{Account, Answer, Then, Visitor};

use reply::Reply;
use wire::{DRAINED, State, Wire, begin};

/// Answers one visitor's HTTP/1.1 connection to its end. Dropping the future cuts it.
pub async fn serve<IO>(visitor: Arc<Visitor>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = visitor.address;
    let wire = Arc::new(Mutex::new(State::new(Stall::new(io, visitor.budget.clone()))));
    let connection = Connection { wire, visitor, head_due: Deadline::default(), asked: false };
    if let Err(err) = connection.run().await {
        trace!("visitor: {address} connection ended: {err}");
    }
}

struct Connection<IO> {
    wire: Wire<IO>,
    visitor: Arc<Visitor>,
    head_due: Deadline,
    /// A request has come.
    asked: bool,
}

enum Next {
    Request,
    Close,
    /// It is closed.
    Over,
    Tunnel(Box<Registered>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<IO> {
    async fn run(mut self) -> io::Result<()> {
        while let Some(request) = self.head().await? {
            self.asked = true;
            match self.exchange(request).await? {
                Next::Request => {}
                Next::Close => break,
                Next::Over => return Ok(()),
                Next::Tunnel(registered) => {
                    let shard = &self.visitor.shard;
                    if let Some(state) = Arc::into_inner(self.wire) {
                        let State { io, input, .. } = state.into_inner();
                        let io = upgraded(io.into_inner(), input);
                        let tunnel = registered.tunnel(io, shard.clone());
                        // Fails only at the end of the process.
                        let _ = shard.drive(Box::pin(tunnel));
                    }
                    return Ok(());
                }
            }
        }
        self.close().await
    }

    /// The next request. `None`: there is none, and the connection is to be closed.
    async fn head(&mut self) -> io::Result<Option<Result<Request, Refusal>>> {
        let mut reader = RequestReader::default();
        let (begun, mut head, mut drains) = (Instant::now(), None, None);
        let mut shutdown = self.visitor.shard.shutdown.clone();
        let mut draining = pin!(shutdown.reached(Phase::Draining));
        poll_fn(|cx| {
            let mut wire = self.wire.lock();
            loop {
                match reader.read(&mut wire.input) {
                    Ok(Some(request)) => return Poll::Ready(Ok(Some(Ok(request)))),
                    Err(refusal) => return Poll::Ready(Ok(Some(Err(refusal)))),
                    Ok(None) => {}
                }
                match wire.poll_read(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                    Poll::Ready(read) => drop(read?),
                    Poll::Pending => break,
                }
            }
            if drains.is_none() && draining.as_mut().poll(cx).is_ready() {
                drains = Some(Instant::now());
            }
            let mut due = match reader.is_fresh() {
                true if self.asked => begun + IDLE,
                true => begun + FIRST_BYTE,
                false => *head.get_or_insert_with(Instant::now) + HEAD,
            };
            if let Some(since) = drains.filter(|_| reader.is_fresh()) {
                if self.asked {
                    return Poll::Ready(Ok(None));
                }
                due = due.min(since + FIRST_REQUEST);
            }
            ready!(self.head_due.poll_at(cx, due));
            Poll::Ready(Ok((!reader.is_fresh()).then_some(Err(TOO_SLOW))))
        })
        .await
    }

    async fn exchange(&mut self, request: Result<Request, Refusal>) -> io::Result<Next> {
        let busy = self.visitor.permit.busy();
        let refused = request.is_err();
        let (mut head, said, rest, mut sound) = match request {
            Ok(Request { parts, head, body }) => (parts, head, body, Ok(())),
            Err(Refusal { status, reason }) => {
                let nothing = Box::new(http::Request::new(()).into_parts().0);
                (
                    nothing,
                    Head::default(),
                    Decoder::Done,
                    Err(ExchangeError::Request(status, reason)),
                )
            }
        };
        if is_registration(&head) && !said.upgrade {
            // With a body, or by HTTP/1.0, it is no upgrade, and it must not cross either.
            let why = RegisterError::Malformed("a registration has no body");
            sound = Err(ExchangeError::Register(why));
        }
        let account = Account::open(&self.visitor, &head);
        let reply = Reply::to(&head, &said);
        // RFC 9110 §7.8: a wish may be ignored.
        let wish = if said.upgrade { Wish::take(&mut head) } else { None };
        let body = begin(&self.wire, wish.is_none().then_some(rest), said.expect_continue);
        let wire = self.wire.clone();
        let mut inform = |status, fields: &HeaderMap| {
            // RFC 9110 §15.2: HTTP/1.0 has no interim responses.
            if !said.http10 {
                wire.lock().inform(status, fields);
            }
        };
        let refusal = || wire.lock().refusal;
        // Boxed: the connection would hold its size between requests, too.
        let answer = Box::pin(account.answer(head, body, wish, sound, &mut inform, refusal));
        let (response, then) = self.answered(answer).await?;
        let next = self.respond(reply, response, then, refused).await;
        drop(busy);
        next
    }

    /// Sends the response, and moves the rest of the request's body.
    async fn respond(
        &mut self,
        mut reply: Reply,
        response: Response<Answer>,
        then: Then,
        refused: bool,
    ) -> io::Result<Next> {
        let upgraded = matches!(then, Then::Upgrade(_));
        let (mut exchange, tunnel) = match then {
            Then::Withhold => return Err(io::ErrorKind::Other.into()),
            Then::Nothing => (Exchange::nothing(), None),
            Then::Exchange(exchange) | Then::Upgrade(exchange) => (exchange, None),
            Then::Tunnel(registered) => (Exchange::nothing(), Some(registered)),
        };
        {
            let (visitor, mut wire) = (&self.visitor, self.wire.lock());
            wire.answered = true;
            if upgraded {
                wire.body = Some(Decoder::UntilClose);
            } else if tunnel.is_none() {
                wire.body.get_or_insert(Decoder::Done);
            }
            // A body that the exchange no longer reads, and that is too long to be drained.
            let unread = exchange.is_finished() && !wire.is_nearly_whole();
            // RFC 9110 §10.1.1: an unasked visitor couldn't know whether to send the body.
            let last = refused || unread || exchange.unasked || visitor.redirect.is_some();
            let last = last || visitor.shard.shutdown.is(Phase::Draining);
            let leaves_http = upgraded || tunnel.is_some();
            let framing = reply.begin(&mut wire.out, response, last, leaves_http);
            if leaves_http {
                wire.io.lift();
            } else if framing == Framing::UntilClose {
                let _ = visitor.permit.unframed.set(());
            }
            if tunnel.is_some() {
                visitor.permit.await_end(None);
            }
        }
        self.send(&mut reply, &mut exchange, upgraded).await?;
        exchange.delivered();
        drop(exchange);
        Ok(match tunnel {
            Some(registered) => Next::Tunnel(registered),
            None if upgraded => Next::Over,
            None if !reply.keep_alive || !self.drained().await => Next::Close,
            None => Next::Request,
        })
    }

    /// Waits for the answer, and sends interim responses meanwhile.
    async fn answered<T>(&mut self, answering: impl Future<Output = T>) -> io::Result<T> {
        let mut answering = pin!(answering);
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            let mut wire = self.wire.lock();
            if let Poll::Ready(Err(err)) = wire.poll_out(cx) {
                return Poll::Ready(Err(err));
            }
            wire.poll_gone(cx).map(Err)
        })
        .await
    }

    async fn send(
        &mut self,
        reply: &mut Reply,
        exchange: &mut Exchange,
        upgraded: bool,
    ) -> io::Result<()> {
        let (mut moved, mut shut) = (false, !upgraded);
        poll_fn(|cx| {
            loop {
                moved = moved || Pin::new(&mut *exchange).poll(cx).is_ready();
                let mut wire = self.wire.lock();
                let full = reply.poll_fill(cx, &mut wire.out, self.visitor.budget.batch())?;
                let written = wire.poll_out(cx)?;
                if written.is_ready() && full {
                    continue;
                }
                let sent = written.is_ready() && reply.body.is_none();
                if sent && !shut {
                    ready!(Pin::new(&mut wire.io).poll_shutdown(cx))?;
                    shut = true;
                }
                if sent && moved {
                    return Poll::Ready(Ok(()));
                }
                return match upgraded {
                    true => Poll::Pending,
                    false => wire.poll_gone(cx).map(Err),
                };
            }
        })
        .await
    }

    /// Whether the request's rest came, which is read only to be dropped.
    async fn drained(&mut self) -> bool {
        if self.wire.lock().is_whole() {
            return true;
        }
        let mut left = DRAINED;
        let drained = poll_fn(|cx| self.wire.lock().poll_drain(cx, &mut left));
        timeout(LINGER, drained).await.unwrap_or(false)
    }

    /// Shuts the connection down, then reads on for a moment if anything is unread.
    async fn close(self) -> io::Result<()> {
        let wire = self.wire;
        poll_fn(|cx| Pin::new(&mut wire.lock().io).poll_shutdown(cx)).await?;
        let is_clean = |wire: &Wire<IO>| {
            let wire = wire.lock();
            wire.ended || wire.is_whole() && wire.input.is_empty()
        };
        if !is_clean(&wire) {
            let mut linger = Linger::new(LINGER_AT_MOST, usize::MAX);
            poll_fn(|cx| linger.poll(cx, &mut wire.lock().io)).await;
        }
        Ok(())
    }
}

const TOO_SLOW: Refusal =
    Refusal { status: StatusCode::REQUEST_TIMEOUT, reason: "The request's head came too slowly." };
/// For a visitor that is still sending to notice the last response: many read only after they have sent everything.
const LINGER_AT_MOST: Duration = Duration::from_secs(30);
/// From the TLS handshake to the first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// From the first byte of a head to its last.
const HEAD: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE: Duration = Duration::from_secs(75);
/// From the start of the gateway's end to the first byte of a new connection.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
