//! One visitor's HTTP/2 connection: what must be polled together, and its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use log::{debug, trace};
use ptth_link::alpn;
use ptth_link::explain::{Opening, Tap, What};
use ptth_link::h2::cork::{TURN, cork};
use ptth_link::h2::keepalive::Keepalive;
use ptth_link::h2::window::Window;
use ptth_link::h2::{Answering, Ended, Load};
use ptth_link::shutdown::Phase;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::abuse::Abuse;
use super::answer;
use super::frames::{Frames, UNFINISHED};
use crate::public::stall::{Outlet, Stall};
use crate::public::{Account, Visitor};

/// A connection, its socket as its streams see it, and the requests that are under way on it.
pub(super) struct Connection<IO> {
    pub(super) wire: Answering<Stall<IO>, (Frames, Option<Tap>)>,
    outlet: Arc<Outlet>,
    visitor: Arc<Visitor>,
    abuse: Arc<Abuse>,
    streams: JoinSet<()>,
    /// So far.
    accepted: u64,
    /// The visitor was asked to open no more.
    ending: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// Waits for the preface. `None` if none comes.
    pub(super) async fn start(visitor: Arc<Visitor>, io: IO) -> Option<Box<Self>> {
        let budget = &visitor.budget;
        let abuse = Arc::new(Abuse::new(visitor.trusts(visitor.address)));
        let io = Stall::new(io, budget.clone());
        let outlet = io.outlet();
        let opening = || Opening::new(false, visitor.address, visitor.tls, Some(alpn::H2));
        let tap = visitor.shard.explain.tap(What::Visitor, opening);
        let (io, driver) = cork(io, (Frames::new(abuse.clone(), &UNFINISHED), tap));
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .max_send_buffer_size(budget.batch())
            // More than one turn brings: between two turns each stream's own task takes what came, and merges it.
            .data_frame_budget(TURN * SMALLEST_COST)
            .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
            .max_local_error_reset_streams(Some(STREAM_ERRORS))
            // WebSocket over HTTP/2 (RFC 8441).
            .enable_connect_protocol();
        let handshake = driver.flushing(builder.handshake::<_, Bytes>(io));
        let mut connection = match timeout(PREFACE, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(err)) => {
                trace!("visitor: {} HTTP/2 handshake: {err}", visitor.address);
                return None;
            }
            Err(_) => {
                trace!("visitor: {} sent no HTTP/2 preface", visitor.address);
                return None;
            }
        };
        let window = Window::growing(budget.clone(), STREAM_WINDOW, WIDEST_WINDOW, FULL_WINDOWS)
            .with_connection(CONNECTION_WINDOW, FULL_WINDOWS);
        let keepalive = Keepalive::measuring(connection.ping_pong()?);
        let wire = Answering::new(connection, driver, window, keepalive);
        let (streams, accepted, ending) = Default::default();
        Some(Box::new(Self { wire, outlet, visitor, abuse, streams, accepted, ending }))
    }

    /// Takes the requests that come, until the connection ends, or there is something to decide: the first one came,
    /// the last one left, or there were too many.
    fn poll(&mut self, cx: &mut Context<'_>, were_open: bool) -> Poll<Option<Ended>> {
        let mut left = false;
        while let Poll::Ready(Some(_)) = self.streams.poll_join_next(cx) {
            left = true;
        }
        self.wire.driver.gather(self.visitor.budget.batch());
        if let Some(target) = self.wire.window.target() {
            self.wire.connection.set_target_window_size(target);
        }
        let ended = self.wire.poll(cx, Load::default(), |request, respond| {
            self.accepted += 1;
            let (head, stream) = request.into_parts();
            let account = Account::open(&self.visitor, &head);
            let (request, respond) = ((Box::new(head), stream), (respond, self.outlet.clone()));
            let stream = answer(account, request, respond, self.abuse.clone());
            // Boxed, since tokio moves what it runs five times.
            self.streams.spawn(Box::pin(stream));
        });
        if self.wire.driver.is_flushed() {
            self.outlet.clear();
        }
        let changed = self.streams.is_empty() == were_open || (left && self.ending);
        match ended {
            Poll::Pending if changed || self.is_last() || self.abuse.is_bad() => Poll::Ready(None),
            ended => ended.map(Some),
        }
    }

    fn is_last(&self) -> bool {
        self.accepted >= LIFETIME_STREAMS && !self.ending
    }

    /// Drives it to its end.
    pub(super) async fn run(&mut self) {
        let mut shutdown = self.visitor.shard.shutdown.clone();
        let mut idle = Instant::now() + FIRST_REQUEST;
        let mut busy = None;
        loop {
            let open = !self.streams.is_empty();
            busy = if open { busy.or_else(|| self.visitor.permit.busy()) } else { None };
            let mut ends = false;
            select! {
                ended = poll_fn(|cx| self.poll(cx, open)) => match ended {
                    Some(ended) => {
                        debug!("visitor: {} connection ended: {ended}", self.visitor.address);
                        break;
                    }
                    None if open => idle = Instant::now() + IDLE,
                    None => {}
                },
                () = sleep_until(idle), if !open => {
                    if self.ending {
                        break;
                    }
                    idle = Instant::now() + LAST_FRAMES;
                    ends = true;
                }
                () = shutdown.reached(Phase::Draining), if !self.ending => ends = true,
            }
            if self.abuse.is_bad() {
                debug!("visitor: {} cancels too much", self.visitor.address);
                self.wire.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.abuse.forgive();
            }
            if ends || self.is_last() {
                self.ending = true;
                self.wire.connection.graceful_shutdown();
            }
            let tunnels = self.abuse.tunnels.held();
            if self.ending && tunnels > 0 && self.streams.len() <= tunnels {
                self.visitor.permit.await_end(None);
            }
        }
        self.streams.abort_all();
    }
}

/// After this many streams the visitor is asked to come again.
const LIFETIME_STREAMS: u64 = 1_000_000;
/// From the preface to the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(75);
/// Without a stream.
const IDLE: Duration = Duration::from_secs(75);
/// From our GOAWAY to the close, for a visitor that doesn't answer it.
const LAST_FRAMES: Duration = Duration::from_secs(2);
/// As wide as a stream's window grows, if the process may hold so much.
const WIDEST_WINDOW: u32 = 32 * 1024 * 1024;
/// So many streams of a connection may be as full as their window allows; beyond that they share.
const FULL_WINDOWS: u32 = 2;
/// Streams of one visitor at a time; browsers open fewer than a hundred.
const STREAMS: u32 = 100;
/// What a stream's body may send before any of it was read; grows while it is what limits an upload.
/// As nginx's: what is more only waits in a browser's socket, and its other requests behind it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Heads that are taken in, and told what is wrong with them if they are longer than a request's may be. Beyond it h2
/// answers 431 without a word, and ends the connection when their frames are too many.
const HEADER_LIST: u32 = 224 * 1024;
/// What h2 counts for a byte of frames on the wire, at most: 255 for ten.
const SMALLEST_COST: usize = 32;
/// Streams that were reset before we looked at them (rapid reset).
const RESETS_BEFORE_ACCEPT: usize = 20;
/// Where h2 ends the connection itself: it counts streams above the limit, too, which a visitor that hasn't seen
/// our SETTINGS may open (RFC 9113 §5.1.2). [`Abuse`] tells those apart, and is stricter.
const STREAM_ERRORS: usize = 1000;
/// From the TLS handshake to the end of the preface.
const PREFACE: Duration = Duration::from_secs(10);
