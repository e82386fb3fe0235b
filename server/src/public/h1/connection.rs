//! A visitor's HTTP/1.1 connection: one request after the other, each answered in its turn (RFC 9112 §9).
//!
//! In:  the visitor's bytes; and what answers a request, or a refusal of one.
//! Out: the responses, and the connection to whatever it became.
//!
//! Invariant: the next head is read only when the last message and its response are whole, and nothing is
//! read behind one that was refused.
//! Invariant: what cuts a response short cuts the connection, without TLS's own end.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use ptth_link::budget::Budget;
use ptth_link::deadline::Deadline;
use ptth_link::h1::{Head, Refusal, Request, RequestReader};
use ptth_link::linger::{Linger, PATIENCE};
use ptth_link::shutdown::{Phase, Shutdown};
use ptth_link::upgrade::{Upgraded, upgraded};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::exchange::Exchange;
use crate::public::stall::{Outlet, Stall};
use crate::quota::Permit;

use super::reply::{Content, Reply};
use super::wire::{DRAINED, Incoming, Wire};

pub(in crate::public) struct Asked<IO> {
    pub(in crate::public) request: Result<(Box<Parts>, Head), Refusal>,
    pub(in crate::public) body: Incoming<IO>,
    pub(in crate::public) wire: Wire<IO>,
}

pub(in crate::public) struct Answer<IO> {
    pub(in crate::public) response: Response<Content>,
    pub(in crate::public) then: Then<IO>,
    pub(in crate::public) busy: Option<Permit>,
}

/// The work beside and after the response.
pub(in crate::public) enum Then<IO> {
    Exchange(Exchange),
    /// The two bodies are those of another protocol (RFC 9110 §7.8).
    Upgrade(Exchange),
    /// The connection becomes a tunnel.
    Give(oneshot::Sender<Upgraded<IO>>),
}

impl<IO> Answer<IO> {
    pub(in crate::public) fn page(page: Response<String>, busy: Option<Permit>) -> Self {
        let response = page.map(|text| Content::Page(text.into()));
        Self { response, then: Then::Exchange(Exchange::nothing()), busy }
    }
}

/// Has `answer` answer the requests of a connection, to its end. Without an answer the connection is cut. Dropping the
/// future cuts it, too.
pub(in crate::public) async fn run<IO, F>(
    io: IO,
    budget: Arc<Budget>,
    shutdown: Shutdown,
    answer: impl Fn(Asked<IO>) -> F,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Option<Answer<IO>>>,
{
    let mut closing = shutdown.clone();
    let (io, outlet) = Stall::new(io, budget.clone());
    let mut connection = Connection {
        wire: Wire::new(io),
        outlet,
        budget,
        head_due: Deadline::default(),
        shutdown,
        draining: Box::pin(async move { closing.reached(Phase::Draining).await }),
        drains: None,
        asked: false,
    };
    while let Some(request) = connection.head().await? {
        connection.asked = true;
        match connection.exchange(request, &answer).await? {
            Next::Request => {}
            Next::Close => break,
            Next::Over => return Ok(()),
            Next::Give(to) => {
                if let Some((io, read)) = connection.wire.into_parts() {
                    // Fails only if the tunnel was dropped.
                    let _ = to.send(upgraded(io, read));
                }
                return Ok(());
            }
        }
    }
    connection.close().await
}

struct Connection<IO> {
    wire: Wire<IO>,
    outlet: Outlet,
    budget: Arc<Budget>,
    head_due: Deadline,
    shutdown: Shutdown,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    drains: Option<Instant>,
    asked: bool,
}

enum Next<IO> {
    Request,
    Close,
    /// It is closed.
    Over,
    Give(oneshot::Sender<Upgraded<IO>>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<IO> {
    /// The next request. `None`: there is none, and the connection is to be closed.
    async fn head(&mut self) -> io::Result<Option<Result<Request, Refusal>>> {
        let mut reader = RequestReader::default();
        let (begun, mut head) = (Instant::now(), None);
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
            if self.drains.is_none() && self.draining.as_mut().poll(cx).is_ready() {
                self.drains = Some(Instant::now());
            }
            let mut due = match reader.is_fresh() {
                true if self.asked => begun + IDLE,
                true => begun + FIRST_BYTE,
                false => *head.get_or_insert_with(Instant::now) + HEAD,
            };
            if let Some(since) = self.drains.filter(|_| reader.is_fresh()) {
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

    async fn exchange<F>(
        &mut self,
        request: Result<Request, Refusal>,
        answer: impl Fn(Asked<IO>) -> F,
    ) -> io::Result<Next<IO>>
    where
        F: Future<Output = Option<Answer<IO>>>,
    {
        let refused = request.is_err();
        let (request, body, expects) = match request {
            Ok(Request { parts, head, body }) => {
                let body = (!head.upgrade).then_some(body);
                (Ok((parts, head)), body, head.expect_continue)
            }
            Err(refusal) => (Err(refusal), None, false),
        };
        let mut reply = Reply::to(request.as_ref().ok().map(|(parts, head)| (&**parts, head)));
        let body = self.wire.begin(body, expects);
        let answer = self.answered(answer(Asked { request, body, wire: self.wire.clone() }));
        let Answer { response, then, busy } = answer.await?.ok_or(io::ErrorKind::Other)?;
        let (mut exchange, upgraded, give) = match then {
            Then::Exchange(exchange) => {
                self.wire.decline();
                (exchange, false, None)
            }
            Then::Upgrade(exchange) => {
                self.wire.accept();
                (exchange, true, None)
            }
            Then::Give(to) => (Exchange::nothing(), false, Some(to)),
        };
        let leaves_http = upgraded || give.is_some();
        if leaves_http {
            self.outlet.lift();
        }
        {
            let mut wire = self.wire.lock();
            wire.answered = true;
            // A body that the exchange no longer reads, and that is too long to be drained.
            let unread = exchange.is_finished() && !wire.is_nearly_whole();
            let last = refused || unread || self.shutdown.is(Phase::Draining);
            reply.begin(&mut wire.out, response, last, leaves_http);
        }
        self.send(&mut reply, &mut exchange, upgraded).await?;
        drop((exchange, busy));
        Ok(match give {
            Some(to) => Next::Give(to),
            None if upgraded => Next::Over,
            None if reply.is_last() || !self.drained().await => Next::Close,
            None => Next::Request,
        })
    }

    /// Waits for the answer, and sends interim responses meanwhile.
    async fn answered<T>(&mut self, answering: impl Future<Output = T>) -> io::Result<T> {
        let mut answering = std::pin::pin!(answering);
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

    /// Sends the response, and moves the rest of the request's body.
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
                let full = reply.poll_fill(cx, &mut wire.out, self.budget.batch())?;
                let written = wire.poll_out(cx)?;
                if written.is_ready() && full {
                    continue;
                }
                let sent = written.is_ready() && reply.is_over();
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
        timeout(PATIENCE, drained).await.unwrap_or(false)
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
