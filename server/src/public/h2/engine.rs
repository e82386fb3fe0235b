//! One visitor's HTTP/2 connection: what must be polled together.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::Request;
use log::trace;
use ptth_link::cork::{Cork, Driver, TURN, cork};
use ptth_link::window::Window;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::public::Visitor;
use crate::public::stall::Stall;

fn builder(batch: usize) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(batch)
        // More than one turn brings: between two turns each stream's own task takes what came, and merges it.
        .data_frame_budget(TURN * SMALLEST_COST)
        .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
        .max_local_error_reset_streams(Some(STREAM_ERRORS))
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol();
    builder
}

/// The connection, its flush and its window.
pub(super) struct Engine<IO> {
    pub(super) connection: Connection<Cork<Stall<IO>>, Bytes>,
    driver: Driver<Stall<IO>>,
    window: Window,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Engine<IO> {
    /// Waits for the preface. `None` if none comes.
    pub(super) async fn start(visitor: &Visitor, io: IO) -> Option<Box<Self>> {
        let (io, _) = Stall::new(io, visitor.budget.clone());
        let (io, driver) = cork(io);
        let handshake = driver.flushing(builder(visitor.budget.batch()).handshake::<_, Bytes>(io));
        let connection = match timeout(PREFACE, handshake).await {
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
        let window = Window::new(visitor.budget.clone(), STREAM_WINDOW);
        Some(Box::new(Self { connection, driver, window }))
    }

    /// Hands every request that is there to `accept`, and flushes once. Ready when the connection has ended.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        streams: usize,
        mut accept: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Result<(), h2::Error>> {
        let received = self.driver.received();
        self.driver.gather(self.window.batch());
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

/// Streams of one visitor at a time; browsers open fewer than a hundred.
const STREAMS: u32 = 100;
/// What a stream's body may send before anybody read of it; grows while it is what limits an upload.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// As HTTP/1.1's head; h2 answers 431 beyond it.
const HEADER_LIST: u32 = 32 * 1024;
/// What h2 counts for a byte of frames on the wire, at most: 255 for ten.
const SMALLEST_COST: usize = 32;
/// Streams that were reset before we looked at them (rapid reset).
const RESETS_BEFORE_ACCEPT: usize = 20;
/// Stream errors that a visitor may make us send in the life of a connection (MadeYouReset).
const STREAM_ERRORS: usize = 100;
/// From the TLS handshake to the end of the preface.
const PREFACE: Duration = Duration::from_secs(10);
