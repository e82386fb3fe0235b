//! Connects to an origin: by TCP, TLS or a Unix socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{OriginAddress, OriginOptions, Trust};
use crate::tls::{self, TlsError};

use super::super::OriginError;
use super::super::h1::{self, Io};

#[derive(Debug)]
pub(in crate::origin) struct Whereabouts {
    pub(in crate::origin) address: OriginAddress,
    /// For an https:// origin: TLS on loopback, and TLS with other machines.
    tls: Option<[Arc<ClientConfig>; 2]>,
    /// The name for the verification, in place of the address's own.
    name: Option<ServerName<'static>>,
}

impl Whereabouts {
    /// Reads certificates for an `https://` address, so it blocks.
    pub(in crate::origin) fn new(
        address: OriginAddress,
        options: &OriginOptions,
    ) -> Result<Self, TlsError> {
        let secure = matches!(address, OriginAddress::Https { .. });
        let known = || -> Result<_, TlsError> {
            let far = tls::origin(&options.ca.clone().map_or(Trust::System, Trust::Ca))?;
            // Loopback can't be intercepted, and development servers have self-signed certificates.
            let near = match (&options.ca, &options.name) {
                (None, None) => tls::origin(&Trust::Insecure)?,
                _ => far.clone(),
            };
            Ok([near, far])
        };
        let tls = secure.then(known).transpose()?;
        Ok(Self { address, tls, name: options.name.clone() })
    }

    /// Whether an http:// origin speaks TLS.
    pub(in crate::origin) async fn speaks_tls(&self) -> bool {
        let (OriginAddress::Http { host, port }, Ok(tls)) =
            (&self.address, tls::origin(&Trust::Insecure))
        else {
            return false;
        };
        let shaking = async {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let socket = tcp(host, *port, 1).await?;
            TlsConnector::from(tls).connect(name, socket).await
        };
        timeout(CONNECT, shaking).await.is_ok_and(|shaken| shaken.is_ok())
    }

    /// Connects, as one of `crowd`.
    pub(super) async fn connect(&self, crowd: usize) -> Result<Box<dyn Io>, OriginError> {
        let connecting = async {
            Ok::<Box<dyn Io>, io::Error>(match &self.address {
                OriginAddress::Http { host, port } => Box::new(tcp(host, *port, crowd).await?),
                OriginAddress::Https { host, port } => {
                    let [near, far] = self.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                    let socket = tcp(host, *port, crowd).await?;
                    let local = socket.peer_addr()?.ip().to_canonical().is_loopback();
                    let tls = if local { near } else { far };
                    let name = || ServerName::try_from(host.clone()).map_err(io::Error::other);
                    let name = self.name.clone().map_or_else(name, Ok)?;
                    Box::new(TlsConnector::from(tls.clone()).connect(name, socket).await?)
                }
                OriginAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
                OriginAddress::Demo | OriginAddress::Tcp { .. } => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
            })
        };
        let connected = timeout(CONNECT, connecting).await;
        connected.unwrap_or_else(|late| Err(late.into())).map_err(unreachable)
    }
}

fn unreachable(err: io::Error) -> OriginError {
    use rustls::Error;
    match err.get_ref().and_then(|why| why.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => OriginError::Foreign(h1::NO_TLS),
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            OriginError::Foreign(h1::HTTP2)
        }
        Some(why @ Error::InvalidCertificate(_)) => OriginError::Untrusted(why.clone()),
        _ => OriginError::Connect(err),
    }
}

/// Connects as one of `crowd` connections. Many have small kernel buffers at both ends.
pub(in crate::origin) async fn tcp(host: &str, port: u16, crowd: usize) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = if host == "localhost" {
        // RFC 6761 §6.3; an image from scratch has no /etc/hosts to say it.
        [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()]
            .map(|ip| SocketAddr::new(ip, port))
            .into()
    } else {
        lookup_host((host, port)).await?.collect()
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let connecting = async {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            if crowd > FEW {
                // Before the handshake, which fixes the window scale.
                let size = if crowd > MANY { SMALL_BUFFER } else { RECEIVE_BUFFER };
                socket.set_recv_buffer_size(size)?;
                #[cfg(target_os = "linux")]
                socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
            }
            socket.set_nodelay(true)?;
            socket.connect(address).await
        };
        match connecting.await {
            Ok(socket) => return Ok(socket),
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// Up to so many connections, the kernel may grow the receive buffers, which saves a sixth of the CPU time of a single
/// download. Each grows to megabytes: a thousand downloads that stall would use up the machine's memory for TCP.
const FEW: usize = 16;
/// Above it a buffer is as small as possible.
pub(in crate::origin) const MANY: usize = 64;
/// The kernel doubles the value. With 256 KiB a download costs 7 % less.
const RECEIVE_BUFFER: u32 = 128 * 1024;
const SMALL_BUFFER: u32 = 16 * 1024;
/// As on Ethernet. The origin's kernel buffers ten segments or more a connection, of 64 KiB each on loopback: 2,000
/// stalled downloads took 2 GB, all the memory for TCP of a machine with 16 GiB.
#[cfg(target_os = "linux")]
const SEGMENT: u32 = 1460;
pub(in crate::origin) const CONNECT: Duration = Duration::from_secs(10);

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_receives_little_ahead_on_one_of_many_connections() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        let size = |socket| SockRef::from(&socket).recv_buffer_size().unwrap();
        // Linux counts twice what it is told, for what it needs itself.
        for (crowd, buffer) in [(FEW + 1, RECEIVE_BUFFER), (MANY + 1, SMALL_BUFFER)] {
            let bounded = size(tcp("127.0.0.1", port, crowd).await.unwrap());
            assert_eq!(bounded, 2 * buffer as usize);
            assert_ne!(size(tcp("127.0.0.1", port, FEW).await.unwrap()), bounded);
        }
    }

    /// Nor does the origin's send much ahead, which keeps segments by their number (and by what it remembers of an
    /// address: how much it keeps of one connection can't be foretold).
    #[tokio::test]
    async fn one_of_many_connections_has_small_segments() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        for (crowd, small) in [(FEW, false), (FEW + 1, true), (MANY + 1, true)] {
            let _connected = tcp("127.0.0.1", port, crowd).await.unwrap();
            let accepted = origin.accept().await.unwrap().0;
            let segment = SockRef::from(&accepted).tcp_mss().unwrap();
            assert_eq!(segment <= SEGMENT, small, "{crowd}: {segment}");
        }
    }
}
