//! TCP: listening sockets, the options of connections on both ends of a tunnel, addresses that no stranger has, and the
//! end of a connection whose peer has still to read what was sent last.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::deadline::Deadline;
#[cfg(target_os = "linux")]
use crate::limits::TCP_NOTSENT_LOWAT;

/// The ports of URLs that name none (RFC 9110 §4.2).
pub const HTTP: u16 = 80;
pub const HTTPS: u16 = 443;

/// Heads leave at once, unsent bytes stay few, and a peer that vanished is noticed: bytes that it neither
/// acknowledges nor takes end the connection after `patience` (RFC 5482). That holds for a shut window,
/// too, though the peer's kernel answers the probes. Fails on a socket that is closed already. Systems other than Linux
/// get the probes alone; a tunnel's own PINGs notice the rest.
pub fn tune(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(patience))?;
        socket.set_tcp_notsent_lowat(TCP_NOTSENT_LOWAT)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = patience;
    Ok(())
}

/// Whether an address is this machine's or the private network's, so that no stranger can have it.
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Loopback, and what no router of the internet passes on: RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6.
/// A wildcard is every address of the machine, and so counts as public.
pub fn is_private(address: IpAddr) -> bool {
    is_near(address)
        || match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }
}

/// Whether the port is free. With SO_REUSEPORT two processes would share it, one of them by mistake, and the kernel would
/// give each a half of the connections.
pub fn is_free(address: SocketAddr) -> io::Result<()> {
    match address.port() {
        0 => Ok(()),
        _ => socket(address)?.bind(&address.into()),
    }
}

/// A socket that listens, and may share its port with others of this machine.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // Both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    // A restart needn't wait until the kernel has forgotten the last connections.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// The kernel refuses no burst of a thousand visitors.
const BACKLOG: i32 = 4096;

/// An upgraded connection may be silent for days; a middlebox forgets it within minutes.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Closes our half, then reads and drops what still comes: closing a socket with unread bytes in it sends a
/// reset, which destroys what the peer hasn't received yet (RFC 1122 §4.2.2.13, RFC 9112 §9.6).
///
/// Ends when the peer closes, is silent for [`LINGER`], has sent `most` bytes, or after `longest`.
#[derive(Debug)]
pub struct Linger {
    shut: bool,
    left: usize,
    due: Instant,
    last: Instant,
    deadline: Deadline,
}

impl Linger {
    /// Begins now.
    pub fn new(longest: Duration, most: usize) -> Self {
        let now = Instant::now();
        let due = now + LINGER.min(longest);
        Self { shut: false, left: most, due, last: now + longest, deadline: Deadline::default() }
    }

    /// Ready when the socket may be closed.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<()> {
        if self.poll_rest(cx, io).is_ready() {
            Poll::Ready(())
        } else {
            self.deadline.poll_at(cx, self.due)
        }
    }

    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<()> {
        if !self.shut {
            self.shut = ready!(Pin::new(&mut *io).poll_shutdown(cx)).is_ok();
        }
        let mut room = [0; 4096];
        while self.shut && self.left > 0 {
            let mut read = ReadBuf::new(&mut room);
            let polled = ready!(Pin::new(&mut *io).poll_read(cx, &mut read));
            let count = polled.map_or(0, |()| read.filled().len());
            if count == 0 {
                break;
            }
            self.left = self.left.saturating_sub(count);
            self.due = (Instant::now() + LINGER).min(self.last);
        }
        Poll::Ready(())
    }
}

/// The same for a socket that the caller owns. Cancel safe.
pub async fn linger(io: impl AsyncRead + AsyncWrite + Unpin) {
    linger_within(io, LINGER, UNDER_WAY).await;
}

async fn linger_within(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    longest: Duration,
    most: usize,
) {
    let mut linger = Linger::new(longest, most);
    poll_fn(|cx| linger.poll(cx, &mut io)).await;
}

/// As long as a round trip of the slowest link, and one lost packet.
pub const LINGER: Duration = Duration::from_secs(2);
/// What a peer has under way before it learns that it isn't heard any more: its window, or frames in a loop.
const UNDER_WAY: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

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

    /// The end of our half is seen at once, and what the peer still sends is taken.
    #[tokio::test(start_paused = true)]
    async fn a_peer_reads_the_end_while_it_sends() {
        let (ours, mut peer) = duplex(64);
        let began = Instant::now();
        let talks = async {
            assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
            peer.write_all(&[7; 1000]).await.unwrap();
            drop(peer);
        };
        tokio::join!(linger_within(ours, LINGER * 10, UNDER_WAY), talks);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_left() {
        let (ours, mut peer) = duplex(64);
        let began = Instant::now();
        let floods = async { while peer.write_all(&[7; 64]).await.is_ok() {} };
        tokio::join!(linger_within(ours, LINGER * 10, 1000), floods);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (ours, _silent) = duplex(64);
        linger_within(ours, LINGER * 10, 1000).await;
        assert_eq!(began.elapsed(), LINGER);
        let (ours, mut peer) = duplex(64);
        let trickles = async {
            while peer.write_all(&[7]).await.is_ok() {
                tokio::time::sleep(LINGER / 2).await;
            }
        };
        tokio::join!(linger_within(ours, LINGER * 3, 1000), trickles);
        assert!(began.elapsed() <= LINGER * 5, "{:?}", began.elapsed());
    }
}
