//! A visitor who speaks HTTP/2.
//!
//! Invariant: what is wrong with one of his streams ends that stream; what is wrong with his
//! conduct ends his connection; neither reaches the tunnel or anybody else.

mod door;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::CONNECTION;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use log::{debug, trace};
use ptth_link::alpn::CONNECT_TCP;
use ptth_link::body::{Body, Inflow, split};
use ptth_link::cork::{Cork, Driver, cork};
use ptth_link::headers;
use ptth_link::pump::{Patience, pump};
use ptth_link::shutdown::Phase;
use ptth_link::websocket::WEBSOCKET;
use ptth_link::window::Window;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::carry::Carry;
use crate::error::{ExchangeError, RequestId};

use super::register;
use super::stall::Stall;
use super::{Account, Visitor, admit, check};

/// Answers one visitor's HTTP/2 connection to its end. Dropping the future cuts it.
pub async fn serve<IO>(visitor: Visitor, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (io, _) = Stall::new(io);
    let (io, driver) = cork(io);
    let handshake = driver.flushing(builder().handshake::<_, Bytes>(io));
    let connection = match timeout(PREFACE, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(err)) => return trace!("visitor: {} HTTP/2 handshake: {err}", visitor.address),
        Err(_) => return trace!("visitor: {} sent no HTTP/2 preface", visitor.address),
    };
    let window = Window::new(visitor.budget.clone(), STREAM_WINDOW);
    let mut engine = Engine { connection, driver, window };
    run(&mut engine, Arc::new(visitor)).await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
        .max_local_error_reset_streams(Some(STREAM_ERRORS))
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol();
    builder
}

