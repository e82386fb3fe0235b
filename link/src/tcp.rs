//! Socket options of a tunnel's TCP connection on both ends, and addresses that no stranger has.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::TCP_NOTSENT_LOWAT;

/// The ports of URLs that name none (RFC 9110 §4.2).
pub const HTTP: u16 = 80;
pub const HTTPS: u16 = 443;

/// Heads leave at once, unsent bytes stay few, and a peer that vanished is noticed: bytes that it neither
/// acknowledges nor takes end the connection after `patience` (RFC 5482). That holds for a shut window,
/// too, though the peer's kernel answers the probes. Fails on a socket that is closed already.
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

/// Whether an address is this machine's or the private network's, so that no stranger can have it.
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// An upgraded connection may be silent for days; a middlebox forgets it within minutes.
const KEEPALIVE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_what_no_stranger_can_own() {
        let near = [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ];
        let far = [
            "8.8.8.8",
            "172.32.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::",
            "2001:db8::1",
            "fe80::1",
            "::ffff:8.8.8.8",
        ];
        for address in near {
            assert!(is_near(address.parse().unwrap()), "{address}");
        }
        for address in far {
            assert!(!is_near(address.parse().unwrap()), "{address}");
        }
    }
}
