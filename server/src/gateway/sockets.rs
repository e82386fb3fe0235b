//! The sockets that the gateway listens on: those that a supervisor holds for it (sd_listen_fds(3)), else its own.
//!
//! A supervisor's outlast the process, so that visitors wait while it is restarted. Its own may be shared with the
//! process that it takes over from: both accept until that one is told to stop.

use std::env;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::listener::Entrance;

use super::StartError;

/// Those of one shard.
pub(super) type Sockets = Vec<(Entrance, Socket)>;

pub(super) type Addresses = Vec<(Entrance, SocketAddr)>;

/// The sockets of a supervisor, with their names there.
type Held = Vec<(String, Socket)>;

/// Taken once, since the process has them once.
static HELD: LazyLock<Held> = LazyLock::new(|| {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut fds = ListenFd::from_env();
    let sockets = (0..fds.len()).filter_map(|index| {
        let name = names.next().unwrap_or_default();
        let socket = Socket::from(fds.take_tcp_listener(index).ok()??);
        Some((name, socket))
    });
    sockets.collect()
});

pub(super) fn are_held() -> bool {
    !HELD.is_empty()
}

/// Opens all, for so many shards: what they are for, with ports filled in, and those of each shard.
pub(super) fn open(
    config: &Config,
    shards: usize,
) -> Result<(Addresses, Vec<Sockets>), StartError> {
    let mut addresses = Addresses::new();
    let mut sockets: Vec<Sockets> = (0..shards).map(|_| Vec::new()).collect();
    let kinds = [
        (Entrance::Tls, "tls", &config.listen),
        (Entrance::Plain, "plain", &config.plain),
        (Entrance::Redirect, "redirect", &config.redirect),
    ];
    for (entrance, name, wanted) in kinds {
        // A socket without one of these names is for TLS.
        let is_ours = |held: &str| matches!(held, "plain" | "redirect");
        let held: Vec<_> = HELD
            .iter()
            .filter(|(held, _)| held == name || name == "tls" && !is_ours(held))
            .map(|(_, socket)| socket)
            .collect();
        for socket in &held {
            let address = bound(socket).unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
            let failed = |err| StartError::Listen(address, err);
            for shard in &mut sockets {
                let socket = socket.try_clone().map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                shard.push((entrance, socket));
            }
            addresses.push((entrance, address));
        }
        let wanted = if held.is_empty() { wanted.as_slice() } else { &[] };
        for address in wanted.iter().filter(|_| !config.take_over) {
            is_free(*address).map_err(|err| StartError::Listen(*address, err))?;
        }
        for address in wanted {
            let mut address = *address;
            for shard in &mut sockets {
                let socket = bind(address).map_err(|err| StartError::Listen(address, err))?;
                // Port 0 is whatever the first one got.
                address = bound(&socket).unwrap_or(address);
                shard.push((entrance, socket));
            }
            addresses.push((entrance, address));
        }
    }
    Ok((addresses, sockets))
}

fn bound(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Whether the port is free. With SO_REUSEPORT the sockets would share it with those of another gateway, started by
/// mistake, and the kernel would give that one half of the visitors.
fn is_free(address: SocketAddr) -> io::Result<()> {
    match address.port() {
        0 => Ok(()),
        _ => socket(address)?.bind(&address.into()),
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    // Each shard has a socket of its own; the kernel spreads the connections.
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

/// For the runtime that this is called on.
pub(super) fn listeners(sockets: Sockets) -> io::Result<Vec<(Entrance, TcpListener)>> {
    let listener = |(entrance, socket): (Entrance, Socket)| {
        Ok((entrance, TcpListener::from_std(socket.into())?))
    };
    sockets.into_iter().map(listener).collect()
}

/// The kernel refuses no burst of a thousand visitors.
const BACKLOG: i32 = 4096;
