//! The transposed HTTP/2 server: answers what the gateway asks on one tunnel.
//!
//! In:  a TLS connection that this side dialled. Out: one call of the service for each stream.
//!
//! Invariant: a response that breaks off is reset, never ended, so that no visitor takes it for whole.

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
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use log::{debug, warn};
use ptth_link::body::{Body, Inflow, split};
use ptth_link::cork::{Cork, Driver, cork};
use ptth_link::goaway::{self, Why};
use ptth_link::headers;
use ptth_link::keepalive::Keepalive;
use ptth_link::limits::{
    SEND_BUFFER, TUNNEL_CONNECTION_WINDOW, TUNNEL_HEADER_LIST, TUNNEL_STREAMS,
};
use ptth_link::shutdown::{Phase, Shutdown};
use ptth_link::window::{Budget, Window};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower_service::Service;

use crate::announced::{Announced, announcement};
use crate::dial::DialError;
use crate::journal::{Exchange, Journal};
use crate::tls;

pub use reply::Onward;
use reply::{refuse, reply};

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
    answering: Answering<S>,
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
    let mut engine = match timeout(PREFACE, Engine::start(io, &answering.budget)).await {
        Ok(Ok(engine)) => engine,
        Ok(Err(err)) => return ended(err),
        Err(_) => return Ended::Dead,
    };
    let _ = up.send(());
    let mut streams = JoinSet::new();
    let mut draining = false;
    loop {
        let open = streams.len();
        select! {
            next = poll_fn(|cx| engine.poll(cx, open)) => match next {
                Next::Request(request, respond) => {
                    streams.spawn(exchange(answering.clone(), request, respond));
                }
                Next::Ended(ended) => return ended,
            },
            Some(done) = streams.join_next() => {
                if done.is_err_and(|err| err.is_panic()) {
                    warn!("tunnel: a stream's task panicked");
                }
            }
            () = drain.reached(Phase::Draining), if !draining => {
                draining = true;
                engine.connection.graceful_shutdown();
            }
        }
    }
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

