//! One visitor's HTTP/2 connection: what must be polled together.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::Request;
use log::trace;
use ptth_link::budget::Budget;
use ptth_link::h2::cork::{TURN, cork};
use ptth_link::h2::keepalive::Keepalive;
use ptth_link::h2::window::Window;
use ptth_link::h2::{Answering, Ended, Load};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::conduct::Conduct;
use super::frames::Frames;
use crate::public::Visitor;
use crate::public::stall::{Outlet, Stall};

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

/// A visitor's connection, and its socket as its streams see it.
pub(super) struct Engine<IO> {
    pub(super) wire: Answering<Stall<IO>, Frames>,
    pub(super) outlet: Outlet,
    budget: Arc<Budget>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Engine<IO> {
    /// Waits for the preface. `None` if none comes.
    pub(super) async fn start(
        visitor: &Visitor,
        conduct: Arc<Conduct>,
        io: IO,
    ) -> Option<Box<Self>> {
        let budget = visitor.budget.clone();
        let (io, outlet) = Stall::new(io, budget.clone());
        let (io, driver) = cork(io, Frames::new(conduct));
        let handshake = driver.flushing(builder(budget.batch()).handshake::<_, Bytes>(io));
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
        Some(Box::new(Self { wire, outlet, budget }))
    }

    /// Hands every request that is there to `accept`. Ready when the connection has ended.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        accept: impl FnMut(Request<RecvStream>, SendResponse<Bytes>),
    ) -> Poll<Ended> {
        self.wire.driver.gather(self.budget.batch());
        if let Some(target) = self.wire.window.target() {
            self.wire.connection.set_target_window_size(target);
        }
        let ended = self.wire.poll(cx, Load::default(), accept);
        if self.wire.driver.is_flushed() {
            self.outlet.clear();
        }
        ended
    }
}

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
/// our SETTINGS may open (RFC 9113 §5.1.2). [`Conduct`] tells those apart, and is stricter.
const STREAM_ERRORS: usize = 1000;
/// From the TLS handshake to the end of the preface.
const PREFACE: Duration = Duration::from_secs(10);
