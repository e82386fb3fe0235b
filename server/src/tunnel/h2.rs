//! Drives one tunnel: the gateway's side of an HTTP/2 connection that the backend dialled.
//!
//! ```text
//! handshake ─> first PONG ─> registered ─┬─> draining (replaced, withdrawn) ─> idle ─┬─> closed
//!     │ silent: refused                  ├─> dead (silent: ptth_link::h2::keepalive) ─────┤
//!     └──────────────────────────────────┴─> the connection ends, too many breaches ─┘
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use log::{info, warn};
use ptth_link::budget::Budget;
use ptth_link::deadline::Deadline;
use ptth_link::h2::cork::{Cork, Driver, cork};
use ptth_link::h2::goaway::{self, OVER_LIMIT, STOPPING, TAKEN, WITHDRAWN, refusal};
use ptth_link::h2::keepalive::Keepalive;
use ptth_link::h2::window::{self, Window};
use ptth_link::limits::{PING_INTERVAL, SEND_BUFFER, TUNNEL_CONNECTION_WINDOW, TUNNEL_HEADER_LIST};
use ptth_link::linger::{self, linger};
use ptth_link::shutdown::{Phase, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, sleep_until, timeout};

use crate::identity::Grant;
use crate::identity::Identity;
use crate::live::Tunnel;
use crate::quota::ConnectionPermit;
use crate::registry::{Registration, Registry, Turned};

use super::announce::announce;
use super::costly::Costly;

/// Why a tunnel is no more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It said nothing in HTTP/2 after the TLS handshake.
    #[error("the backend said nothing after the handshake")]
    Silent,
    /// The place of an open gateway's one backend was taken.
    #[error("another backend is connected to this open gateway")]
    Taken,
    /// Its credential has all the tunnels that it may have.
    #[error("{OVER}")]
    Over,
    /// The connection broke, or the backend ended it.
    #[error("{0}")]
    Connection(h2::Error),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(io::Error),
    /// Nothing came from it for two PING intervals, or for seconds while a request waited.
    #[error("nothing came from the backend, and no answer to a ping")]
    Dead,
    /// It doesn't acknowledge SETTINGS (RFC 9113 §6.5.3), and so won't keep to its window.
    #[error("the backend doesn't acknowledge our settings")]
    Unsettled,
    /// The backend broke the protocol too often.
    #[error("the backend broke the protocol too often")]
    Penalized,
    /// The backend closed it in order.
    #[error("the backend closed it")]
    Closed,
    /// Replaced, withdrawn or shut down, with nothing left to finish.
    #[error("drained")]
    Drained,
}

/// Where a tunnel belongs.
#[derive(Clone, Debug)]
pub struct Home {
    /// The tunnels, and the policy by which they are here.
    pub registry: Arc<Registry>,
    /// The thread that this runs on.
    pub shard: usize,
    /// What bodies may hold in this process.
    pub budget: Arc<Budget>,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// The gateway's public port, where the backend is still to be told its addresses.
    pub port: Option<u16>,
    /// The permit of its connection.
    pub permit: Arc<ConnectionPermit>,
    /// Whether something that it showed lets it in: of an open gateway anybody is a backend.
    pub proven: bool,
}

/// Turns a connection whose backend was admitted into a tunnel that serves `grants`, and drives it to
/// its end.
///
/// Dropping the future cuts the tunnel.
pub async fn attach<IO>(io: IO, identity: Identity, grants: Vec<Grant>, home: Home) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !is_free(&home.registry, &identity, &grants).await {
        refuse(io, TAKEN, "another backend is there and keeps its place").await;
        return Ended::Taken;
    }
    match timeout(FIRST_PONG, Engine::start(io, &home, (identity, grants))).await {
        Ok(Ok((engine, tunnel))) => {
            let id = tunnel.id;
            // Nothing but who uses it keeps it: h2 says GOAWAY when its last sender is gone.
            let end = End(Arc::downgrade(&tunnel));
            let (permit, proven) = (home.permit.clone(), home.proven);
            let ended = run(engine, tunnel, home).await;
            // It was here until now.
            if !matches!(ended, Ended::Taken | Ended::Over) {
                permit.earn(proven);
            }
            drop(end);
            match ended {
                Ended::Closed | Ended::Drained => info!("tunnel: {id} ended: {ended}"),
                _ => warn!("tunnel: {id} lost: {ended}"),
            }
            ended
        }
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Silent,
    }
}

/// The end of a tunnel, however it comes.
struct End(Weak<Tunnel>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.upgrade().iter().for_each(|tunnel| tunnel.reset_limiter.close());
    }
}

