//! Connections to the origin: dialled, kept, and reused while they are alive.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Method, Response, StatusCode};
use ptth_link::limits;
use ptth_link::lock::Mutex;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::ReadBuf;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::complaints::Complaints;
use crate::config::{HostHeader, OriginAddress, OriginOptions, Trust};
use crate::serve::Early;
use crate::tls::{self, TlsError};

use super::OriginError;
use super::h1::{self, Connection, Io, Sending};

#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) to: Arc<Whereabouts>,
    idle: Arc<Mutex<Idle>>,
}

/// A connection in use. Dropping it makes the connection idle if it is reusable, and else closes it.
#[derive(Debug)]
pub struct Leased {
    /// Boxed, since it is moved often.
    pub(super) connection: Box<Connection>,
    idle: Arc<Mutex<Idle>>,
    keep: Duration,
}

/// Idle connections. The last one used is the next one used, so that the others expire.
#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Resting>,
    /// Closes expired connections, while there are idle ones.
    reaper: JoinSet<()>,
    reaping: bool,
}

#[derive(Debug)]
struct Resting {
    io: Box<dyn Io>,
    since: Instant,
    until: Instant,
}

impl Connections {
    pub(super) fn new(to: Arc<Whereabouts>) -> Self {
        Self { to, idle: Arc::default() }
    }

