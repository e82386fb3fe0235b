//! Socket options that a tunnel's TCP connection needs on both ends.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::TCP_NOTSENT_LOWAT;

/// Heads leave at once, unsent bytes stay few, and a peer that vanished is noticed: bytes that it neither
/// acknowledges nor takes end the connection after `patience` (RFC 5482). That holds for a shut window,
/// too, though the peer's kernel answers the probes.
///
/// # Errors
/// Those of `setsockopt`, on a socket that is gone already.
pub fn tune(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(patience))?;
        socket.set_tcp_notsent_lowat(TCP_NOTSENT_LOWAT)?;
    }
    Ok(())
}

/// An upgraded connection may be silent for days; a middlebox forgets it within minutes.
const KEEPALIVE: Duration = Duration::from_secs(30);
