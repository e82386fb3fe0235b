//! Connections to the origin: dialled, kept, and reused while they are surely alive.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::header::HeaderName;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use ptth_link::body::Body;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::config::OriginAddress;
use crate::tls;

use super::OriginError;

/// The way to one origin, and the connections that are idle.
pub(super) struct Legs {
    address: OriginAddress,
    idle: Arc<Mutex<Vec<Idle>>>,
}

impl fmt::Debug for Legs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Legs").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Idle {
    connection: Connection,
    until: Instant,
}

/// A connection and the task that drives it. Dropping it closes the socket.
struct Connection {
    sender: SendRequest<Body>,
    #[allow(dead_code, reason = "held for its drop, which ends the task")]
    driver: JoinSet<()>,
}

/// A connection in use. Dropped, it is closed; [`Leg::keep`] makes it idle.
pub(super) struct Leg {
    connection: Connection,
    idle: Weak<Mutex<Vec<Idle>>>,
    keep: Duration,
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg").finish_non_exhaustive()
    }
}

/// A response's head, and the connection on which its body comes.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) leg: Leg,
}

impl Legs {
    pub(super) fn new(address: OriginAddress) -> Self {
        Self { address, idle: Arc::default() }
    }

    pub(super) fn address(&self) -> &OriginAddress {
        &self.address
    }

    /// Sends a request, on an idle connection if there is one. It is sent again, on a fresh connection,
    /// only if the origin surely saw nothing of it. Cancel safe: the connection is closed.
    pub(super) async fn ask(&self, mut request: Request<Body>) -> Result<Answer, OriginError> {
        // Lets the runtime look at its sockets first: an origin that has closed an idle connection is seen
        // to have done so, and not found out by a request that then can't be sent again.
        yield_now().await;
        while let Some(mut connection) = self.take() {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answer(response, connection)),
                Err(mut err) => match err.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(OriginError::Response(err.into_error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response =
            connection.sender.send_request(request).await.map_err(OriginError::Response)?;
        Ok(self.answer(response, connection))
    }

    fn answer(&self, response: Response<Incoming>, connection: Connection) -> Answer {
        let keep = keep_alive(&response);
        Answer { response, leg: Leg { connection, idle: Arc::downgrade(&self.idle), keep } }
    }

    /// The connection that was used last: the others may then grow old and go.
    fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.until > now && !idle.connection.sender.is_closed());
        let last = idle.iter().rposition(|idle| idle.connection.sender.is_ready())?;
        Some(idle.remove(last).connection)
    }

    async fn connect(&self) -> Result<Connection, OriginError> {
        let io = timeout(CONNECT, dial(&self.address)).await;
        let io = io.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let io = TokioIo::new(io.map_err(OriginError::Connect)?);
        let (sender, connection) = Builder::new()
            .max_headers(MAX_FIELDS)
            .handshake(io)
            .await
            .map_err(OriginError::Response)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What goes wrong here shows at the request, whose error is told.
            let _ = connection.with_upgrades().await;
        });
        Ok(Connection { sender, driver })
    }
}

impl Leg {
    /// Makes the connection available to the next request.
    pub(super) fn keep(self) {
        let Some(idle) = self.idle.upgrade() else { return };
        if self.keep.is_zero() || self.connection.sender.is_closed() {
            return;
        }
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection: self.connection, until: Instant::now() + self.keep });
        }
    }
}

/// How long the origin will keep the connection: what its Keep-Alive says, less a second for the way.
fn keep_alive(response: &Response<Incoming>) -> Duration {
    let field = response.headers().get(HeaderName::from_static("keep-alive"));
    let seconds = field
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")))
        .and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.map_or(KEEP, |seconds| Duration::from_secs(seconds.min(60).saturating_sub(1)))
}

/// Whatever carries bytes to an origin.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn dial(address: &OriginAddress) -> io::Result<Box<dyn Io>> {
    match address {
        OriginAddress::Demo | OriginAddress::Tcp { .. } => Err(io::ErrorKind::Unsupported.into()),
        OriginAddress::Http { host, port } => Ok(Box::new(tcp(host, *port).await?)),
        OriginAddress::Https { host, port } => {
            let socket = tcp(host, *port).await?;
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            // Nobody stands between a machine and itself, and a development server signs for itself.
            let local = socket.peer_addr()?.ip().to_canonical().is_loopback();
            let config = tls::origin(local).map_err(io::Error::other)?;
            Ok(Box::new(TlsConnector::from(config).connect(name, socket).await?))
        }
        OriginAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

pub(super) async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
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
        match TcpStream::connect(address).await {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Node's servers close a connection after five idle seconds, the shortest of the usual ones.
const KEEP: Duration = Duration::from_secs(4);
/// Idle connections kept: what a page's burst leaves behind.
const MAX_IDLE: usize = 256;
/// Fields of a response.
const MAX_FIELDS: usize = 200;
