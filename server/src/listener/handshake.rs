//! The TLS handshake, by whose end it is known who is there.

use std::net::SocketAddr;
use std::time::Duration;

use log::{debug, warn};
use ptth_link::alpn;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::note;
use crate::auth::Identity;
use crate::caps::Place;
use crate::demux::{Peer, Side};
use crate::shard::Shard;
use crate::tunnel::farewell;

/// A connection after its TLS handshake.
pub enum Accepted<IO> {
    /// Somebody who asks.
    Visitor(Box<TlsStream<IO>>, Peer),
    /// Somebody who proved a key, or whom an open gateway lets in, and wants to be asked.
    Backend(Box<TlsStream<IO>>, Identity),
}

impl<IO> std::fmt::Debug for Accepted<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Visitor(..) => "Visitor",
            Self::Backend(..) => "Backend",
        })
    }
}

/// Shakes hands, under a deadline. `None` and a line in the log for those who can't or may not.
pub async fn accept_tls<IO>(
    shard: &Shard,
    io: IO,
    peer: SocketAddr,
    place: &Place,
) -> Option<Accepted<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let address = peer.ip();
    let hello = timeout(HANDSHAKE, LazyConfigAcceptor::new(Acceptor::default(), io)).await;
    let hello = match hello {
        Ok(Ok(hello)) => hello,
        Ok(Err(err)) => return note(peer, &err),
        Err(_) => return note(peer, &"no ClientHello in time"),
    };
    let (side, config) = shard.tls.side(&hello.client_hello());
    let backend = side == Side::Backend;
    if backend {
        // Guessing a 256-bit key is hopeless; this keeps the attempts from costing us.
        let delay = shard.attempts.delay(address, Instant::now());
        if !delay.is_zero() && place.is_reserved() {
            return note(peer, &"too many connections, and too many failures from this address");
        }
        sleep(delay).await;
    } else {
        place.stand_back();
    }
    let stream = match timeout(HANDSHAKE, hello.into_stream(config).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((err, io))) if backend => {
            shard.attempts.failed(address, Instant::now());
            warn!("tunnel: refused from={peer}: {err}");
            if !place.is_reserved() {
                // With TLS 1.3 it may have begun to talk already (RFC 8446 §4.4.2.4).
                farewell(io).await;
            }
            return None;
        }
        Ok(Err((err, _))) => return note(peer, &err),
        Err(_) => return note(peer, &"the handshake took too long"),
    };
    let connection = stream.get_ref().1;
    let kind = Peer::of(side, connection.alpn_protocol());
    debug!(
        "listener: {peer} speaks {} over {:?}",
        connection.alpn_protocol().map_or_else(|| "no ALPN".to_owned(), alpn::display),
        connection.protocol_version()
    );
    if kind == Peer::Backend {
        let identity = Identity::of(connection);
        return Some(Accepted::Backend(Box::new(stream), identity));
    }
    Some(Accepted::Visitor(Box::new(stream), kind))
}

/// Accepted to TLS done: once for the ClientHello, once for the rest.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
