//! TCP, or the replacement of a simulation.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ptth_link::limits::TUNNEL_USER_TIMEOUT;
use ptth_link::tcp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::config::Gateway;

/// How to reach a gateway, or a proxy to it.
pub trait Network: Clone + Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to `gateway`, whose name is resolved anew each time. Cancel safe.
    fn connect(
        &self,
        gateway: &Gateway,
    ) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;

    /// Looks up all addresses of `gateway`. Cancel safe.
    fn addresses(&self, _: &Gateway) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send {
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    type Io = TcpStream;

    async fn connect(&self, gateway: &Gateway) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, address) = race(self.addresses(gateway).await?).await?;
        tcp::tune(&socket, TUNNEL_USER_TIMEOUT)?;
        Ok((socket, address))
    }

    async fn addresses(&self, gateway: &Gateway) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((gateway.host.as_str(), gateway.port)).await?.collect())
    }
}

/// Tries the addresses one after the other, each after a delay (RFC 8305 §5), and takes the first that answers.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
    let mut attempts = JoinSet::new();
    for (n, address) in addresses.into_iter().enumerate() {
        attempts.spawn(async move {
            sleep(STAGGER * u32::try_from(n).unwrap_or(u32::MAX)).await;
            TcpStream::connect(address).await.map(|socket| (socket, address))
        });
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(err)) => last = err,
            Err(_) => {}
        }
    }
    Err(last)
}

/// RFC 8305 §8: Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);
