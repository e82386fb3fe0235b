//! Socket options that a tunnel's TCP connection needs on both ends.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::{TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT};

/// Heads leave at once, unsent bytes stay few, and a peer that vanished is noticed.
///
/// # Errors
/// Those of `setsockopt`, on a socket that is gone already.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
        socket.set_tcp_notsent_lowat(TCP_NOTSENT_LOWAT)?;
    }
    Ok(())
}

/// An upgraded connection may be silent for days; a middlebox forgets it within minutes.
const KEEPALIVE: Duration = Duration::from_secs(30);
