//! One HTTP/2 connection, driven: what must be polled together around the h2 crate, in either role.
//!
//! In:  a connection of h2's whose socket is corked ([`mod@cork`]); how much is under way on it.
//! Out: the requests that came, if this side answers; and at last why it ended ([`Ended`]).
//!
//! Invariant: each poll moves the connection, flushes once, and looks after the window and the peer's silence. Which
//! side dialled says nothing: on a tunnel the gateway was dialled and asks, and the backend dialled and answers.

pub mod cork;
pub mod frames;
pub mod goaway;
pub mod keepalive;
pub mod pulse;
pub mod window;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, client, server};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::deadline::Deadline;
use crate::limits::{SEND_BUFFER, TUNNEL_CONNECTION_WINDOW, TUNNEL_HEADER_LIST};
use crate::tcp::{LINGER, linger};

use self::cork::{Cork, Driver, Watch, cork};
use self::goaway::Why;
use self::keepalive::Keepalive;
use self::pulse::Pulse;
use self::window::Window;

/// What the engine needs of h2's connections, which have no trait of their own.
pub trait Role {
    /// As of the same name in both roles.
    ///
    /// # Errors
    /// The last SETTINGS frame isn't acknowledged yet.
    fn set_initial_window_size(&mut self, size: u32) -> Result<(), h2::Error>;

    /// Moves the connection, and hands over the requests that came. Ready when it has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        accept: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Result<(), h2::Error>>;
}

