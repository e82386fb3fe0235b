//! The transposed HTTP/2 server: answers what the gateway asks on one tunnel.
//!
//! In:  a TLS connection that this side dialled. Out: one call of the service for each stream.
//!
//! Invariant: a response that breaks off is reset, never ended, so that no visitor takes it for whole.

mod early;
mod own;
mod reply;
#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use log::warn;
use ptth_link::body::{Body, Inflow, split};
use ptth_link::budget::Budget;
use ptth_link::h2::cork::{Cork, Driver, cork};
use ptth_link::h2::goaway::{self, Why};
use ptth_link::h2::keepalive::Keepalive;
use ptth_link::h2::window::{self, Window};
use ptth_link::limits::{SEND_BUFFER, TUNNEL_CONNECTION_WINDOW, TUNNEL_HEADER_LIST};
use ptth_link::shutdown::{Phase, Shutdown};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tower_service::Service;

use crate::announced::{Announced, announcement, more};
use crate::dial::DialError;
use crate::journal::{Exchange, Journal};
use crate::tls;

pub use early::Early;
pub use own::Own;
use own::{Asker, REQUEST_ID};

pub use reply::Onward;
use reply::reply;

/// What the exchanges of one tunnel need.
#[derive(Clone, Debug)]
pub struct Answering<S> {
    /// Who answers.
    pub service: S,
    /// Told of each exchange.
    pub journal: Journal,
    /// Told where visitors find the service.
    pub announced: Announced,
    /// What bodies may hold in this process.
    pub budget: Arc<Budget>,
    /// The gateway's certificate, where requests for hosts that it doesn't cover are refused.
    pub covers: Option<Arc<CertificateDer<'static>>>,
    /// The gateway is one of ours: it keeps to a lower window once it has acknowledged it.
    pub ours: bool,
    /// Requests at a time.
    pub streams: u32,
}

/// The same without the service, once for all exchanges of a tunnel: their counts of the process's parts
/// would move between the cores with each.
struct Around {
    journal: Journal,
    announced: Announced,
    budget: Arc<Budget>,
    covers: Option<Arc<CertificateDer<'static>>>,
}

impl<S> Answering<S> {
    fn split(self) -> (S, Arc<Around>) {
        let Self { service, journal, announced, budget, covers, ours: _, streams: _ } = self;
        (service, Arc::new(Around { journal, announced, budget, covers }))
    }
}