/// Tells a backend after the handshake why it can't come in, and closes.
pub async fn refuse<IO>(mut io: IO, code: u32, why: &str)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let _ = timeout(FIRST_PONG, io.write_all(&refusal(code, why))).await;
    linger(io, linger::PATIENCE, linger::UNDER_WAY).await;
}

/// Whether nobody holds one of these routes who would keep it. A backend that is there keeps its place if
/// it answers; one that went away without a word doesn't lock out the next.
pub async fn is_free(registry: &Registry, identity: &Identity, grants: &[Grant]) -> bool {
    for rival in registry.keepers(identity, grants) {
        if rival.answers().await {
            return false;
        }
        rival.drain();
    }
    true
}

fn routes_text(grants: &[Grant]) -> String {
    let texts: Vec<_> = grants.iter().map(|grant| grant.route().to_string()).collect();
    texts.join(", ")
}

/// An HTTP/2 connection, its flush, its keepalive and its window: what must be polled together.
struct Engine<IO> {
    connection: h2::client::Connection<Cork<Costly<IO>>, Bytes>,
    driver: Driver<Costly<IO>>,
    keepalive: Keepalive,
    window: Window,
    /// Since when a window waits for the last one to be acknowledged.
    unsettled: Deadline,
}

impl<IO> Engine<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Asks for the backend's first PONG: then its SETTINGS are known, too, and it is no silent socket.
    async fn start(
        io: IO,
        home: &Home,
        who: (Identity, Vec<Grant>),
    ) -> Result<(Self, Arc<Tunnel>), Ended> {
        let (io, driver) = cork(Costly::new(io));
        // Transposed roles: the gateway was dialled, and yet it is HTTP/2's client, which asks.
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(if who.0.ours { window::FIRST } else { window::FOREIGN })
            .initial_connection_window_size(TUNNEL_CONNECTION_WINDOW)
            .max_header_list_size(TUNNEL_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            // Small frames are taken off each stream as they come (link::body), and merged there, so
            // that one visitor's stream of them isn't counted against the tunnel.
            .data_frame_budget(usize::MAX)
            // A backend that breaks the protocol is counted in `Tunnel::penalize`, which forgets; h2's
            // count is for the connection's life, which here is weeks.
            .max_local_error_reset_streams(None)
            .handshake(io)
            .await
            .map_err(Ended::Connection)?;
        let pings = connection.ping_pong().expect("it is taken once, here");
        let mut keepalive = Keepalive::new(pings);
        keepalive.probe(0);
        let budget = home.budget.part();
        let window = if who.0.ours {
            Window::first(budget.clone())
        } else {
            Window::foreign(budget.clone())
        };
        let mut engine =
            Self { connection, driver, keepalive, window, unsettled: Deadline::default() };
        poll_fn(|cx| match engine.poll(cx, 0, (false, false)) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            Poll::Pending if engine.keepalive.is_answered() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok((engine, Tunnel::new(home.shard, who, budget, sender)))
    }

    /// Ready when the connection has ended. `streams`: how many are open; `waiting`: one of them for its response;
    /// `opened`: one was opened since the last poll.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        streams: usize,
        (waiting, opened): (bool, bool),
    ) -> Poll<Ended> {
        let received = self.driver.received();
        self.window.poll_renewals(cx);
        if let Some(time) = self.keepalive.round_trip() {
            self.window.reach(time);
        }
        match self.window.adjust(streams, received) {
            // Fails while the last SETTINGS frame isn't acknowledged; then the next poll tries again.
            Some(window) if self.connection.set_initial_window_size(window).is_err() => {
                if self.unsettled.poll_after(cx, SETTLED).is_ready() {
                    return Poll::Ready(Ended::Unsettled);
                }
            }
            Some(window) => {
                self.window.announce(window, received);
                self.unsettled.clear();
            }
            None => self.unsettled.clear(),
        }
        let mut ended = Poll::Pending;
        if opened {
            // h2 answers a PING before it sends the head of a stream that was opened earlier. A backend that
            // drains would take the answer to mean that no stream is on its way (RFC 9113 §6.8).
            self.driver.pause_reads(true);
            ended = Pin::new(&mut self.connection).poll(cx);
            self.driver.pause_reads(false);
        }
        if ended.is_pending() {
            ended = Pin::new(&mut self.connection).poll(cx);
        }
        let flushed = self.driver.poll_flush(cx);
        if let Poll::Ready(result) = ended {
            return Poll::Ready(result.map_or_else(Ended::Connection, |()| Ended::Closed));
        }
        if let Poll::Ready(Err(err)) = flushed {
            return Poll::Ready(Ended::Socket(err));
        }
        self.keepalive.poll_dead(cx, self.driver.received(), waiting).map(|()| Ended::Dead)
    }
}

