//! Connections to the origin: dialled, kept, and reused while they are surely alive.

mod idle;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::{Method, Response};
use http_body::Frame;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::OriginAddress;
use crate::serve::Early;
use crate::tls;

use super::OriginError;
use super::h1::{Connection, H1Error, Io, Sending};
use idle::Idle;

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

/// A connection in use. Dropped, it is closed; [`Leg::keep`] makes it idle.
pub(super) struct Leg {
    /// Boxed, since a leg is moved from hand to hand.
    connection: Box<Connection>,
    idle: Arc<Idle>,
    keep: Duration,
}

impl fmt::Debug for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leg").finish_non_exhaustive()
    }
}

impl Legs {
    pub(super) fn new(address: OriginAddress) -> Self {
        Self { address, idle: Arc::default() }
    }

    pub(super) fn address(&self) -> &OriginAddress {
        &self.address
    }

    /// Sends a request, on an idle connection if there is one, and takes the head of its response; the body
    /// comes on the connection. If the idle connection turns out to be closed, the request is sent once more,
    /// on a fresh one, where it may be ([`Connection::again`]). Cancel safe: the connection is closed.
    pub(super) async fn ask(
        &self,
        mut request: Sending,
        method: &Method,
        early: Option<&Early>,
    ) -> Result<(Response<()>, Leg), OriginError> {
        let idle = self.idle.clone();
        // Of the exchanges that have a connection or want one each keeps a reference, and so do we.
        let crowd = Arc::strong_count(&idle).saturating_sub(1).max(1);
        let mut resting = idle.take();
        loop {
            let reused = resting.is_some();
            if reused {
                request.remember();
            }
            let mut connection = match resting.take() {
                Some(connection) => connection,
                None => self.connect(crowd).await.map_err(OriginError::Connect)?,
            };
            connection.begin(request, (READ_AHEAD / crowd / crowd).clamp(LEAST_READ, MOST_READ));
            match poll_fn(|cx| connection.poll_head(cx, method, early)).await {
                Ok(response) => {
                    let keep = keep_alive(&response);
                    return Ok((response, Leg { connection, idle, keep }));
                }
                // Closed while it rested, and not the fault of the request.
                Err(err @ (H1Error::Io(_) | H1Error::Cut)) if reused => match connection.again() {
                    Some(again) => request = again,
                    None => return Err(OriginError::Response(err)),
                },
                Err(err) => return Err(OriginError::Response(err)),
            }
        }
    }

    /// Boxed, since few requests need it, and all would carry its state.
    #[cold]
    fn connect(
        &self,
        crowd: usize,
    ) -> Pin<Box<dyn Future<Output = io::Result<Box<Connection>>> + Send + '_>> {
        Box::pin(async move {
            let io = timeout(CONNECT, dial(&self.address, crowd)).await;
            let io = io.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            Ok(Box::new(Connection::new(io)))
        })
    }
}

impl Leg {
    /// The next frame of the response's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, H1Error>>> {
        self.connection.poll_frame(cx)
    }

    /// Whether the response is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.connection.is_whole()
    }

    /// Whether request and response are whole, and the connection as it was before.
    pub(super) fn is_over(&self) -> bool {
        self.connection.is_reusable()
    }

    /// Bytes of the response's body that are to come, where it says.
    pub(super) fn left(&self) -> Option<u64> {
        self.connection.left()
    }

    /// The socket, and what came after the head.
    pub(super) fn upgraded(mut self) -> Option<(Box<dyn Io>, BytesMut)> {
        self.connection.upgraded()
    }

    /// Makes the connection available to the next request.
    pub(super) fn keep(self) {
        if self.is_over() && !self.keep.is_zero() {
            self.idle.put(self.connection, self.keep);
        }
    }
}

/// How long the origin will keep the connection: what its Keep-Alive says, less a second for the way.
fn keep_alive(response: &Response<()>) -> Duration {
    let field = response.headers().get(HeaderName::from_static("keep-alive"));
    let seconds = field
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")))
        .and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.map_or(KEEP, |seconds| Duration::from_secs(seconds.min(60).saturating_sub(1)))
}

