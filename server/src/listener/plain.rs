//! Connections without TLS, of a proxy that has it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Scheme;
use log::debug;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::HANDSHAKE;
use super::rewind::Rewind;
use crate::public::{Visitor, serve_h1, serve_h2};
use crate::quota::ConnectionPermit;
use crate::shard::Shard;

/// Serves a visitor without TLS to the end of its connection: in HTTP/2 if it begins with the preface
/// ("prior knowledge", RFC 9113 §3.3), else in HTTP/1.1. No backend comes in by the way it begins.
pub async fn serve_plain<IO>(
    shard: &Arc<Shard>,
    mut io: Rewind<IO>,
    peer: SocketAddr,
    permit: Arc<ConnectionPermit>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(Ok(is_h2)) = timeout(HANDSHAKE, begins_with_preface(&mut io)).await else {
        return debug!("listener: {peer} dropped: no request in time");
    };
    debug!("listener: {peer} speaks {} without TLS", if is_h2 { "h2" } else { "http/1.1" });
    let mut visitor = Visitor::new(shard, peer.ip(), None, permit);
    visitor.scheme = Scheme::HTTP;
    let visitor = Arc::new(visitor);
    if is_h2 { serve_h2(visitor, io).await } else { serve_h1(visitor, io).await }
}

/// Whether the first bytes are HTTP/2's. Cancel safe.
async fn begins_with_preface<IO: AsyncRead + Unpin>(io: &mut Rewind<IO>) -> io::Result<bool> {
    loop {
        let seen = io.seen().get(..PREFACE.len()).unwrap_or(io.seen());
        if seen == PREFACE {
            return Ok(true);
        }
        if !PREFACE.starts_with(seen) || io.look(PREFACE.len()).await? == 0 {
            return Ok(false);
        }
    }
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