enum Next {
    Request(Request<RecvStream>, SendResponse<Bytes>),
    Ended(Ended),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Engine<IO> {
    async fn start(io: IO, budget: &Arc<Budget>) -> Result<Self, h2::Error> {
        let (io, driver) = cork(io);
        let widest = Window::widest(budget);
        // Transposed roles: this side dialled, and yet it is HTTP/2's server, which answers.
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(TUNNEL_STREAMS)
            .initial_window_size(widest)
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
        let keepalive = Keepalive::new(pings);
        let window = Window::new(budget.clone(), widest);
        Ok(Self { connection, driver, keepalive, window, broken: None })
    }

    fn poll(&mut self, cx: &mut Context<'_>, streams: usize) -> Poll<Next> {
        let received = self.driver.received();
        if let Some(window) = self.window.adjust(streams, received)
            && self.connection.set_initial_window_size(window).is_ok()
        {
            self.window.announce(window, received);
        }
        let accepted = self.connection.poll_accept(cx);
        if self.broken.is_none()
            && let Poll::Ready(Err(why)) = self.driver.poll_flush(cx)
        {
            self.broken = Some(Broken { why, until: Box::pin(sleep(LAST_WORDS)) });
        }
        match accepted {
            Poll::Ready(Some(Ok((request, respond)))) => {
                return Poll::Ready(Next::Request(request, respond));
            }
            Poll::Ready(Some(Err(err))) => return Poll::Ready(Next::Ended(ended(err))),
            Poll::Ready(None) => return Poll::Ready(Next::Ended(Ended::Closed)),
            Poll::Pending => {}
        }
        if let Some(Broken { why, until }) = &mut self.broken
            && until.as_mut().poll(cx).is_ready()
        {
            let why = std::mem::replace(why, std::io::ErrorKind::BrokenPipe.into());
            return Poll::Ready(Next::Ended(Ended::Socket(why)));
        }
        self.keepalive.poll_dead(cx, self.driver.received()).map(|()| Next::Ended(Ended::Dead))
    }
}

/// Takes what 1xx responses the service has for the visitor; found among a request's extensions.
#[derive(Clone, Debug)]
pub struct Early(mpsc::Sender<Boxed>);

/// Behind a pointer, since tokio's channel has room for 32 of them from the start, and each exchange has one.
type Boxed = Box<Response<()>>;

impl Early {
    /// Sends a 1xx response ahead of the final one. Ignored once that has begun, and beyond the first ten.
    pub fn send(&self, status: StatusCode, fields: &HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        headers::response(response.headers_mut());
        // HEADERS know no flow control: an origin that never stops would fill our memory with them.
        let _ = self.0.try_send(Box::new(response));
    }
}

/// One stream, from its head to its end.
async fn exchange<S, B>(
    mut answering: Answering<S>,
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
        answering.announced.told(urls);
        return reply::done(respond);
    }
    let begun = Instant::now();
    let line = Exchange::new(&request);
    let (mut head, stream) = request.into_parts();
    let (mut inflow, body) = split(stream, answering.budget.clone());
    if !answering.is_covered(&head.uri) {
        line.finish(&answering.journal, StatusCode::MISDIRECTED_REQUEST, 0, begun, begun.elapsed());
        return refuse(respond, StatusCode::MISDIRECTED_REQUEST, MISDIRECTED);
    }
    let (early, mut earlier) = mpsc::channel(INFORMATIONAL_RESPONSES);
    head.extensions.insert(Early(early));
    let calling = call(&mut answering.service, Request::from_parts(head, body));
    let answer = wait(calling, &mut inflow, &mut respond, &mut earlier).await;
    let origin = begun.elapsed();
    let response = match answer {
        // h2 ends the connection of a server that ends a stream with 1xx.
        Some(Ok(response)) if !is_final(response.status()) => {
            debug!("exchange: the service answered with status={}", response.status());
            line.finish(&answering.journal, StatusCode::BAD_GATEWAY, 0, begun, origin);
            return refuse(respond, StatusCode::BAD_GATEWAY, FAILED);
        }
        Some(Ok(response)) => response,
        Some(Err(err)) => {
            debug!("exchange: the service failed: {err}");
            line.finish(&answering.journal, StatusCode::BAD_GATEWAY, 0, begun, origin);
            return refuse(respond, StatusCode::BAD_GATEWAY, FAILED);
        }
        None => return line.cancelled(&answering.journal, begun),
    };
    let status = response.status();
    match reply(&mut respond, response, &mut inflow).await {
        Ok(bytes) => line.finish(&answering.journal, status, bytes, begun, origin),
        Err(why) => line.broken(&answering.journal, status, why, begun, origin),
    }
}

impl<S> Answering<S> {
    /// draft-thomson-ptth-potato: no answer for names that the gateway can't show a certificate for.
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
    early: &mut mpsc::Receiver<Boxed>,
) -> Option<T> {
    let mut calling = pin!(calling);
    let mut passed = 0;
    poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        let answer = calling.as_mut().poll(cx);
        while let Poll::Ready(Some(response)) = early.poll_recv(cx) {
            passed += 1;
            if passed <= INFORMATIONAL_RESPONSES {
                let _ = respond.send_informational(*response);
            }
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

/// 1xx responses that go ahead of a final one; as many as the gateway passes on.
const INFORMATIONAL_RESPONSES: usize = 10;
const MISDIRECTED: &str = "421 The gateway's certificate does not cover this host.\n";
const FAILED: &str = "502 The server behind this gateway failed.\n";
/// From the TLS handshake to the gateway's preface.
const PREFACE: Duration = Duration::from_secs(10);
/// What a gateway said before its socket closed is here already, or comes with the next packet.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Streams that were reset and whose late frames must still be told from a breach of protocol.
const REMEMBERED_RESETS: usize = 4096;
/// More than the gateway sends at once (its graveyard's burst), so that visitors who come and go by the
/// thousand can't end the tunnel.
const RESETS_BEFORE_ACCEPT: usize = 20_000;