async fn dial(address: &OriginAddress, crowd: usize) -> io::Result<Box<dyn Io>> {
    match address {
        OriginAddress::Demo | OriginAddress::Tcp { .. } => Err(io::ErrorKind::Unsupported.into()),
        OriginAddress::Http { host, port } => Ok(Box::new(tcp(host, *port, crowd).await?)),
        OriginAddress::Https { host, port } => {
            let socket = tcp(host, *port, crowd).await?;
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            // Nobody stands between a machine and itself, and a development server signs for itself.
            let local = socket.peer_addr()?.ip().to_canonical().is_loopback();
            let config = tls::origin(local).map_err(io::Error::other)?;
            Ok(Box::new(TlsConnector::from(config).connect(name, socket).await?))
        }
        OriginAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

/// Connects to `host`, as one of `crowd`: of many, both kernels keep little ahead.
pub(super) async fn tcp(host: &str, port: u16, crowd: usize) -> io::Result<TcpStream> {
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
        match connect(address, crowd).await {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr, crowd: usize) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if crowd > FEW {
        // Before the connection is made, which is when the window's scale is agreed on.
        socket.set_recv_buffer_size(if crowd > MANY { SMALL_BUFFER } else { RECEIVE_BUFFER })?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    }
    socket.connect(address).await
}

/// Connections whose receive buffers the kernel may grow as it likes, which saves a sixth of the CPU time of
/// a download that is alone. Each grows to megabytes, and a thousand whose visitors stopped reading would use
/// up the memory that TCP has on the machine.
const FEW: usize = 16;
/// From here on a buffer is as small as can be.
pub(super) const MANY: usize = 64;
/// What the kernel may receive ahead on one of many; it counts twice that. More of it saves little: a download
/// costs 7 % less with 256 KiB.
const RECEIVE_BUFFER: u32 = 128 * 1024;
const SMALL_BUFFER: u32 = 16 * 1024;
/// As on Ethernet. The origin's kernel keeps ten segments and more for each connection, and on loopback one of them
/// has 64 KiB: 2,000 downloads that nobody reads had it keep 2 GB, all that TCP has on a machine of 16 GiB.
#[cfg(target_os = "linux")]
const SEGMENT: u32 = 1460;
/// Read at once on one connection, divided by their number squared: what is read must be held when a visitor
/// stops, and reading 416 KiB costs a third less than 32 KiB, since with each the kernel asks for more.
const READ_AHEAD: usize = 32 * 1024 * 1024;
const MOST_READ: usize = 416 * 1024;
const LEAST_READ: usize = 8 * 1024;
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Node's servers close a connection after five idle seconds, the shortest of the usual ones.
const KEEP: Duration = Duration::from_secs(4);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{HeaderMap, HeaderValue};
    use ptth_link::body::Body;
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    /// B9
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

    /// B9: nor does the origin's send much ahead, which keeps segments by their number (and by what it remembers of an
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

    /// An origin that writes head and body apart, with Nagle's algorithm, on one connection.
    #[tokio::test]
    async fn a_body_apart_from_its_head_comes_at_once() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        let mut answering = JoinSet::new();
        answering.spawn(async move {
            let (mut socket, mut request) = (origin.accept().await.unwrap().0, [0; 1024]);
            while socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await.unwrap();
                for byte in *b"body" {
                    socket.write_all(&[byte]).await.unwrap();
                }
            }
        });
        let legs = Legs::new(OriginAddress::Http { host: "127.0.0.1".to_owned(), port });
        let mut fastest = Duration::MAX;
        for asked in 0..20 {
            let (fields, begun) = (HeaderMap::new(), Instant::now());
            let host = HeaderValue::from_static("a.test");
            let request = Sending::new(&Method::GET, "/", &host, &fields, Body::empty());
            let (_, mut leg) = legs.ask(request, &Method::GET, None).await.unwrap();
            while poll_fn(|cx| leg.poll_frame(cx)).await.is_some() {}
            leg.keep();
            // A new connection is acknowledged at once by itself, for a while.
            if asked >= 10 {
                fastest = fastest.min(begun.elapsed());
            }
        }
        assert!(fastest < Duration::from_millis(30), "{fastest:?}");
    }

    /// As many requests at a time, twice: the second time nobody dials.
    #[tokio::test]
    async fn as_many_connections_rest_as_were_busy() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        let busy = (*idle::MOST).min(400);
        let (dialled, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (count, open, asked) = (dialled.clone(), gate.clone(), waiting.clone());
        let mut answering = JoinSet::new();
        answering.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let mut socket = origin.accept().await.unwrap().0;
                count.fetch_add(1, Ordering::Relaxed);
                let (open, asked) = (open.clone(), asked.clone());
                connections.spawn(async move {
                    while socket.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                        asked.fetch_add(1, Ordering::Relaxed);
                        open.acquire().await.unwrap().forget();
                        let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                    }
                });
            }
        });
        let legs = Arc::new(Legs::new(OriginAddress::Http { host: "127.0.0.1".to_owned(), port }));
        for _ in 0..2 {
            let mut asking = JoinSet::new();
            for _ in 0..busy {
                let legs = legs.clone();
                asking.spawn(async move {
                    let host = HeaderValue::from_static("a.test");
                    let (fields, body) = (HeaderMap::new(), Body::empty());
                    let request = Sending::new(&Method::GET, "/", &host, &fields, body);
                    legs.ask(request, &Method::GET, None).await.unwrap().1.keep();
                });
            }
            // All are under way before the first is answered.
            while waiting.load(Ordering::Relaxed) < busy {
                tokio::task::yield_now().await;
            }
            waiting.store(0, Ordering::Relaxed);
            gate.add_permits(busy);
            while let Some(done) = asking.join_next().await {
                done.unwrap();
            }
        }
        assert_eq!(dialled.load(Ordering::Relaxed), busy);
    }

    #[tokio::test]
    async fn who_waits_for_his_response_counts() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        let legs = Arc::new(Legs::new(OriginAddress::Http { host: "127.0.0.1".to_owned(), port }));
        let mut asking = JoinSet::new();
        let mut sockets = Vec::new();
        for _ in 0..FEW + 1 {
            let legs = legs.clone();
            asking.spawn(async move {
                let host = HeaderValue::from_static("a.test");
                let (fields, body) = (HeaderMap::new(), Body::empty());
                let request = Sending::new(&Method::GET, "/", &host, &fields, body);
                legs.ask(request, &Method::GET, None).await.map(drop)
            });
            sockets.push(origin.accept().await.unwrap());
        }
        assert_eq!(Arc::strong_count(&legs.idle), FEW + 2);
        asking.shutdown().await;
        assert_eq!(Arc::strong_count(&legs.idle), 1);
    }
}