impl<T: AsyncRead + AsyncWrite + Unpin> Role for client::Connection<T, Bytes> {
    fn set_initial_window_size(&mut self, size: u32) -> Result<(), h2::Error> {
        self.set_initial_window_size(size)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Result<(), h2::Error>> {
        Future::poll(Pin::new(self), cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Role for server::Connection<T, Bytes> {
    fn set_initial_window_size(&mut self, size: u32) -> Result<(), h2::Error> {
        self.set_initial_window_size(size)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Result<(), h2::Error>> {
        loop {
            match self.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => accept(request, respond),
                Poll::Ready(over) => return Poll::Ready(over.transpose().map(|_| ())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Why a connection is no more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// In order.
    #[error("closed")]
    Closed,
    /// It broke, or the peer ended it.
    #[error("{0}")]
    Connection(#[from] h2::Error),
    /// The socket takes nothing more; what came before may still be read, by further polls.
    #[error("the socket failed: {0}")]
    Socket(io::Error),
    /// Nothing came for two PING intervals, or for seconds while a request waited.
    #[error("nothing came, and no answer to a ping")]
    Dead,
    /// The peer doesn't acknowledge SETTINGS (RFC 9113 §6.5.3), and so won't keep to its window.
    #[error("our settings aren't acknowledged")]
    Unsettled,
}

/// What is under way on a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Streams that are open.
    pub streams: usize,
    /// One of them waits for the head of its response.
    pub waiting: bool,
    /// One was opened since the last poll.
    pub opened: bool,
}

/// A connection, its flush, its window and its keepalive.
#[derive(Debug)]
pub struct Engine<R, IO, W = ()> {
    /// H2's own.
    pub connection: R,
    /// The socket's.
    pub driver: Driver<IO, W>,
    /// Whether the peer is there, and how far.
    pub keepalive: Keepalive,
    /// How much its streams may be sent.
    pub window: Window,
    /// Where its state is shown, if it is.
    pub pulse: Option<Arc<Pulse>>,
    /// Since when a window waits for the last one to be acknowledged.
    unsettled: Deadline,
}

/// That of a tunnel's gateway, which asks.
pub type Asking<IO, W = ()> = Engine<client::Connection<Cork<IO, W>, Bytes>, IO, W>;
/// That of a tunnel's backend, which answers; and of a visitor's connection.
pub type Answering<IO, W = ()> = Engine<server::Connection<Cork<IO, W>, Bytes>, IO, W>;

impl<IO: AsyncRead + AsyncWrite + Unpin, W: Watch> Asking<IO, W> {
    /// Begins a tunnel on which this side asks.
    ///
    /// # Errors
    /// [`Ended::Connection`]; it only writes.
    pub async fn asking(
        io: IO,
        watch: W,
        window: Window,
    ) -> Result<(SendRequest<Bytes>, Self), Ended> {
        let (io, driver) = cork(io, watch);
        let (sender, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(window.announced())
            .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW)
            .max_header_list_size(TUNNEL_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            // Small frames are taken off each stream as they come (link::body), and merged there, so
            // that one visitor's stream of them isn't counted against the tunnel.
            .data_frame_budget(usize::MAX)
            // The gateway counts a backend's breaches of the protocol itself, and forgets; h2's count is for the
            // connection's life, which here is weeks.
            .max_local_error_reset_streams(None)
            .handshake(io)
            .await?;
        let keepalive = Keepalive::watching(connection.ping_pong().expect(FIRST_TAKE));
        Ok((sender, Self::new(connection, driver, window, keepalive)))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, W: Watch> Answering<IO, W> {
    /// Begins a tunnel on which this side answers so many `streams` at a time. Waits for the gateway's preface.
    ///
    /// # Errors
    /// [`Ended::Connection`].
    pub async fn answering(io: IO, watch: W, window: Window, streams: u32) -> Result<Self, Ended> {
        let (io, driver) = cork(io, watch);
        let mut builder = server::Builder::new();
        builder
            .max_concurrent_streams(streams)
            .initial_window_size(window.announced())
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
        let keepalive = Keepalive::watching(connection.ping_pong().expect(FIRST_TAKE));
        Ok(Self::new(connection, driver, window, keepalive))
    }
}

impl<R: Role, IO: AsyncRead + AsyncWrite + Unpin, W: Watch> Engine<R, IO, W> {
    /// Drives `connection`, whose first SETTINGS carried `window`. Asks at once how far the peer is, while nothing
    /// waits in its socket ahead of the answer.
    pub fn new(
        connection: R,
        driver: Driver<IO, W>,
        window: Window,
        mut keepalive: Keepalive,
    ) -> Self {
        keepalive.ping(0);
        Self { connection, driver, keepalive, window, pulse: None, unsettled: Deadline::default() }
    }

    /// Ready when the connection has ended; requests that come before go to `accept`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        load: Load,
        mut accept: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Ended> {
        if self.poll_window(cx, load.streams).is_ready() {
            return Poll::Ready(Ended::Unsettled);
        }
        let mut ended = Poll::Pending;
        if load.opened {
            // h2 answers a PING before it sends the head of a stream that was opened earlier. A peer that drains
            // would take the answer to mean that no stream is on its way (RFC 9113 §6.8).
            self.driver.pause_reads(true);
            ended = self.connection.poll(cx, &mut accept);
            self.driver.pause_reads(false);
        }
        if ended.is_pending() {
            ended = self.connection.poll(cx, &mut accept);
        }
        let flushed = self.driver.poll_flush(cx);
        if let Poll::Ready(result) = ended {
            return Poll::Ready(result.map_or_else(Ended::Connection, |()| Ended::Closed));
        }
        if let Poll::Ready(Err(err)) = flushed {
            return Poll::Ready(Ended::Socket(err));
        }
        let counts = self.driver.counts();
        let dead = self.keepalive.poll_dead(cx, counts.0, load.waiting).map(|()| Ended::Dead);
        if let Some(pulse) = &self.pulse {
            pulse.note(counts, load.streams, self.window.announced(), self.keepalive.answer);
        }
        dead
    }

    /// Announces another window where one is due. Ready when the peer hasn't acknowledged the last one for too long.
    fn poll_window(&mut self, cx: &mut Context<'_>, streams: usize) -> Poll<()> {
        let received = self.driver.received();
        self.window.poll_renewals(cx);
        if let Some(time) = self.keepalive.round_trip() {
            self.window.reach(time);
        }
        match self.window.adjust(streams, received) {
            // Fails while the last SETTINGS frame isn't acknowledged; then the next poll tries again.
            Some(window) if self.connection.set_initial_window_size(window).is_err() => {
                if self.keepalive.is_watching() {
                    return self.unsettled.poll_after(cx, SETTLED);
                }
            }
            Some(window) => {
                self.window.announce(window, received);
                self.unsettled.clear();
                if !self.keepalive.is_watching() {
                    // The way may be shorter than it seemed; no other PING is due here.
                    self.keepalive.ping(received);
                }
            }
            None => self.unsettled.clear(),
        }
        Poll::Pending
    }

    /// Waits for the answer to the first PING: then the peer's SETTINGS are known, too, and it is no silent socket.
    ///
    /// # Errors
    /// Why the connection ended before.
    pub async fn answered(&mut self) -> Result<(), Ended> {
        poll_fn(|cx| match self.poll(cx, Load::default(), |_, _| {}) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            Poll::Pending if self.keepalive.is_answered() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Drives the connection to its end, with nothing under way. Cancel safe.
    pub async fn ended(&mut self) -> Ended {
        poll_fn(|cx| self.poll(cx, Load::default(), |_, _| {})).await
    }

    /// Says GOAWAY with a reason of [`goaway`], for which h2's client role has no way: between two of h2's
    /// frames. Then the peer has a moment to close by itself, since of two GOAWAYs that it finds together only the
    /// last would count. True if it was told, or is gone.
    pub async fn dismiss(&mut self, why: Why, text: &str) -> bool {
        let frame = goaway::frame(why, text);
        let mut told = false;
        let left = poll_fn(|cx| {
            let ended = self.poll(cx, Load::default(), |_, _| {}).map(|_| ());
            if ended.is_pending() && !told {
                told = self.driver.inject(&frame);
                if told {
                    // To have it flushed.
                    cx.waker().wake_by_ref();
                }
            }
            ended
        });
        let gone = timeout(LINGER, left).await.is_ok();
        gone || told
    }

    /// Lets the peer read our last frames, of which a close with unread bytes would take some back.
    pub async fn close(&self) {
        self.driver.flushing(linger(self.driver.io())).await;
    }
}

const FIRST_TAKE: &str = "it is taken once, here";
/// For a peer to acknowledge SETTINGS. Behind a slow uplink its answer waits for megabytes of DATA.
const SETTLED: Duration = Duration::from_secs(60);
/// Streams that were reset and whose late frames must still be told from a breach of protocol.
const REMEMBERED_RESETS: usize = 4096;
/// More than a gateway sends at once (the burst of its reset limiter), so that visitors that come and go by the
/// thousand can't end the tunnel.
const RESETS_BEFORE_ACCEPT: usize = 20_000;
