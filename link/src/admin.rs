//! The admin endpoints' listener of both programs: who may ask, and what a request must be.
//!
//! In:  connections on a loopback or private address, or on a Unix socket (`socket`). One request each, read by the
//!      project's own codec: a prober or a scraper has no use for a second one.
//! Out: what the program answers to the target, or a refusal.
//!
//! Invariant: what a connection may take is bounded: its time by `PATIENCE`, its bytes by the codec, and of more than
//! `MOST` connections the oldest ends.
//! Invariant: a page of the internet that a browser of this machine shows reaches nothing here, whatever its name was
//! made to resolve to: a request by a name other than localhost is refused.

mod ask;
mod socket;

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use log::{error, warn};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::h1::{Framing, RequestReader, write_response};
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

/// A response of text.
pub fn text(status: StatusCode, text: String) -> Response<String> {
    of("text/plain; charset=utf-8", status, text)
}

/// A response of JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<String> {
    of("application/json", status, format!("{value:#}\n"))
}

/// A response of that media type.
pub fn of(kind: &'static str, status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Listener {
    /// Answers each GET by `answer`, which knows the targets, and gets the Accept field. Runs until it is dropped, on the
    /// runtime that it is called on.
    pub async fn serve<F>(
        self,
        answer: impl Fn(Uri, Option<HeaderValue>) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = Option<Response<String>>> + Send + 'static,
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
                        let answered = converse(io, named, answer.clone());
                        handles.push_back(connections.spawn(timeout(PATIENCE, answered)));
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

/// One request and its response. `named`: the Host counts; not of a Unix socket, which no browser reaches.
async fn converse<F>(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    named: bool,
    answer: impl Fn(Uri, Option<HeaderValue>) -> F,
) where
    F: Future<Output = Option<Response<String>>>,
{
    let (mut input, mut reader) = (BytesMut::new(), RequestReader::default());
    let request = loop {
        match reader.read(&mut input) {
            Ok(Some(request)) => break Ok(request),
            Ok(None) => {}
            Err(refusal) => break Err(refusal),
        }
        input.reserve(READ);
        if !matches!(io.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
    };
    let plain = |status, why: &str| text(status, format!("{why}\n"));
    let (mut response, is_head) = match request {
        Err(refusal) => (plain(refusal.status, refusal.reason), false),
        Ok(request) => {
            let (method, uri) = (&request.parts.method, &request.parts.uri);
            let is_head = *method == Method::HEAD;
            let response = if named && !is_own(uri, &request.parts.headers) {
                plain(StatusCode::MISDIRECTED_REQUEST, "ask by the listener's own address")
            } else if !is_head && *method != Method::GET {
                let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                refused
            } else {
                let accept = request.parts.headers.get(ACCEPT).cloned();
                let found = answer(uri.clone(), accept).await;
                found.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "there is no such page"))
            };
            (response, is_head)
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (status, length) = (response.status(), response.body().len() as u64);
    let framing = Framing::Length(length);
    let head = write_response((status, false), response.headers(), framing, Some("close"));
    let body = if is_head { "" } else { response.body() };
    let written = io.write_all(&[&head, body.as_bytes()].concat()).await;
    if written.is_ok() && io.flush().await.is_ok() {
        linger(io).await;
    }
}

/// Whether a request names this machine, an address, or nothing. An address is what it says, also in front of a port that
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
        host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
    })
}

/// For a request and its response, the whole connection.
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
        running.spawn(listener.serve(|_, _| async { Some(text(StatusCode::OK, "ok".into())) }));
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
