//! Drives one tunnel: the gateway's side of an HTTP/2 connection that the backend dialled.
//!
//! Every door ends in [`attach`]: the mechanism differs, the policy doesn't.
//!
//! ```text
//! handshake ─> first PONG ─> registered ─┬─> draining (replaced, withdrawn) ─> idle ─┬─> closed
//!     │ silent: refused                  ├─> dead (silent: ptth_link::h2::keepalive) ─────┤
//!     └──────────────────────────────────┴─> the connection ends, too many breaches ─┘
//! ```

mod announce;

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use log::{info, warn};
use ptth_link::explain::Tap;
use ptth_link::h2::cork::Watch;
use ptth_link::h2::frames::{ACK, GOAWAY, SETTINGS, Walk};
use ptth_link::h2::goaway::{Why, refusal};
use ptth_link::h2::window::Window;
use ptth_link::h2::{self as engine, Asking};
use ptth_link::limits::PING_INTERVAL;
use ptth_link::shutdown::Phase;
use ptth_link::tcp::linger;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::identity::{Grant, Identity};
use crate::live::Tunnel;
use crate::quota::ConnectionPermit;
use crate::registry::{Registration, Registry};
use crate::shard::Shard;
use announce::announce;

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
    /// As the connection did.
    #[error("{0}")]
    Connection(#[from] engine::Ended),
    /// The backend broke the protocol too often.
    #[error("the backend broke the protocol too often")]
    Penalized,
    /// Replaced, withdrawn or shut down, with nothing left to finish.
    #[error("drained")]
    Drained,
}

impl Ended {
    /// One word for the metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Silent | Self::Connection(engine::Ended::Dead) => "silent",
            Self::Taken => "taken",
            Self::Over => "limit",
            Self::Connection(engine::Ended::Closed) => "closed",
            Self::Connection(_) => "broken",
            Self::Penalized => "penalized",
            Self::Drained => "drained",
        }
    }
}

/// A backend that was let in, by whichever door.
#[derive(Debug)]
pub struct Admitted {
    /// The holder of the other end.
    pub identity: Identity,
    /// What it asked to serve, and was granted.
    pub grants: Vec<Grant>,
    /// Whether something that it showed lets it in: to an open gateway any peer is a backend.
    pub proven: bool,
    /// The permit of its connection.
    pub permit: Arc<ConnectionPermit>,
    /// Whether it is still to be told its public addresses.
    pub announce: bool,
    /// Its address, where it has one.
    pub from: Option<IpAddr>,
    /// What explains its tunnel.
    pub tap: Option<Tap>,
}