/// Why a tunnel is no more.
#[derive(Debug)]
pub enum Ended {
    /// The gateway doesn't want us. With TLS 1.3 that arrives only now.
    Refused(DialError),
    /// The gateway said why, and perhaps in which words.
    Told(Why, Option<String>),
    /// The connection broke, or the gateway ended it.
    Connection(h2::Error),
    /// The socket failed.
    Socket(std::io::Error),
    /// Nothing came from the gateway for two PING intervals.
    Dead,
    /// Closed in order, by either side.
    Closed,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(err) => write!(f, "{err}"),
            Self::Told(Why::Stopping, _) => f.write_str("the gateway stops"),
            Self::Told(why, None) => write!(f, "the gateway ended it: {why}"),
            Self::Told(why, Some(text)) => write!(f, "the gateway ended it: {why} ({text:?})"),
            Self::Connection(err) => write!(f, "{err}"),
            Self::Socket(err) => write!(f, "the socket failed: {err}"),
            Self::Dead => f.write_str("nothing came from the gateway for two ping intervals"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// Answers on `io` until the connection ends, or `drain` asks to finish and what runs is finished.
///
/// `up` is told when the gateway has begun to ask. Dropping the future cuts the tunnel.
pub async fn answer<IO, S, B>(
    io: IO,
    mut answering: Answering<S>,
    mut drain: Shutdown,
    up: oneshot::Sender<()>,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: std::fmt::Display + Send,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display + Send,
{
    answering.budget = answering.budget.part();
    let mut engine = match timeout(
        PREFACE,
        Engine::start(io, &answering.budget, (answering.ours, answering.streams)),
    )
    .await
    {
        Ok(Ok(engine)) => engine,
        Ok(Err(err)) => return ended(err),
        Err(_) => return Ended::Dead,
    };
    let _ = up.send(());
    let mut streams = JoinSet::new();
    let mut draining = false;
    let mut drained = pin!(drain.reached(Phase::Draining));
    let (service, around) = answering.split();
    // All of it in one poll: what came together is accepted together, and flushed once.
    poll_fn(move |cx| {
        while let Poll::Ready(Some(done)) = streams.poll_join_next(cx) {
            if done.is_err_and(|err| err.is_panic()) {
                warn!("tunnel: a stream's task panicked");
            }
        }
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            engine.connection.graceful_shutdown();
        }
        let open = streams.len();
        engine.poll(cx, open, |request, respond| {
            // Boxed, since tokio would move it four times: a seventh of an exchange's instructions.
            streams.spawn(Box::pin(exchange(service.clone(), around.clone(), request, respond)));
        })
    })
    .await
}

fn ended(err: h2::Error) -> Ended {
    if let Some(why) = Why::of(&err) {
        return Ended::Told(why, goaway::text(&err));
    }
    if err.get_io().is_none() {
        return Ended::Connection(err);
    }
    match err.into_io().map(DialError::of) {
        Some(refused @ DialError::Refused(_)) => Ended::Refused(refused),
        Some(DialError::Tls(err)) => Ended::Socket(err),
        _ => Ended::Closed,
    }
}

/// An HTTP/2 connection, its flush, its keepalive and its window: what must be polled together.
struct Engine<IO> {
    connection: Connection<Cork<IO>, Bytes>,
    driver: Driver<IO>,
    keepalive: Keepalive,
    window: Window,
    /// The socket takes nothing more.
    broken: Option<Broken>,
}

/// Why the socket takes nothing, and until when to read what the gateway said before: a gateway that
/// refuses us closes while we are still talking.
struct Broken {
    why: std::io::Error,
    until: Pin<Box<Sleep>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Engine<IO> {
    async fn start(
        io: IO,
        budget: &Arc<Budget>,
        (ours, streams): (bool, u32),
    ) -> Result<Self, h2::Error> {
        let (io, driver) = cork(io);
        // Transposed roles: this side dialled, and yet it is HTTP/2's server, which answers.
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(streams)
            .initial_window_size(if ours { window::FIRST } else { window::FOREIGN })
            .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW)
            .max_header_list_size(TUNNEL_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_connect_protocol()
            // The gateway multiplexes strangers. h2's defences would let one of them end the tunnel
            // for all; against the gateway itself they are not needed, which could just stop asking.
            .data_frame_budget(usize::MAX)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
            .max_local_error_reset_streams(None);
        let mut connection = driver.flushing(builder.handshake(io)).await?;
        let pings = connection.ping_pong().expect("it is taken once, here");
        let mut keepalive = Keepalive::new(pings);
        // To know how far it is.
        keepalive.ping(0);
        let window = match ours {
            true => Window::first(budget.clone()),
            false => Window::foreign(budget.clone()),
        };
        Ok(Self { connection, driver, keepalive, window, broken: None })
    }

    /// Moves the connection and hands what it brought to `take`. Ready when it has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        streams: usize,
        mut take: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Ended> {
        let received = self.driver.received();
        if let Some(time) = self.keepalive.round_trip() {
            self.window.reach(time);
        }
        self.window.poll_renewals(cx);
        if let Some(window) = self.window.adjust(streams, received)
            && self.connection.set_initial_window_size(window).is_ok()
        {
            self.window.announce(window, received);
        }
        let accepted = loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => take(request, respond),
                over => break over,
            }
        };
        if let Poll::Ready(Err(why)) = self.driver.poll_flush(cx)
            && self.broken.is_none()
        {
            self.broken = Some(Broken { why, until: Box::pin(sleep(LAST_WORDS)) });
        }
        match accepted {
            Poll::Ready(Some(Err(err))) => return Poll::Ready(ended(err)),
            Poll::Ready(_) => return Poll::Ready(Ended::Closed),
            Poll::Pending => {}
        }
        if let Some(Broken { why, until }) = &mut self.broken
            && until.as_mut().poll(cx).is_ready()
        {
            let why = std::mem::replace(why, std::io::ErrorKind::BrokenPipe.into());
            return Poll::Ready(Ended::Socket(why));
        }
        self.keepalive.poll_dead(cx, self.driver.received(), false).map(|()| Ended::Dead)
    }
}

/// One stream, from its head to its end.
async fn exchange<S, B>(
    mut service: S,
    around: Arc<Around>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: std::fmt::Display,
    B: HttpBody<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    if let Some(urls) = announcement(&request) {
        // The service knows nothing of it: this is between the gateway and us.
        around.announced.told(urls, more(request.headers()));
        return reply::done(respond);
    }
    let line = Exchange::new(&request, &REQUEST_ID);
    let (mut head, stream) = request.into_parts();
    let (mut inflow, body) = split(stream, &around.budget);
    let asked = Asker::of(&head);
    let journal = &around.journal;
    if !around.is_covered(&head.uri) {
        let own = Own::misdirected();
        line.answered(journal, own.status, &own.why);
        return own.tell(respond, &asked);
    }
    let early = Early::default();
    head.extensions.insert(early.clone());
    let calling = call(&mut service, Request::from_parts(head, body));
    let own = match wait(calling, &mut inflow, &mut respond, &early).await {
        Some(Ok(mut response)) => match response.extensions_mut().remove::<Own>() {
            Some(own) => own,
            None if is_final(response.status()) => {
                let (status, mut times) = (response.status(), line.head());
                match reply(&mut respond, response, &mut inflow, &mut times.body).await {
                    Ok(bytes) => line.finish(journal, status, bytes, times),
                    Err(why) => line.broken(journal, status, why, times),
                }
                return;
            }
            // h2 ends the connection of a server that ends a stream with 1xx.
            None => Own::failed(format!("the service answered with {}", response.status())),
        },
        Some(Err(err)) => Own::failed(err.to_string()),
        None => return line.cancelled(journal),
    };
    line.answered(journal, own.status, &own.why);
    own.tell(respond, &asked);
}

impl Around {
    /// Whether the gateway can show a certificate for the host, if that matters.
    fn is_covered(&self, uri: &http::Uri) -> bool {
        match (&self.covers, uri.authority()) {
            (Some(certificate), Some(authority)) => tls::covers(certificate, authority.as_str()),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

async fn call<S>(service: &mut S, request: Request<Body>) -> Result<S::Response, S::Error>
where
    S: Service<Request<Body>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// Waits for the service, moving the request's body and 1xx responses meanwhile. `None` if the gateway
/// takes the request back.
async fn wait<T>(
    calling: impl Future<Output = T>,
    inflow: &mut Inflow,
    respond: &mut SendResponse<Bytes>,
    early: &Early,
) -> Option<T> {
    let mut calling = pin!(calling);
    poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        let answer = calling.as_mut().poll(cx);
        for response in early.take(cx) {
            let _ = respond.send_informational(response);
        }
        if answer.is_pending() && respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        answer.map(Some)
    })
    .await
}

/// Whether it is a status that a final response can have (RFC 9110 §15).
fn is_final(status: StatusCode) -> bool {
    (200..600).contains(&status.as_u16())
}

/// From the TLS handshake to the gateway's preface.
const PREFACE: Duration = Duration::from_secs(10);
/// What a gateway said before its socket closed is here already, or comes with the next packet.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Streams that were reset and whose late frames must still be told from a breach of protocol.
const REMEMBERED_RESETS: usize = 4096;
/// More than the gateway sends at once (its graveyard's burst), so that visitors who come and go by the
/// thousand can't end the tunnel.
const RESETS_BEFORE_ACCEPT: usize = 20_000;