struct Engine<IO> {
    connection: Connection<Cork<IO>, Bytes>,
    driver: Driver<IO>,
    window: Window,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Engine<IO> {
    /// Hands every request that is there to `accept`, and flushes once. Ready when the connection has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        streams: usize,
        mut accept: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Result<(), h2::Error>> {
        let received = self.driver.received();
        if let Some(window) = self.window.adjust(streams.max(1), received)
            && self.connection.set_initial_window_size(window).is_ok()
        {
            self.connection.set_target_window_size(window.saturating_mul(4).max(CONNECTION_WINDOW));
            self.window.announce(window, received);
        }
        let ended = loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => accept(request, respond),
                Poll::Ready(Some(Err(err))) => break Poll::Ready(Err(err)),
                Poll::Ready(None) => break Poll::Ready(Ok(())),
                Poll::Pending => break Poll::Pending,
            }
        };
        match self.driver.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
            _ => ended,
        }
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
    ) -> Poll<Option<Result<(), h2::Error>>> {
        let mut left = false;
        while let Poll::Ready(Some(_)) = self.streams.poll_join_next(cx) {
            left = true;
        }
        let ended = engine.poll(cx, self.streams.len(), |request, respond| {
            self.accepted += 1;
            let work = exchange(self.visitor.clone(), request, respond, self.conduct.clone());
            // Boxed, since tokio moves what it is given three times, and twice more at its end.
            self.streams.spawn(Box::pin(work));
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

async fn run<IO: AsyncRead + AsyncWrite + Unpin>(engine: &mut Engine<IO>, visitor: Arc<Visitor>) {
    let mut shutdown = visitor.shutdown.clone();
    let (conduct, streams) = (Arc::new(Conduct::default()), JoinSet::new());
    let mut requests = Requests { visitor, conduct, streams, accepted: 0, ending: false };
    let mut idle = Instant::now() + FIRST_REQUEST;
    loop {
        let open = !requests.streams.is_empty();
        select! {
            ended = poll_fn(|cx| requests.poll(cx, engine, open)) => match ended {
                Some(Ok(())) => break,
                Some(Err(err)) => {
                    debug!("visitor: {} connection ended: {err}", requests.visitor.address);
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
                engine.connection.graceful_shutdown();
            }
            () = shutdown.reached(Phase::Draining), if !requests.ending => {
                requests.ending = true;
                engine.connection.graceful_shutdown();
            }
        }
        if requests.conduct.is_bad() {
            debug!("visitor: {} cancels too much", requests.visitor.address);
            engine.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            requests.conduct.forgive();
        }
        if requests.is_last() {
            requests.ending = true;
            engine.connection.graceful_shutdown();
        }
        let tunnels = requests.conduct.tunnels.load(Ordering::Relaxed);
        if requests.ending && tunnels > 0 && requests.streams.len() <= tunnels {
            requests.visitor.stay.leave_to_tunnels();
        }
    }
}

/// Counts the requests that a visitor took back after they had gone to a backend, and those that were
/// malformed, which make us send the reset (MadeYouReset).
#[derive(Debug, Default)]
struct Conduct {
    cancelled: AtomicU32,
    answered: AtomicU32,
    /// Streams that are tunnels now.
    tunnels: AtomicUsize,
}

impl Conduct {
    /// A browser that leaves a page takes back what is under way; an attacker takes back everything.
    fn is_bad(&self) -> bool {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        cancelled > CANCELLED && cancelled / 4 > self.answered.load(Ordering::Relaxed)
    }

    fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    fn forgive(&self) {
        self.cancelled.store(0, Ordering::Relaxed);
    }
}

/// One stream, from its head to its end.
async fn exchange(
    visitor: Arc<Visitor>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    conduct: Arc<Conduct>,
) {
    // Taken back before it was looked at: it isn't sent at all.
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        return;
    }
    let visitor = &*visitor.seen(request.headers());
    let account = Account::open(visitor, &request);
    let is_head = request.method() == Method::HEAD;
    let (parts, stream) = request.into_parts();
    if register::is_registration(&parts) {
        // Boxed: it is rare, and each exchange's task would have room for it.
        return Box::pin(door::register(visitor, parts, stream, respond, (account, &conduct)))
            .await;
    }
    let (mut inflow, body) = split(stream, visitor.budget.clone());
    let request = Request::from_parts(parts, body);
    match ask(visitor, request, &mut inflow, &mut respond, account.id).await {
        Ok((response, carry)) => {
            account.answered(response.status());
            // The request's body goes on while the response comes.
            let (_, done) = tokio::join!(&mut inflow, reply(respond, response, carry));
            let counter = if done { &conduct.answered } else { &conduct.cancelled };
            counter.fetch_add(1, Ordering::Relaxed);
            // Who took his request back has nobody to be ahead of; and nothing of him stays.
            if done {
                get_ahead(&inflow).await;
            }
        }
        Err(Unanswered::Cancelled) => conduct.cancelled(),
        Err(Unanswered::Malformed) => {
            conduct.cancelled();
            respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        Err(Unanswered::Failed(err)) => {
            if refuse(respond, account.failed(&err), is_head) {
                get_ahead(&inflow).await;
            }
        }
    }
}

/// Sends a page of ours. Whether it had a body.
fn refuse(mut respond: SendResponse<Bytes>, mut page: Response<String>, is_head: bool) -> bool {
    page.headers_mut().remove(CONNECTION);
    let (parts, text) = page.into_parts();
    match respond.send_response(Response::from_parts(parts, ()), is_head) {
        Ok(mut stream) if !is_head => stream.send_data(text.into(), true).is_ok(),
        _ => false,
    }
}

/// Lets a response that came before the request's end get ahead of the RST_STREAM(NO_ERROR) that follows it
/// (RFC 9113 §8.1): some visitors that read both together forget the response (curl before 8).
async fn get_ahead(upload: &Inflow) {
    if !upload.is_complete() {
        sleep(AHEAD).await;
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
    request: Request<Body>,
    inflow: &mut Inflow,
    respond: &mut SendResponse<Bytes>,
    id: RequestId,
) -> Result<(Response<Body>, Carry), Unanswered> {
    let (mut parts, body) = request.into_parts();
    check::h2(&mut parts).map_err(|err| err.map_or(Unanswered::Malformed, Unanswered::Failed))?;
    match parts.extensions.get::<Protocol>() {
        Some(protocol) if ![WEBSOCKET, CONNECT_TCP].contains(&protocol.as_str()) => {
            return Err(Unanswered::Failed(ExchangeError::NoExtendedConnect));
        }
        None if parts.method == Method::CONNECT => {
            return Err(Unanswered::Failed(ExchangeError::Method));
        }
        _ => {}
    }
    let way = visitor.prepare(&mut parts, "2", id).map_err(Unanswered::Failed)?;
    // 1xx responses come while the future below holds everything else; they are passed on between its polls.
    let early = Mutex::new(Vec::new());
    let mut note = |status, fields: &HeaderMap| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        early.lock().unwrap_or_else(PoisonError::into_inner).push(response);
    };
    let request = Request::from_parts(parts, body);
    let mut asking = pin!(visitor.ask(&way, request, id, &mut note));
    let (mut response, carry) = poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        let answer = asking.as_mut().poll(cx);
        for response in early.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = respond.send_informational(response);
        }
        if answer.is_pending() && respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Unanswered::Cancelled));
        }
        answer.map_err(Unanswered::Failed)
    })
    .await?;
    admit(&mut response).map_err(Unanswered::Failed)?;
    Ok((response, carry))
}

