//! The sockets that the gateway listens on: those that a supervisor holds for it (sd_listen_fds(3)), else its own.
//!
//! A supervisor's outlast the process, so that visitors wait while it is restarted. Its own may be shared with the
//! process that it takes over from: both accept until that one is told to stop.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;

use listenfd::ListenFd;
use ptth_link::tcp;
use socket2::Socket;
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
            tcp::is_free(*address).map_err(|err| StartError::Listen(*address, err))?;
        }
        for address in wanted {
            let mut address = *address;
            for shard in &mut sockets {
                let socket = tcp::bind(address).map_err(|err| StartError::Listen(address, err))?;
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

/// For the runtime that this is called on.
pub(super) fn listeners(sockets: Sockets) -> io::Result<Vec<(Entrance, TcpListener)>> {
    let listener = |(entrance, socket): (Entrance, Socket)| {
        Ok((entrance, TcpListener::from_std(socket.into())?))
    };
    sockets.into_iter().map(listener).collect()
}
