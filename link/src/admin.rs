//! The admin endpoints' listener of both programs: who may ask, and what a request must be.
//!
//! In:  connections on a loopback or private address, or on a Unix socket (`socket`). One request each, read by the
//!      project's own codec: a prober or a scraper has no use for a second one.
//! Out: what the program answers to the target, or a refusal.
//!
//! Invariant: what a connection may take is bounded: its request, its response and each event of a stream by `PATIENCE`,
//! its bytes by the codec, and of more than `MOST` connections the oldest ends.
//! Invariant: a page of the internet that a browser of this machine shows reaches nothing here, whatever its name was
//! made to resolve to: a request by a name that the public DNS may have is refused.

mod ask;
mod socket;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use log::{error, warn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::h1::{Framing, Refusal, RequestReader, write_response};
use crate::settings::Sources;
use crate::tcp::{is_private, linger};

pub use ask::command;
pub use socket::{Address, Listener};

/// Reads the settings `admin` and `admin_anywhere`, which the program declares.
pub fn read(sources: &Sources<'_>) -> Option<Address> {
    let anywhere = sources.switch("admin_anywhere");
    let given = sources.get("admin")?;
    let address = given.value(&Address::PARSER)?;
    match address {
        Address::Tcp(tcp) if !anywhere && !is_private(tcp.ip()) => given.refuse(format!(
            "--admin {tcp} would show the state of this program to any peer; give a loopback or private address or `unix:/path`, or --admin-anywhere if a firewall keeps other peers away from it"
        )),
        address => Some(address),
    }
}

/// What a response holds.
#[derive(Debug)]
pub enum Content {
    Whole(Bytes),
    /// What comes, for as long as both sides stay.
    Events(mpsc::Receiver<Bytes>),
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(whole: T) -> Self {
        Self::Whole(whole.into())
    }
}

impl Content {
    fn framing(&self) -> Framing {
        match self {
            Self::Whole(bytes) => Framing::Length(bytes.len() as u64),
            Self::Events(_) => Framing::UntilClose,
        }
    }
}

/// A response of text.
pub fn text<C: From<String>>(status: StatusCode, text: String) -> Response<C> {
    of("text/plain; charset=utf-8", status, text)
}

/// A response of JSON.
pub fn json<C: From<String>>(status: StatusCode, value: &serde_json::Value) -> Response<C> {
    of("application/json", status, format!("{value:#}\n"))
}

/// A response of that media type.
pub fn of<C>(kind: &'static str, status: StatusCode, body: impl Into<C>) -> Response<C> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Listener {
    /// Answers each request, whose body may have `most` bytes, by `answer`. Runs until it is dropped, on the runtime that
    /// it is called on.
    pub async fn serve<F>(
        self,
        most: usize,
        answer: impl Fn(Request<Bytes>) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = Response<Content>> + Send + 'static,
    {
        let socket = match self.listening() {
            Ok(socket) => socket,
            Err(err) => return error!("admin: can't accept: {err}"),
        };
        let (mut connections, mut handles) = (JoinSet::new(), VecDeque::new());
        loop {
            select! {
                accepted = socket.accept() => match accepted {
                    Ok((io, named)) => {
                        // Silent connections keep no prober out.
                        if handles.len() >= MOST && let Some(oldest) = handles.pop_front() {
                            AbortHandle::abort(&oldest);
                        }
                        let answered = converse(io, named, most, answer.clone());
                        handles.push_back(connections.spawn(answered));
                    }
                    Err(err) => {
                        warn!("admin: accept failed: {err}");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                },
                Some(done) = connections.join_next() => {
                    handles.retain(|handle| !handle.is_finished());
                    if done.is_err_and(|err| err.is_panic()) {
                        error!("admin: a request's task panicked");
                    }
                }
            }
        }
    }
}

/// The refusal of a request that is no GET and no HEAD.
pub fn only_get(request: &Request<Bytes>) -> Option<Response<Content>> {
    let fine = [Method::GET, Method::HEAD].contains(request.method());
    (!fine).then(|| {
        let mut refused = refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refused
    })
}

/// A status with a sentence.
pub fn refusal(status: StatusCode, why: &str) -> Response<Content> {
    text(status, format!("{why}\n"))
}

/// One request and its response. `named`: the Host counts; not of a Unix socket, which no browser reaches.
async fn converse<F>(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    named: bool,
    most: usize,
    answer: impl Fn(Request<Bytes>) -> F,
) where
    F: Future<Output = Response<Content>>,
{
    let Ok(Some(request)) = timeout(PATIENCE, receive(&mut io, most)).await else { return };
    let mut is_head = false;
    let mut response = match request {
        Err(refused) => refusal(refused.status, refused.reason),
        Ok(request) if named && !is_own(request.uri(), request.headers()) => {
            refusal(StatusCode::MISDIRECTED_REQUEST, "ask by the listener's own address")
        }
        Ok(request) => {
            is_head = request.method() == Method::HEAD;
            answer(request).await
        }
    };
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let (status, framing) = (response.status(), response.body().framing());
    let head = write_response((status, false), response.headers(), framing, Some("close"));
    let sent = async {
        io.write_all(&head).await?;
        match response.into_body() {
            _ if is_head => {}
            Content::Whole(bytes) => io.write_all(&bytes).await?,
            Content::Events(events) => return Ok(Some(events)),
        }
        io.flush().await?;
        linger(&mut io).await;
        io::Result::Ok(None)
    };
    let Ok(Ok(Some(mut events))) = timeout(PATIENCE, sent).await else { return };
    let mut gone = [0];
    loop {
        let event = select! {
            event = events.recv() => event,
            // It has nothing more to say: it closes.
            _ = io.read(&mut gone) => return,
        };
        let Some(event) = event else { return };
        let sent = async {
            io.write_all(&event).await?;
            io.flush().await
        };
        if !matches!(timeout(PATIENCE, sent).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// A request with its body; or why it is refused; or `None`, if the connection ends before.
async fn receive(
    io: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Option<Result<Request<Bytes>, Refusal>> {
    let (mut input, mut reader) = (BytesMut::new(), RequestReader::default());
    let mut request = loop {
        match reader.read(&mut input) {
            Ok(Some(request)) => break request,
            Ok(None) => {}
            Err(refusal) => return Some(Err(refusal)),
        }
        input.reserve(READ);
        if !matches!(io.read_buf(&mut input).await, Ok(1..)) {
            return None;
        }
    };
    let large = Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "the body is too long" };
    if request.head.length.is_some_and(|length| length > most as u64) {
        return Some(Err(large));
    }
    let body = request.body.whole(io, &mut input, most).await.map(Bytes::from);
    Some(body.map_err(|_| large).map(|body| Request::from_parts(*request.parts, body)))
}

/// Whether a request names an address, a local name, or nothing. An address is what it says, also in front of a port that
/// is mapped to this one: only a name can be made to lead here.
fn is_own(uri: &Uri, fields: &HeaderMap) -> bool {
    let named = match uri.authority() {
        Some(authority) => Some(Ok(authority.clone())),
        // HTTP/1.0 may leave it out; no browser does.
        None => fields.get(HOST).map(|host| Authority::try_from(host.as_bytes())),
    };
    let Some(named) = named else { return true };
    named.is_ok_and(|named| {
        let host = named.host().trim_start_matches('[').trim_end_matches(']');
        host.parse::<IpAddr>().is_ok() || is_local(&host.to_ascii_lowercase())
    })
}

/// Whether a name leads nowhere on the public internet, so that no stranger can have it resolve to this machine: a
/// container's or a host's own, without a dot; one of multicast DNS or of a cluster (RFC 6762 §3); or one below
/// `internal`, which is reserved for private use as RFC 1918's addresses are.
fn is_local(name: &str) -> bool {
    let named = name.starts_with(|first: char| first.is_ascii_lowercase());
    named && !name.contains('.') || name.ends_with(".local") || name.ends_with(".internal")
}

/// For a request, for a response, and for each event of one that goes on.
const PATIENCE: Duration = Duration::from_secs(10);
/// Probers and scrapers are few.
const MOST: usize = 32;
/// Descriptors are back when some connection ends.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Most heads are shorter.
const READ: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    /// A listener that answers each GET by `ok`, and its address.
    fn serving(running: &mut JoinSet<()>) -> SocketAddr {
        let any = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let listener = Listener::open(&any, false).unwrap();
        let Address::Tcp(address) = listener.address else { panic!("TCP was asked for") };
        running.spawn(listener.serve(0, |_| async { text(StatusCode::OK, "ok".into()) }));
        address
    }

    /// All that comes until the listener closes.
    async fn rest(socket: &mut TcpStream) -> String {
        let mut all = Vec::new();
        // A reset ends it, too.
        let _ = socket.read_to_end(&mut all).await;
        String::from_utf8(all).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_of_the_admin_address_has_ten_seconds() {
        let mut running = JoinSet::new();
        let address = serving(&mut running);
        let whole = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut fast = TcpStream::connect(address).await.unwrap();
        fast.write_all(whole).await.unwrap();
        assert!(rest(&mut fast).await.ends_with("\r\n\r\nok"));
        // Not a byte, then a byte a second.
        let (began, mut silent) = (Instant::now(), TcpStream::connect(address).await.unwrap());
        assert_eq!(rest(&mut silent).await, "");
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        let (began, mut slow) = (Instant::now(), TcpStream::connect(address).await.unwrap());
        for byte in whole {
            let more = timeout(Duration::from_secs(1), slow.read_u8()).await;
            if more.is_ok() || slow.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn of_silent_connections_to_the_admin_address_the_oldest_ends() {
        let mut running = JoinSet::new();
        let (address, began) = (serving(&mut running), Instant::now());
        let mut silent = Vec::new();
        for _ in 0..MOST {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut prober = TcpStream::connect(address).await.unwrap();
        assert_eq!(rest(silent.first_mut().unwrap()).await, "");
        prober.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(rest(&mut prober).await.ends_with("\r\n\r\nok"));
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        let last = silent.last_mut().unwrap();
        last.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(rest(last).await.ends_with("\r\n\r\nok"), "only the oldest ended");
    }
}