/// Sends the response. False if the visitor didn't take it all.
async fn reply(
    mut respond: SendResponse<Bytes>,
    response: Response<Body>,
    mut carry: Carry,
) -> bool {
    let (parts, body) = response.into_parts();
    let patience = if carry.is_extended() {
        carry = carry.patient();
        Patience::default()
    } else {
        Patience { receiver: Some(ZERO_WINDOW), body: None }
    };
    let end = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), end) else {
        return false;
    };
    if end {
        carry.await;
        return true;
    }
    let body = body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            headers::trailers(trailers);
        }
        frame
    });
    let mut pumping = pin!(pump(body, &mut stream, patience));
    let mut pumped = false;
    poll_fn(|cx| {
        let carried = Pin::new(&mut carry).poll(cx).is_ready();
        if !pumped {
            match pumping.as_mut().poll(cx) {
                Poll::Ready(Ok(_)) => pumped = true,
                // Dropping the carry resets the stream on the tunnel.
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
        }
        if pumped && carried { Poll::Ready(true) } else { Poll::Pending }
    })
    .await
}

/// Streams of one visitor at a time; browsers open fewer than a hundred.
const STREAMS: u32 = 100;
/// What a stream's body may send before anybody read of it; grows while it is what limits an upload.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// As HTTP/1.1's head; h2 answers 431 beyond it.
const HEADER_LIST: u32 = 32 * 1024;
/// Of each stream's response, what may wait in h2 for a socket that is full.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset before we looked at them (rapid reset).
const RESETS_BEFORE_ACCEPT: usize = 20;
/// Stream errors that a visitor may make us send in the life of a connection (MadeYouReset).
const STREAM_ERRORS: usize = 100;
/// Cancelled requests, if they outnumber the answered ones four to one.
const CANCELLED: u32 = 100;
/// After this many streams the visitor is asked to come again.
const LIFETIME_STREAMS: u64 = 1_000_000;
/// From the TLS handshake to the end of the preface.
const PREFACE: Duration = Duration::from_secs(10);
/// From there to the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(75);
/// Without a stream.
const IDLE: Duration = Duration::from_secs(75);
/// Between a response that came early and the reset of the upload that it makes needless.
const AHEAD: Duration = Duration::from_millis(200);
/// From our GOAWAY to the close, for a visitor who doesn't answer it.
const FAREWELL: Duration = Duration::from_secs(2);
/// For a visitor whose window stays shut.
const ZERO_WINDOW: Duration = Duration::from_secs(60);
