//! Accepts connections, shakes hands, tells visitors from backends, and hands each to its protocol.
//!
//! Invariant: nothing that a peer does or leaves undone holds up the accept loop: the TLS handshake
//! and the admission of a backend run in the connection's own task, under a deadline.

mod handshake;
mod plain;
pub mod proxied;
mod rewind;

use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use log::{debug, info, warn};
use ptth_link::explain::{Opening, What};
use ptth_link::h2::goaway::Why;
use ptth_link::limits::TUNNEL_USER_TIMEOUT;
use ptth_link::shutdown::Phase;
use ptth_link::tcp::{self, HTTPS};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::auth::Admits;
use crate::demux::Peer;
use crate::identity::Identity;
use crate::observe::Refusal;
use crate::public::{Visitor, serve_h1, serve_h2};
use crate::quota::ConnectionPermit;
use crate::shard::{Driving, Shard};
use crate::tunnel::{Admitted, Ended, attach, refuse};

use handshake::HANDSHAKE;
pub use handshake::accept_tls;
pub use plain::serve_plain;
use proxied::Source;
pub use rewind::Rewind;

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entrance {
    /// Visitors and backends.
    Tls,
    /// Visitors whose TLS ends at a proxy.
    Plain,
    /// Visitors that are to come by https.
    Redirect,
}

/// Serves one shard until the end of the process: accepts visitors and backends from `listeners`, and
/// drives the tunnels that come by `tunnels`.
pub(crate) async fn run(
    shard: Arc<Shard>,
    listeners: Vec<(Entrance, TcpListener)>,
    mut tunnels: mpsc::UnboundedReceiver<Driving>,
    drained: mpsc::Sender<()>,
) {
    let (mut draining, mut closing) = (shard.shutdown.clone(), shard.shutdown.clone());
    let mut connections = JoinSet::new();
    let mut driven = JoinSet::new();
    let mut listeners = Some(listeners);
    let mut drained = Some(drained);
    let mut closed = false;
    let mut turn = 0;
    // Set when a connection ends.
    let mut purge = None;
    loop {
        turn += 1;
        select! {
            accepted = accept(listeners.as_deref().unwrap_or_default(), turn), if listeners.is_some() => {
                match accepted {
                    Ok(accepted) => admit(&shard, accepted, drained.clone(), &mut connections),
                    // EMFILE lasts until a connection closes; a retry at once would only fill the log.
                    // No error of `accept` is a reason to stop serving.
                    Err(err) => {
                        warn!("listener: accept failed: {err}");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
            Some(tunnel) = tunnels.recv() => {
                driven.spawn(tunnel);
            }
            Some(done) = connections.join_next() => report(done, &mut purge),
            Some(done) = driven.join_next() => report(done, &mut purge),
            () = sleep_until(purge.unwrap_or_else(Instant::now)), if purge.is_some() => {
                purge = None;
                give_back();
            }
            () = draining.reached(Phase::Draining), if listeners.is_some() => {
                // What the kernel has taken in already would be refused with the sockets.
                for opened in queued(listeners.take().unwrap_or_default()) {
                    admit(&shard, opened, drained.clone(), &mut connections);
                }
            }
            () = closing.reached(Phase::Closing), if !closed => {
                closed = true;
                listeners = None;
                connections.abort_all();
            }
        }
        if listeners.is_none() {
            // The visitors' connections have clones.
            drop(drained.take());
            if closed && connections.is_empty() && driven.is_empty() {
                return;
            }
        }
    }
}

/// Has the allocator return the memory that this thread freed to the system: mimalloc does so only while it looks for a
/// large block, and an idle gateway needs none. A megabyte that isn't touched costs nothing.
fn give_back() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE)));
}

type Opened = (Entrance, TcpStream, SocketAddr);