    /// Sends a request, on an idle connection if there is one, and takes the head of its response; the body
    /// comes on the connection. If the idle connection turns out to be closed, the request is sent once more,
    /// on a fresh one, where it may be ([`Connection::again`]). Cancel safe: the connection is closed.
    pub(super) async fn ask(
        &self,
        mut request: Sending,
        method: &Method,
        early: Option<&Early>,
    ) -> Result<(Response<()>, Leased), OriginError> {
        let idle = self.idle.clone();
        // Each exchange that has a connection or waits for one holds a reference, and so does `self`.
        let crowd = Arc::strong_count(&idle).saturating_sub(1).max(1);
        let most = (READ_AHEAD / crowd / crowd).clamp(LEAST_READ, MOST_READ);
        let mut resting = self.rested();
        loop {
            let reused = resting.is_some();
            let io = match resting.take() {
                Some(io) => io,
                // Boxed, since few requests dial, and the future of each would have room for it.
                None => Box::pin(self.to.connect(crowd)).await?,
            };
            let mut connection = Box::new(Connection::new(io, request, most));
            match poll_fn(|cx| connection.poll_head(cx, method, early)).await {
                Ok(response) => {
                    let keep = keep_alive(&response);
                    // An upgraded connection is none of those that ask.
                    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                    let idle = if upgraded { Arc::default() } else { idle };
                    return Ok((response, Leased { connection, idle, keep }));
                }
                // The origin closed the connection while it was idle.
                Err(err @ OriginError::Broken(_)) if reused => {
                    request = connection.again().ok_or(err)?;
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// The newest idle connection that is alive.
    fn rested(&self) -> Option<Box<dyn Io>> {
        loop {
            let Resting { mut io, since, until } = self.idle.lock().connections.pop()?;
            let now = Instant::now();
            // A connection that was busy a moment ago can't have expired at the origin.
            if until > now && is_silent(&mut *io, now.duration_since(since) > MOMENT) {
                return Some(io);
            }
        }
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let Some(io) = self.connection.reusable().filter(|_| !self.keep.is_zero()) else { return };
        let mut idle = self.idle.lock();
        if idle.connections.len() >= *MOST {
            return;
        }
        if !idle.reaping {
            // At the end of the process there is no runtime any more.
            let Ok(runtime) = Handle::try_current() else { return };
            while idle.reaper.try_join_next().is_some() {}
            idle.reaper.spawn_on(reap(Arc::downgrade(&self.idle)), &runtime);
            idle.reaping = true;
        }
        let since = Instant::now();
        idle.connections.push(Resting { io, since, until: since + self.keep });
    }
}

async fn reap(idle: Weak<Mutex<Idle>>) {
    loop {
        sleep(ROUND).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = idle.lock();
        let now = Instant::now();
        idle.connections.retain_mut(|it| it.until > now && is_silent(&mut *it.io, false));
        if idle.connections.is_empty() {
            idle.reaping = false;
            return;
        }
    }
}

/// Whether neither bytes nor the end came on an idle connection. Noticed here, a close costs no request that can't be
/// repeated. `closely`: asks the kernel, since the runtime may not have heard of the close.
fn is_silent(io: &mut dyn Io, closely: bool) -> bool {
    let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
    if Pin::new(&mut *io).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_ready() {
        return false;
    }
    let peek = || io.socket().peek(&mut [MaybeUninit::uninit()]);
    !closely || peek().is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock)
}

/// How long the origin keeps the connection: the timeout of Keep-Alive, less a second of latency.
fn keep_alive(response: &Response<()>) -> Duration {
    let field = response.headers().get(HeaderName::from_static("keep-alive"));
    let seconds = field
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(',').find_map(|part| part.trim().strip_prefix("timeout=")))
        .and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.map_or(KEEP, |seconds| Duration::from_secs(seconds.min(60).saturating_sub(1)))
}

#[derive(Debug)]
pub(super) struct Whereabouts {
    pub(super) address: OriginAddress,
    /// For an https:// origin: TLS on loopback, and TLS with other machines.
    pub(super) tls: Option<[Arc<ClientConfig>; 2]>,
    /// The name for the verification, in place of the address's own.
    name: Option<ServerName<'static>>,
    /// The Host for the origin, if it isn't the visitor's.
    pub(super) host: Option<HeaderValue>,
    pub(super) unforwarded: bool,
    pub(super) complaints: Complaints,
    answered: AtomicBool,
}

impl Whereabouts {
    /// Reads certificates for an `https://` address, so it blocks.
    pub(super) fn new(address: OriginAddress, options: &OriginOptions) -> Result<Self, TlsError> {
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
        let host = match &options.host_header {
            HostHeader::Keep => None,
            HostHeader::Origin => HeaderValue::from_str(&address.authority()).ok(),
            HostHeader::Value(value) => HeaderValue::from_str(value).ok(),
        };
        let (name, unforwarded) = (options.name.clone(), options.unforwarded);
        Ok(Self {
            address,
            tls,
            name,
            host,
            unforwarded,
            complaints: Complaints::default(),
            answered: AtomicBool::new(false),
        })
    }

    /// What the user may try where the first response refuses its request. Development servers (Vite, webpack, Django,
    /// Rails, Jupyter) answer hosts that they don't know with 400 or 403, and Home Assistant a proxy that it doesn't.
    pub(super) fn advice(&self, status: StatusCode) -> Option<&'static str> {
        let first = !self.answered.swap(true, Ordering::Relaxed);
        let refused = [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN].contains(&status);
        match (&self.host, self.unforwarded) {
            _ if !first || !refused => None,
            (None, _) => {
                Some("if it refuses hosts that it doesn't know, --host-header origin helps")
            }
            (Some(_), false) => {
                Some("if it refuses proxies that it doesn't know, --forwarded none helps")
            }
            (Some(_), true) => None,
        }
    }

    /// Whether an http:// origin speaks TLS.
    pub(super) async fn speaks_tls(&self) -> bool {
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

    async fn connect(&self, crowd: usize) -> Result<Box<dyn Io>, OriginError> {
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
                #[cfg(unix)]
                OriginAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
                _ => {
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

/// Bytes of one read, divided by the square of the number of connections: the bytes stay in memory while a visitor
/// reads nothing, but reads of 416 KiB cost a third less than reads of 32 KiB.
const READ_AHEAD: usize = 32 * 1024 * 1024;
const MOST_READ: usize = 416 * 1024;
const LEAST_READ: usize = 8 * 1024;
/// Node's servers close a connection after five idle seconds, the shortest of the usual ones.
const KEEP: Duration = Duration::from_secs(4);
/// The limit of idle connections; several origins share the descriptors.
static MOST: LazyLock<usize> = LazyLock::new(|| (limits::descriptors() / 4).max(256));
/// A peek costs a tenth of a request, and under load few connections are idle for longer. Unsolicited bytes that come
/// sooner are seen only if the runtime has heard of them.
const MOMENT: Duration = Duration::from_millis(10);
/// An origin that closed an idle connection waits at most so long for this end to close.
const ROUND: Duration = Duration::from_secs(2);
/// Up to so many connections, the kernel may grow the receive buffers, which saves a sixth of the CPU time of a single
/// download. Each grows to megabytes: a thousand downloads that stall would use up the machine's memory for TCP.
const FEW: usize = 16;
/// Above it a buffer is as small as possible.
pub(super) const MANY: usize = 64;
/// The kernel doubles the value. With 256 KiB a download costs 7 % less.
const RECEIVE_BUFFER: u32 = 128 * 1024;
const SMALL_BUFFER: u32 = 16 * 1024;
/// As on Ethernet. The origin's kernel buffers ten segments or more a connection, of 64 KiB each on loopback: 2,000
/// stalled downloads took 2 GB, all the memory for TCP of a machine with 16 GiB.
#[cfg(target_os = "linux")]
const SEGMENT: u32 = 1460;
pub(super) const CONNECT: Duration = Duration::from_secs(10);

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use http::HeaderMap;
    use ptth_link::body::Body;
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    const CROWD: usize = 17;

    fn connections(port: u16) -> Connections {
        let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
        Connections::new(Arc::new(
            Whereabouts::new(address, &OriginOptions::default()).expect("no file is read"),
        ))
    }

    #[test]
    fn a_first_response_that_may_be_a_host_check_gets_advice_once() {
        let advice = |host_header, unforwarded, statuses: [u16; 2]| {
            let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port: 1 };
            let options = OriginOptions { host_header, unforwarded, ..OriginOptions::default() };
            let to = Whereabouts::new(address, &options).expect("no file is read");
            statuses.map(|status| to.advice(StatusCode::from_u16(status).unwrap()))
        };
        let [first, second] = advice(HostHeader::Keep, false, [403, 403]);
        assert!(first.is_some_and(|it| it.contains("--host-header origin")) && second.is_none());
        assert_eq!(advice(HostHeader::Keep, false, [200, 403]), [None; 2]);
        let [first, _] = advice(HostHeader::Origin, false, [400, 200]);
        assert!(first.is_some_and(|it| it.contains("--forwarded none")));
        assert_eq!(advice(HostHeader::Origin, true, [400, 400]), [None; 2]);
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
        let connections = connections(port);
        let mut fastest = Duration::MAX;
        for asked in 0..20 {
            let (fields, begun) = (HeaderMap::new(), Instant::now());
            let host = HeaderValue::from_static("a.test");
            let request = Sending::new(&Method::GET, "/", &host, &fields, Body::empty());
            let (_, mut leased) = connections.ask(request, &Method::GET, None).await.unwrap();
            while poll_fn(|cx| leased.connection.poll_frame(cx)).await.is_some() {}
            // A new connection is acknowledged at once by itself, for a while.
            if asked >= 10 {
                fastest = fastest.min(begun.elapsed());
            }
        }
        assert!(fastest < Duration::from_millis(30), "{fastest:?}");
    }

    /// As many requests at a time, twice: no request dials the second time.
    #[tokio::test]
    async fn as_many_connections_rest_as_were_busy() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        let busy = (*MOST).min(400);
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
        let connections = Arc::new(connections(port));
        for _ in 0..2 {
            let mut asking = JoinSet::new();
            for _ in 0..busy {
                let connections = connections.clone();
                asking.spawn(async move {
                    let host = HeaderValue::from_static("a.test");
                    let (fields, body) = (HeaderMap::new(), Body::empty());
                    let request = Sending::new(&Method::GET, "/", &host, &fields, body);
                    connections.ask(request, &Method::GET, None).await.unwrap();
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
    async fn an_exchange_that_waits_for_its_response_counts() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = origin.local_addr().unwrap().port();
        let connections = Arc::new(connections(port));
        let mut asking = JoinSet::new();
        let mut sockets = Vec::new();
        for _ in 0..CROWD {
            let connections = connections.clone();
            asking.spawn(async move {
                let host = HeaderValue::from_static("a.test");
                let (fields, body) = (HeaderMap::new(), Body::empty());
                let request = Sending::new(&Method::GET, "/", &host, &fields, body);
                connections.ask(request, &Method::GET, None).await.map(drop)
            });
            sockets.push(origin.accept().await.unwrap());
        }
        assert_eq!(Arc::strong_count(&connections.idle), CROWD + 1);
        asking.shutdown().await;
        assert_eq!(Arc::strong_count(&connections.idle), 1);
    }

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
