//! Where the admin endpoints listen: an address of TCP, or the path of a Unix socket.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::settings::Parser;
use crate::tcp;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Tcp(SocketAddr),
    /// Absolute.
    Unix(PathBuf),
}

impl Address {
    /// `127.0.0.1:9090`, `9090` for the same, or `unix:/path`.
    pub const PARSER: Parser<Self> = Parser(
        "a port, an IP address and a port, or a Unix socket, like `9090`, `127.0.0.1:9090` or `unix:/run/2ptth/admin`",
        |text| {
            if let Some(path) = text.strip_prefix("unix:") {
                let fits = cfg!(unix) && path.starts_with('/');
                return Some(Self::Unix(path.into())).filter(|_| fits).ok_or(None);
            }
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let port = || text.parse().ok().filter(|_| digits);
            let local = || port().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            text.parse().ok().or_else(local).map(Self::Tcp).ok_or(None)
        },
    );
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens and isn't served yet.
#[derive(Debug)]
pub struct Listener {
    /// With the port filled in.
    pub address: Address,
    socket: Socket,
}

impl Listener {
    /// Binds the socket. `shared`: another process may have the address still, and gives it up soon. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`]: another process listens there.
    pub fn open(address: &Address, shared: bool) -> io::Result<Self> {
        let (address, socket) = match address {
            #[cfg(unix)]
            Address::Unix(path) => (address.clone(), unix::open(path, shared)?),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
            Address::Tcp(at) => {
                if !shared {
                    tcp::is_free(*at)?;
                }
                let socket = tcp::bind(*at)?;
                (Address::Tcp(socket.local_addr()?.as_socket().unwrap_or(*at)), socket)
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Self { address, socket })
    }

    /// On the runtime that this is called on.
    pub(super) fn listening(self) -> io::Result<Listening> {
        Ok(match self.address {
            Address::Tcp(_) => Listening::Tcp(TcpListener::from_std(self.socket.into())?),
            #[cfg(unix)]
            Address::Unix(_) => Listening::Unix(UnixListener::from_std(self.socket.into())?),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Permissions};
    use std::io;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::process;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::BACKLOG;

    /// A socket that this user alone may connect to. What a process that is gone left behind is replaced.
    pub(super) fn open(path: &Path, shared: bool) -> io::Result<Socket> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::other("it is there, and it is no socket"));
            }
            Ok(_) if !shared && !is_stale(path)? => return Err(io::ErrorKind::AddrInUse.into()),
            _ => {}
        }
        // Under another name, and it listens only when its mode is set: no other user connects before.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", process::id()));
        let fresh = PathBuf::from(fresh);
        let _ = fs::remove_file(&fresh);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&fresh)?)?;
        let placed = fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| fs::rename(&fresh, path));
        if let Err(err) = placed {
            let _ = fs::remove_file(&fresh);
            return Err(err);
        }
        Ok(socket)
    }

    /// Whether no process listens on it. One with a full queue (EAGAIN) does.
    fn is_stale(path: &Path) -> io::Result<bool> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let connected = socket.connect(&SockAddr::unix(path)?);
        Ok(connected.is_err_and(|err| err.kind() == io::ErrorKind::ConnectionRefused))
    }
}

/// A socket of a runtime.
pub(super) enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Either kind of connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Listening {
    /// The next connection, and whether a browser could have made it. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, bool)> {
        match self {
            Self::Tcp(listener) => Ok((Box::new(listener.accept().await?.0), true)),
            #[cfg(unix)]
            Self::Unix(listener) => Ok((Box::new(listener.accept().await?.0), false)),
        }
    }
}

/// A flood of probes waits, as far as the kernel lets it.
#[cfg(unix)]
const BACKLOG: i32 = 128;
