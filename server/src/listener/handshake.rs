//! The TLS handshake, which tells a visitor from a backend.

use std::net::SocketAddr;
use std::time::Duration;

use log::{debug, warn};
use ptth_link::alpn;
use ptth_link::tcp::linger;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::note;
use super::rewind::Rewind;
use crate::auth::Stranger;
use crate::demux::{Peer, Side};
use crate::observe::Refusal;
use crate::quota::ConnectionPermit;
use crate::shard::Shard;

/// Shakes hands, under a deadline. `None` and a line in the log where that fails or is refused. A backend proved a key,
/// or the gateway is open to all.
pub async fn accept_tls<IO>(
    shard: &Shard,
    mut io: Rewind<IO>,
    peer: SocketAddr,
    permit: &ConnectionPermit,
) -> Option<(Box<TlsStream<Rewind<IO>>>, Peer)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let address = peer.ip();
    let due = Instant::now() + HANDSHAKE;
    // TLS begins with a number below any letter (RFC 8446 §5.1), HTTP with a method.
    let _ = timeout_at(due, io.look(1)).await;
    if io.seen().first().is_some_and(u8::is_ascii_uppercase) {
        permit.stand_back();
        let _ = timeout(HANDSHAKE, io.write_all(PLAIN_HTTP)).await;
        linger(io).await;
        return note(peer, &"it speaks HTTP without TLS");
    }
    let hello = match timeout_at(due, LazyConfigAcceptor::new(Acceptor::default(), io)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(err)) => return note(peer, &err),
        Err(_) => return note(peer, &"no ClientHello in time"),
    };
    let stranger = Stranger::default();
    let (side, config) =
        match shard.tls.side(&hello.client_hello(), shard.registry.policy(), &stranger) {
            Ok(chosen) => chosen,
            Err(err) => return note(peer, &err),
        };
    let backend = side == Side::Backend;
    if backend {
        // Guessing a 256-bit key is hopeless; this keeps the attempts from costing us.
        let delay = shard.attempts.delay(address, Instant::now());
        if !delay.is_zero() && permit.is_reserved() {
            return note(peer, &"too many connections, and too many failures from this address");
        }
        sleep(delay).await;
    } else {
        permit.stand_back();
    }
    let mut stream = match timeout(HANDSHAKE, hello.into_stream(config).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((err, io))) if backend => {
            shard.attempts.failed(address, Instant::now());
            warn!("tunnel: refused from={peer}: {}", refusal(&err, &stranger));
            shard.observe.counts.refused(Refusal::Admission);
            if !permit.is_reserved() {
                // With TLS 1.3 it may have begun to talk already (RFC 8446 §4.4.2.4).
                linger(io).await;
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
    if kind == Peer::Validator {
        // RFC 8737 §3: nothing follows the handshake.
        let _ = timeout(HANDSHAKE, stream.shutdown()).await;
        return note(peer, &"it validated a name");
    }
    Some((Box::new(stream), kind))
}

/// Why a backend's handshake ended, for the operator, which has to admit its key.
fn refusal(err: &std::io::Error, stranger: &Stranger) -> String {
    let rustls = err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
    match (stranger.get(), rustls) {
        (Some(key), _) => format!("its key isn't known here: {key}"),
        (None, Some(rustls::Error::NoCertificatesPresented)) => "it showed no key".to_owned(),
        _ => err.to_string(),
    }
}

/// For a URL that begins with `http://`.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 41\r\n\
    Connection: close\r\n\r\n\
    This port speaks HTTPS: ask by https://.\n";
/// Accepted to TLS done: once for the ClientHello, once for the rest.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