/// The next connection of any listener, each of which is the first to be asked in its `turn`. Cancel safe.
async fn accept(listeners: &[(Entrance, TcpListener)], turn: usize) -> io::Result<Opened> {
    let (before, after) = listeners.split_at(turn % listeners.len().max(1));
    let (entrance, (socket, peer)) = poll_fn(|cx| {
        let mut accepted = after.iter().chain(before).map(|(entrance, listener)| {
            listener.poll_accept(cx).map_ok(|accepted| (*entrance, accepted))
        });
        accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await?;
    Ok((entrance, socket, peer))
}

/// The connections that wait in the sockets, which are closed.
fn queued(listeners: Vec<(Entrance, TcpListener)>) -> Vec<Opened> {
    let mut opened = Vec::new();
    for (entrance, listener) in listeners {
        let Ok(listener) = listener.into_std() else { continue };
        while let Ok((socket, peer)) = listener.accept() {
            let usable = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
            opened.extend(usable.ok().map(|socket| (entrance, socket, peer)));
        }
    }
    opened
}

fn admit(
    shard: &Arc<Shard>,
    (entrance, socket, peer): Opened,
    awaited: Option<mpsc::Sender<()>>,
    connections: &mut JoinSet<()>,
) {
    // An IPv6 socket shows IPv4 peers as ::ffff:192.0.2.1.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let proxied = shard.trusted.contains(peer.ip());
    let failed = || !shard.attempts.delay(peer.ip(), Instant::now()).is_zero();
    let from = (!proxied).then(|| peer.ip());
    let Some(permit) = shard.connections.take(from, || proxied || !failed()) else {
        debug!("listener: {peer} refused: too many connections");
        shard.observe.counts.refused(Refusal::Connections);
        return;
    };
    if let Err(err) = tcp::tune(&socket, VISITOR_USER_TIMEOUT) {
        debug!("listener: {peer} is gone: {err}");
        return;
    }
    permit.await_end(awaited);
    let connection = enter(shard.clone(), (entrance, socket, peer), proxied, permit.clone());
    let shard = shard.clone();
    connections.spawn(async move {
        if permit.hold(connection).await.is_none() {
            debug!("listener: {peer} dropped: too many connections");
            if permit.is_unearned() && !proxied {
                shard.attempts.failed(peer.ip(), Instant::now());
            }
        }
    });
}

async fn enter(
    shard: Arc<Shard>,
    (entrance, socket, peer): Opened,
    proxied: bool,
    permit: Arc<ConnectionPermit>,
) {
    let mut socket = Rewind::new(socket);
    let found = if proxied { behind(&shard, &mut socket, peer, &permit).await } else { Some(peer) };
    let Some(peer) = found else { return };
    match entrance {
        Entrance::Tls => connection(shard, socket, peer, permit).await,
        Entrance::Plain => {
            permit.stand_back();
            socket.reset_if_cut(permit.clone(), |socket| {
                // Fails only where the connection is gone already.
                let _ = socket.set_zero_linger();
            });
            Box::pin(serve_plain(&shard, socket, peer, permit)).await;
        }
        // The last permits are for backends, and no backend comes by this entrance.
        Entrance::Redirect if permit.is_reserved() => {
            debug!("listener: {peer} dropped: too many connections");
        }
        Entrance::Redirect => {
            let mut visitor = Visitor::new(&shard, peer.ip(), None, permit);
            visitor.redirect = Some(shard.port.get().copied().unwrap_or(HTTPS));
            serve_h1(Arc::new(visitor), socket).await;
        }
    }
}

/// The peer behind a trusted proxy's connection, which owns the connection's permit from then on; under a deadline.
/// `None`: the connection is to be dropped.
pub async fn behind<IO: AsyncRead + Unpin>(
    shard: &Shard,
    io: &mut Rewind<IO>,
    proxy: SocketAddr,
    permit: &ConnectionPermit,
) -> Option<SocketAddr> {
    match timeout(HANDSHAKE, proxied::source(io, shard.proxy_protocol)).await {
        Ok(Ok(Source::Proxy)) => Some(proxy),
        Ok(Ok(Source::Unknown)) => {
            let _ = permit.opaque.set(());
            Some(proxy)
        }
        Ok(Ok(Source::Visitor(peer))) if permit.is_for(peer.ip()) => Some(peer),
        Ok(Ok(Source::Visitor(peer))) => note(peer, &"too many connections"),
        Ok(Err(err)) if err.kind() == io::ErrorKind::InvalidData => {
            warn!("listener: the proxy {proxy} was refused: {err}");
            None
        }
        Ok(Err(err)) => note(proxy, &err),
        Err(_) => note(proxy, &"no PROXY header in time"),
    }
}

fn report(done: Result<(), JoinError>, purge: &mut Option<Instant>) {
    purge.get_or_insert_with(|| Instant::now() + PURGE);
    if let Err(err) = done
        && err.is_panic()
    {
        log::error!("listener: a connection's task panicked: {err}");
    }
}

async fn connection(
    shard: Arc<Shard>,
    socket: Rewind<TcpStream>,
    peer: SocketAddr,
    permit: Arc<ConnectionPermit>,
) {
    // Boxed, since what a handshake needs isn't to be held by thousands of visitors at rest.
    match Box::pin(accept_tls(&shard, socket, peer, &permit)).await {
        Some((mut stream, Peer::Backend)) => {
            if let Err(err) = tcp::tune(stream.get_mut().0.stream_mut(), TUNNEL_USER_TIMEOUT) {
                return debug!("listener: {peer} is gone: {err}");
            }
            let (target, booking) = shard.registry.emptiest_shard(shard.index);
            let moves = target != shard.index;
            permit.await_end(None);
            let shard = shard.at(target);
            let (driver, held) = (shard.clone(), permit.clone());
            let tunnel = Box::pin(async move {
                if moves {
                    // Without a free descriptor, it stays on the reactor of the thread that accepted it.
                    let _ = arrive(stream.get_mut().0.stream_mut());
                }
                info!("tunnel: admitted from={peer}");
                let served = serve_backend(*stream, shard, peer, held);
                if permit.hold(served).await.is_none() {
                    warn!("tunnel: refused from={peer}: too many connections, and it was slow");
                }
                drop(booking);
            });
            driver.drive(tunnel);
        }
        Some((stream, kind)) => serve_visitor(&shard, stream, kind, peer, permit).await,
        None => {}
    }
}

/// Has a connection wait on this thread's reactor in place of the one of the thread that accepted it.
fn arrive(socket: &mut TcpStream) -> io::Result<()> {
    let copy = SockRef::from(&*socket).try_clone()?;
    *socket = TcpStream::from_std(copy.into())?;
    Ok(())
}

fn note<T>(peer: SocketAddr, why: &dyn std::fmt::Display) -> Option<T> {
    debug!("listener: {peer} dropped: {why}");
    None
}

/// Serves a visitor to the end of its connection.
pub async fn serve_visitor<IO>(
    shard: &Arc<Shard>,
    stream: Box<TlsStream<IO>>,
    kind: Peer,
    peer: SocketAddr,
    permit: Arc<ConnectionPermit>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name = stream.get_ref().1.server_name();
    let mut visitor = Visitor::new(shard, peer.ip(), name, permit);
    visitor.tls = stream.get_ref().1.protocol_version();
    let visitor = Arc::new(visitor);
    match kind {
        Peer::VisitorH2 => serve_h2(visitor, stream).await,
        _ => serve_h1(visitor, stream).await,
    }
}

/// Drives a backend's tunnel to its end.
pub async fn serve_backend<IO>(
    stream: TlsStream<IO>,
    shard: Arc<Shard>,
    peer: SocketAddr,
    permit: Arc<ConnectionPermit>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let identity = Identity::of(stream.get_ref().1);
    let policy = shard.registry.policy();
    let vouched = || matches!(policy.verify(&identity.chain), Some(Ok(())));
    let proven = identity.key.as_ref().is_some_and(|key| policy.names(key) || vouched());
    let grants = match policy.admit(&identity, peer.ip()).await {
        Ok(grants) => grants,
        Err(refused) => {
            let why = refused.to_string();
            shard.observe.counts.refused(Refusal::Admission);
            warn!("tunnel: refused from={peer} name={:?}: {why}", identity.name);
            return refuse(stream, Why::Forbidden, &why).await;
        }
    };
    drop(policy);
    let from = Some(peer.ip());
    let tls = stream.get_ref().1;
    let opening = || Opening::new(false, peer, tls.protocol_version(), tls.alpn_protocol());
    let tap = shard.explain.tap(What::Tunnel, opening);
    let backend = Admitted { identity, grants, proven, permit, announce: true, from, tap };
    match attach(stream, backend, shard.clone()).await {
        ended @ (Ended::Silent | Ended::Taken | Ended::Over) => {
            shard.observe.counts.refused(Refusal::Admission);
            warn!("tunnel: refused from={peer}: {ended}")
        }
        ended => debug!("tunnel: from={peer} is over: {ended}"),
    }
}

/// For a visitor whose network pauses, or that doesn't read its upgraded connection for a while.
const VISITOR_USER_TIMEOUT: Duration = Duration::from_secs(120);
/// From the first end of a connection to the return of memory, so that one call serves many connections.
const PURGE: Duration = Duration::from_secs(2);
/// Bytes of a block that the allocator doesn't count as small.
const LARGE: usize = 1 << 20;
/// Connections that close free descriptors within this time.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