/// Drives a registered tunnel.
async fn run<IO>(mut engine: Engine<IO>, tunnel: Arc<Tunnel>, home: Home) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut shutdown = home.shutdown.clone();
    let mut registration = match home.registry.enroll(&tunnel) {
        Ok(registration) => Some(registration),
        Err(turned) => {
            let (code, why, ended) = match turned {
                // Another one came first while this one shook hands.
                Turned::Taken => (TAKEN, "another backend came first", Ended::Taken),
                Turned::Full => (OVER_LIMIT, OVER, Ended::Over),
                Turned::Withdrawn => (WITHDRAWN, "its grant was withdrawn", Ended::Drained),
            };
            tunnel.dismiss(code, why);
            finish(engine, tunnel).await;
            return ended;
        }
    };
    home.permit.earn(home.proven);
    info!(
        "tunnel: {} up name={:?} key={} serves={} shard={}",
        tunnel.id,
        tunnel.identity.name,
        tunnel.identity.key_text(),
        routes_text(&tunnel.grants),
        home.shard
    );
    let mut told = home.port.and_then(|port| announce(&tunnel, &home.registry.policy(), port));
    let mut forgive = Instant::now() + PING_INTERVAL;
    let mut release = Instant::now() + RELEASE_INTERVAL;
    let mut allowed = tunnel.allowed();
    loop {
        select! {
            ended = poll_fn(|cx| {
                let ended = engine.poll(cx, tunnel.in_flight(), (tunnel.is_waited_for(), tunnel.has_opened()));
                if engine.keepalive.is_answered() {
                    tunnel.note_answer();
                }
                if tunnel.allowed() > allowed {
                    registration.iter().for_each(Registration::note_room);
                }
                allowed = tunnel.allowed();
                if told.as_mut().is_some_and(|told| Pin::new(told).poll(cx).is_ready()) {
                    told = None;
                }
                ended
            }) => return ended,
            () = tunnel.attention.notified() => {
                if tunnel.is_out() {
                    return Ended::Penalized;
                }
                if tunnel.take_probe() {
                    engine.keepalive.probe(engine.driver.received());
                }
                if tunnel.is_draining() {
                    registration = None;
                }
            }
            () = shutdown.reached(Phase::Closing) => {
                // Whatever still runs is cut off, streams that the reset limiter holds included.
                drop(registration);
                match tunnel.identity.ours {
                    true => tunnel.dismiss(STOPPING, "the gateway stops"),
                    // To others a code that they don't know would be an error.
                    false => tunnel.drain(),
                }
                return finish(engine, tunnel).await;
            }
            () = sleep_until(release) => {
                tunnel.reset_limiter.release();
                release = Instant::now() + RELEASE_INTERVAL;
                if Instant::now() >= forgive {
                    tunnel.forgive();
                    forgive = Instant::now() + PING_INTERVAL;
                }
            }
        }
        if registration.is_none() && tunnel.in_flight() == 0 {
            return finish(engine, tunnel).await;
        }
    }
}

/// With the last sender gone, h2 says GOAWAY(NO_ERROR) and closes. What the backend must know better
/// goes out before: between two of h2's frames, since all of those were flushed. Then it has a moment to
/// close by itself, since of two GOAWAYs that it finds together only the last would count.
async fn finish<IO>(mut engine: Engine<IO>, tunnel: Arc<Tunnel>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some((code, why)) = tunnel.dismissal() {
        let frame = goaway::farewell(code, why);
        let mut told = false;
        let left = poll_fn(|cx| {
            let ended = engine.poll(cx, 0, (false, false)).is_ready();
            if !ended && !told {
                told = engine.driver.inject(&frame);
                if told {
                    // To have it flushed.
                    cx.waker().wake_by_ref();
                }
            }
            if ended { Poll::Ready(()) } else { Poll::Pending }
        });
        let gone = timeout(FAREWELL, left).await.is_ok();
        if gone || told {
            // h2's own GOAWAY would take back what it was told.
            return Ended::Drained;
        }
    }
    drop(tunnel);
    let _ = timeout(FAREWELL, poll_fn(|cx| engine.poll(cx, 0, (false, false)))).await;
    Ended::Drained
}

/// From the end of the TLS handshake to the first PONG: as long as any other first byte.
const FIRST_PONG: Duration = Duration::from_secs(10);
/// For a backend to acknowledge SETTINGS. Behind a slow uplink its answer waits for megabytes of DATA.
const SETTLED: Duration = Duration::from_secs(60);
/// What a backend is told that has as many tunnels as --max-tunnels allows.
const OVER: &str = "its credential has all the tunnels that it may have here";
/// Streams that we reset and whose late frames must still be told from a breach of protocol.
const REMEMBERED_RESETS: usize = 4096;
/// For the last frames to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often deferred streams are looked at.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);
