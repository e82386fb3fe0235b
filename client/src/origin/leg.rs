//! Connections to the origin: dialled, kept, and reused while they are surely alive.
//!
//! hyper's side of a connection is polled by the exchange that uses it, not by a task of its own, whose
//! wake-ups would cost each request a fifth of its instructions.

mod idle;
mod upload;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::OriginAddress;
use crate::tls;

use super::OriginError;
use idle::Idle;
pub(super) use upload::Upload;

/// The way to one origin, and the connections that are idle.
pub(super) struct Legs {
    address: OriginAddress,
    idle: Arc<Idle>,
}

impl fmt::Debug for Legs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Legs").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A connection and what moves it. Dropping it closes the socket.
struct Connection {
    sender: SendRequest<Upload>,
    driver: Driver,
}

/// Who moves a connection.
enum Driver {
    /// Who uses it, by [`Connection::poll`].
    User(Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>),
    /// A task, as long as the request goes on beside the response: neither may wait for the other.
    Task(#[allow(dead_code, reason = "held for its drop, which ends the task")] JoinSet<()>),
    /// Nobody: it is closed, or became another protocol's.
    Over,
}

impl Connection {
    /// Moves it, as far as it goes by now.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Driver::User(http) = &mut self.driver
            && http.as_mut().poll(cx).is_ready()
        {
            // What went wrong shows at the request or at the response's body.
            self.driver = Driver::Over;
        }
    }

    /// Whether it is at rest and can take a request, after a look at the socket: an origin that has closed it
    /// is seen to have done so, and not found out by a request that then can't be sent again.
    fn is_idle(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()));
        matches!(self.driver, Driver::User(_)) && self.sender.is_ready()
    }

    /// Moves it by a task from here on.
    fn detach(&mut self) {
        if let Driver::User(http) = std::mem::replace(&mut self.driver, Driver::Over) {
            let mut task = JoinSet::new();
            task.spawn(async move {
                let _ = http.await;
            });
            self.driver = Driver::Task(task);
        }
    }
}

/// A connection in use. Dropped, it is closed; [`Leg::keep`] makes it idle.
pub(super) struct Leg {
    connection: Connection,
    idle: Arc<Idle>,
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
    pub(super) async fn ask(&self, mut request: Request<Upload>) -> Result<Answer, OriginError> {
        let upload = request.body().watch();
        loop {
            let idle = self.idle.take();
            let fresh = idle.is_none();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            // Given by the connection alone, which is polled here: no need to be woken by it, and so not to
            // be put off, either.
            let mut answer = pin!(unconstrained(connection.sender.try_send_request(request)));
            let answer = poll_fn(|cx| {
                connection.poll(cx);
                answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            });
            match answer.await {
                Ok(response) => {
                    if upload.is_open() {
                        connection.detach();
                    }
                    let keep = keep_alive(&response);
                    let leg = Leg { connection, idle: self.idle.clone(), keep };
                    return Ok(Answer { response, leg });
                }
                Err(mut err) => match err.take_message().filter(|_| !fresh) {
                    Some(unsent) => request = unsent,
                    None => return Err(OriginError::Response(err.into_error())),
                },
            }
        }
    }

    /// Boxed, since few requests need it, and all would carry its state.
    #[cold]
    fn connect(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Connection, OriginError>> + Send + '_>> {
        Box::pin(async {
            let io = timeout(CONNECT, dial(&self.address)).await;
            let io = io.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let io = TokioIo::new(io.map_err(OriginError::Connect)?);
            let (sender, connection) = Builder::new()
                .max_headers(MAX_FIELDS)
                .handshake(io)
                .await
                .map_err(OriginError::Response)?;
            Ok(Connection { sender, driver: Driver::User(Box::pin(connection.with_upgrades())) })
        })
    }
}

impl Leg {
    /// Moves the connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.connection.poll(cx);
    }

    /// The next frame of the response's body, which comes on this connection.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut body = Pin::new(body);
        if let Driver::Task(_) = self.connection.driver {
            return body.poll_frame(cx);
        }
        // Filled by the connection alone, which is polled here: no need to be woken by it.
        let quiet = &mut Context::from_waker(Waker::noop());
        let frame = body.as_mut().poll_frame(quiet);
        if frame.is_ready() {
            return frame;
        }
        self.connection.poll(cx);
        body.poll_frame(quiet)
    }

    /// Makes the connection available to the next request.
    pub(super) fn keep(mut self) {
        let idle = self.connection.sender.is_ready() || self.connection.is_idle();
        if idle && !self.keep.is_zero() && matches!(self.connection.driver, Driver::User(_)) {
            self.idle.put(self.connection, self.keep);
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
/// Fields of a response.
const MAX_FIELDS: usize = 200;