/// Turns the connection of an admitted backend into a tunnel, which `shard` drives to its end.
///
/// Dropping the future cuts the tunnel.
pub async fn attach<IO>(io: IO, backend: Admitted, shard: Arc<Shard>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !is_free(&shard.registry, &backend.identity, &backend.grants).await {
        refuse(io, Why::Taken, "another backend is there and keeps its place").await;
        return Ended::Taken;
    }
    let Admitted { identity, grants, proven, permit, announce, from, tap } = backend;
    match timeout(FIRST_PONG, start(io, &shard, (identity, grants), tap)).await {
        Ok(Ok((engine, tunnel))) => {
            let id = tunnel.id;
            // What is told its addresses after the handshake came by the ALPN label; a registration is answered.
            let door = if announce { "alpn" } else { "http" };
            if let Some(from) = from {
                let _ = tunnel.from.set((from, door));
            }
            // h2 says GOAWAY when its last sender is gone: only its users keep the tunnel.
            let end = End(Arc::downgrade(&tunnel));
            let earn = || permit.earn(proven);
            let ended = run(engine, tunnel, &shard, announce, &earn).await;
            // It was here until now.
            if !matches!(ended, Ended::Taken | Ended::Over) {
                earn();
            }
            drop(end);
            match ended {
                Ended::Connection(engine::Ended::Closed) | Ended::Drained => {
                    info!("tunnel: {id} ended: {ended}")
                }
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
pub(crate) async fn refuse<IO>(mut io: IO, why: Why, text: &str)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let _ = timeout(FIRST_PONG, io.write_all(&refusal(why, text))).await;
    linger(io).await;
}

/// Whether no other backend holds one of these routes and would keep it. A backend that is there keeps its place if
/// it answers; one that went away without a word doesn't lock out the next.
pub(crate) async fn is_free(registry: &Registry, identity: &Identity, grants: &[Grant]) -> bool {
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

/// Begins, and waits for the backend's first PONG.
async fn start<IO>(
    io: IO,
    shard: &Shard,
    (identity, grants): (Identity, Vec<Grant>),
    tap: Option<Tap>,
) -> Result<(Engine<IO>, Arc<Tunnel>), Ended>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let budget = shard.budget.part();
    let window = Window::tunnel(budget.clone(), identity.ours);
    // Transposed roles: the gateway was dialled, and yet it is HTTP/2's client, which asks.
    let (sender, mut engine) = Asking::asking(io, (Costly::default(), tap), window).await?;
    engine.keepalive.probe(0);
    engine.answered().await?;
    let tunnel = Tunnel::new(shard.index, (identity, grants), budget, sender);
    engine.pulse = Some(tunnel.pulse.clone());
    Ok((engine, tunnel))
}

type Engine<IO> = Asking<IO, (Costly, Option<Tap>)>;

/// Registers a tunnel, and drives it.
async fn run<IO>(
    engine: Engine<IO>,
    tunnel: Arc<Tunnel>,
    shard: &Shard,
    announces: bool,
    earn: &(dyn Fn() + Sync),
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let registration = match shard.registry.enroll(&tunnel) {
        Ok(registration) => registration,
        Err(why) => {
            let (text, ended) = match why {
                // Another one came first while this one shook hands.
                Why::Taken => ("another backend came first", Ended::Taken),
                Why::OverLimit => (OVER, Ended::Over),
                _ => ("its grant was withdrawn", Ended::Drained),
            };
            tunnel.dismiss(why, text);
            finish(engine, tunnel).await;
            return ended;
        }
    };
    earn();
    shard.observe.counts.opened.add(1);
    info!(
        "tunnel: {} up name={:?} key={} serves={} shard={}",
        tunnel.id,
        tunnel.identity.name,
        tunnel.identity.key_text(),
        routes_text(&tunnel.grants),
        shard.index
    );
    let ended = drive(engine, tunnel, shard, announces, registration).await;
    shard.observe.counts.ended(ended.reason());
    ended
}

/// Drives a registered tunnel to its end.
async fn drive<IO>(
    mut engine: Engine<IO>,
    tunnel: Arc<Tunnel>,
    shard: &Shard,
    announces: bool,
    registration: Registration,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut registration = Some(registration);
    let port = shard.port.get().filter(|_| announces);
    let mut told = port.and_then(|port| announce(&tunnel, &shard.registry.policy(), *port));
    let mut shutdown = shard.shutdown.clone();
    let mut release = interval(RELEASE_INTERVAL);
    release.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forgive = Instant::now() + PING_INTERVAL;
    let mut allowed = tunnel.allowed();
    loop {
        select! {
            ended = poll_fn(|cx| {
                if told.as_mut().is_some_and(|told| Pin::new(told).poll(cx).is_ready()) {
                    told = None;
                }
                poll(cx, &mut engine, &tunnel, &mut allowed)
            }) => return ended.into(),
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
                    true => tunnel.dismiss(Why::Stopping, "the gateway stops"),
                    // To others a code that they don't know would be an error.
                    false => tunnel.drain(),
                }
                return finish(engine, tunnel).await;
            }
            now = release.tick() => {
                tunnel.reset_limiter.release();
                if now >= forgive {
                    tunnel.forgive();
                    forgive = now + PING_INTERVAL;
                }
            }
        }
        if registration.is_none() && tunnel.in_flight() == 0 {
            return finish(engine, tunnel).await;
        }
    }
}

/// Moves the connection, and tells requests what changed: an answer to a PING, more streams than were `allowed`.
fn poll<IO>(
    cx: &mut Context<'_>,
    engine: &mut Engine<IO>,
    tunnel: &Tunnel,
    allowed: &mut usize,
) -> Poll<engine::Ended>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let ended = engine.poll(cx, tunnel.load(), |_, _| {});
    if engine.keepalive.is_answered() {
        tunnel.note_answer();
    }
    let before = std::mem::replace(allowed, tunnel.allowed());
    if *allowed > before {
        tunnel.note_room();
    }
    ended
}

/// With the last sender gone, h2 says GOAWAY(NO_ERROR) and closes. What the backend must know better goes out before,
/// and in its place: h2's own GOAWAY would take it back.
async fn finish<IO>(mut engine: Engine<IO>, tunnel: Arc<Tunnel>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if let Some((code, why)) = tunnel.dismissal()
        && engine.dismiss(code, why).await
    {
        return Ended::Drained;
    }
    drop(tunnel);
    let _ = timeout(LAST_FRAMES, engine.ended()).await;
    Ended::Drained
}

/// From the end of the TLS handshake to the first PONG: as long as any other first byte.
const FIRST_PONG: Duration = Duration::from_secs(10);
/// What a backend is told that has as many tunnels as --max-tunnels allows.
const OVER: &str = "its credential has all the tunnels that it may have here";
/// For the last frames to leave.
const LAST_FRAMES: Duration = Duration::from_secs(2);
/// How often deferred streams are looked at.
const RELEASE_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a tunnel's connection. SETTINGS and GOAWAY have h2 look at every stream of the connection (RFC 9113
/// §6.9.2, §6.8), thousands for a frame of fifteen bytes, while all others on the thread wait: a read fails after
/// [`MOST_COSTLY`] of them in one PING interval.
#[derive(Debug)]
struct Costly {
    walk: Walk,
    came: u32,
    since: Instant,
}

impl Default for Costly {
    fn default() -> Self {
        Self { walk: Walk::default(), came: 0, since: Instant::now() }
    }
}

impl Watch for Costly {
    fn came(&mut self, _: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(head) = self.walk.next(&mut bytes) {
            let costs = head.kind == GOAWAY || head.kind == SETTINGS && head.flags & ACK == 0;
            if !costs {
                continue;
            }
            if self.since.elapsed() >= PING_INTERVAL {
                (self.came, self.since) = (0, Instant::now());
            }
            self.came += 1;
        }
        match self.came <= MOST_COSTLY {
            true => Ok(()),
            false => Err(io::Error::other("SETTINGS or GOAWAY again and again")),
        }
    }
}

/// With the 4,096 streams that a backend gets at most they take a hundredth of a core. Our client sends one for each
/// change of its window: ten wider ones in this time, and some narrower ones after each.
const MOST_COSTLY: u32 = 500;
