//! Connections to the origin: dialled, kept, and reused while they are alive.

mod dial;

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use http::header::HeaderName;
use http::{Method, Response};
use ptth_link::descriptors;
use ptth_link::lock::Mutex;
use tokio::io::ReadBuf;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::serve::Early;

use super::OriginError;
use super::h1::{Connection, Io, Sending};

pub(super) use dial::{CONNECT, MANY, Whereabouts, tcp};

#[derive(Clone, Debug)]
pub(super) struct Legs {
    pub(super) to: Arc<Whereabouts>,
    idle: Arc<Mutex<Idle>>,
}

/// A connection in use. Dropping it makes the connection idle if it is reusable, and else closes it.
#[derive(Debug)]
pub struct Leg {
    /// Boxed, since a leg is moved often.
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

impl Legs {
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
    ) -> Result<(Response<()>, Leg), OriginError> {
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
                    return Ok((response, Leg { connection, idle, keep }));
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

impl Drop for Leg {
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

/// Bytes of one read, divided by the square of the number of connections: the bytes stay in memory while a visitor
/// reads nothing, but reads of 416 KiB cost a third less than reads of 32 KiB.
const READ_AHEAD: usize = 32 * 1024 * 1024;
const MOST_READ: usize = 416 * 1024;
const LEAST_READ: usize = 8 * 1024;
/// Node's servers close a connection after five idle seconds, the shortest of the usual ones.
const KEEP: Duration = Duration::from_secs(4);
/// The limit of idle connections; several origins share the descriptors.
static MOST: LazyLock<usize> = LazyLock::new(|| (descriptors::limit() / 4).max(256));
/// A peek costs a tenth of a request, and under load few connections are idle for longer. Unsolicited bytes that come
/// sooner are seen only if the runtime has heard of them.
const MOMENT: Duration = Duration::from_millis(10);
/// An origin that closed an idle connection waits at most so long for this end to close.
const ROUND: Duration = Duration::from_secs(2);

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{HeaderMap, HeaderValue};
    use ptth_link::body::Body;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use crate::config::{OriginAddress, OriginOptions};

    const CROWD: usize = 17;

    fn legs(port: u16) -> Legs {
        let address = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
        Legs::new(Arc::new(
            Whereabouts::new(address, &OriginOptions::default()).expect("no file is read"),
        ))
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
        let legs = legs(port);
        let mut fastest = Duration::MAX;
        for asked in 0..20 {
            let (fields, begun) = (HeaderMap::new(), Instant::now());
            let host = HeaderValue::from_static("a.test");
            let request = Sending::new(&Method::GET, "/", &host, &fields, Body::empty());
            let (_, mut leg) = legs.ask(request, &Method::GET, None).await.unwrap();
            while poll_fn(|cx| leg.connection.poll_frame(cx)).await.is_some() {}
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
        let legs = Arc::new(legs(port));
        for _ in 0..2 {
            let mut asking = JoinSet::new();
            for _ in 0..busy {
                let legs = legs.clone();
                asking.spawn(async move {
                    let host = HeaderValue::from_static("a.test");
                    let (fields, body) = (HeaderMap::new(), Body::empty());
                    let request = Sending::new(&Method::GET, "/", &host, &fields, body);
                    legs.ask(request, &Method::GET, None).await.unwrap();
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
        let legs = Arc::new(legs(port));
        let mut asking = JoinSet::new();
        let mut sockets = Vec::new();
        for _ in 0..CROWD {
            let legs = legs.clone();
            asking.spawn(async move {
                let host = HeaderValue::from_static("a.test");
                let (fields, body) = (HeaderMap::new(), Body::empty());
                let request = Sending::new(&Method::GET, "/", &host, &fields, body);
                legs.ask(request, &Method::GET, None).await.map(drop)
            });
            sockets.push(origin.accept().await.unwrap());
        }
        assert_eq!(Arc::strong_count(&legs.idle), CROWD + 1);
        asking.shutdown().await;
        assert_eq!(Arc::strong_count(&legs.idle), 1);
    }
}
