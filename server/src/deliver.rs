//! Requests whose sender was answered before their backend saw them (`respond` of a route).
//!
//! In:  a request of such a route, whose body is read whole (`intake`).
//! Out: an empty answer at once; and the request, in its turn, to the route's backends (`courier`).
//!
//! Invariant: what is kept is bounded in number and bytes (`backlog`), from a body's first byte to the
//! end of the last attempt. It is in memory alone: who restarts the gateway for good while a backend is
//! away loses it, and is told how much.
//!
//! A request is delivered at least once, not at most once: an attempt that failed may have been
//! processed. So each attempt carries the same Idempotency-Key.

mod backlog;
mod courier;
mod fate;
mod intake;
mod lane;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use ptth_link::body::Body;
use ptth_link::crypto;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Respond;
use crate::error::{ExchangeError, RequestId};
use crate::exchange::{Informational, Way};

use backlog::{Backlog, Permit};
pub(crate) use courier::Courier;

/// Whether a route's `respond` is for such a request. Safe methods ask for something, and so want the
/// backend's own answer: several senders of webhooks verify an address by a GET first.
pub(crate) fn suits(method: &Method) -> bool {
    !method.is_safe() && *method != Method::CONNECT
}

/// What is to be delivered.
#[derive(Debug)]
pub struct Outbox {
    /// For those whose bodies aren't here yet.
    unread: Arc<Backlog>,
    /// For those that were acknowledged.
    kept: Arc<Backlog>,
    arrivals: Mutex<Arrivals>,
    news: Notify,
    counters: Counters,
}

/// What the courier hasn't taken yet; no more than the room holds.
#[derive(Debug, Default)]
struct Arrivals {
    queue: VecDeque<Delivery>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Counters {
    queued: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
}

/// What became of the requests so far, each counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Answered at once, to be delivered.
    pub queued: u64,
    /// Not taken for want of room.
    pub refused: u64,
    /// Taken by a backend.
    pub delivered: u64,
    /// Attempts after which another one follows.
    pub retried: u64,
    /// Given up, though their senders were told that they were taken.
    pub dropped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, refused, delivered, retried, dropped } = self;
        write!(f, "queued={queued} refused={refused} delivered={delivered} retried={retried} ")?;
        write!(f, "dropped={dropped}")
    }
}

/// One request, kept whole.
#[derive(Debug)]
struct Delivery {
    id: RequestId,
    address: IpAddr,
    /// As it came, but for the hygiene: its host and path say anew at each attempt where it goes.
    head: Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
    attempts: u32,
    expires: Instant,
    #[allow(dead_code, reason = "held for its drop")]
    permit: Permit,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            unread: Backlog::new(UNREAD),
            kept: Backlog::new(backlog::REQUESTS),
            arrivals: Mutex::default(),
            news: Notify::new(),
            counters: Counters::default(),
        }
    }
}

impl Outbox {
    /// Takes a request that came `from` an address: reads its body, keeps it, and answers. Dropping the
    /// future before it is ready gives the request up; nobody was told that it was taken.
    ///
    /// # Errors
    /// [`ExchangeError::Request`] with 413 for a body beyond the limit, [`ExchangeError::Backlog`] where
    /// there is no room, and what any upload may fail of.
    pub async fn take<B>(
        &self,
        way: &Way<'_>,
        respond: Respond,
        (address, id): (IpAddr, RequestId),
        request: Request<B>,
        informational: Informational<'_>,
    ) -> Result<Response<Body>, ExchangeError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let route = way.route.id.clone();
        let limit = respond.limit.min(backlog::LARGEST);
        intake::check_length(&head.headers, limit)?;
        if head.headers.get_all(IDEMPOTENCY_KEY).iter().count() > 1 {
            let why = "There are two Idempotency-Key fields.";
            return Err(ExchangeError::Request(StatusCode::BAD_REQUEST, why));
        }
        let permit = self.unread.take(&route, address, intake::weight(&head));
        let mut permit = permit.ok_or_else(|| self.refuse())?;
        if self.lock().closed {
            return Err(self.refuse());
        }
        // Here the gateway is the server that RFC 9110 §10.1.1 means.
        if head.headers.remove(EXPECT).is_some() {
            informational(StatusCode::CONTINUE, &HeaderMap::new());
        }
        let read = intake::read(body, limit, &mut permit, way.head_timeout).await;
        let (body, trailers) = read.map_err(|err| match err {
            ExchangeError::Backlog => self.refuse(),
            err => err,
        })?;
        let permit = permit.moved(&self.kept).ok_or_else(|| self.refuse())?;
        seal(&mut head, body.len(), trailers.is_some());
        let expires = Instant::now() + KEPT;
        let attempts = 0;
        self.push(Delivery { id, address, head, body, trailers, attempts, expires, permit })?;
        Ok(acknowledgement(respond.status, id))
    }

    fn push(&self, delivery: Delivery) -> Result<(), ExchangeError> {
        let mut arrivals = self.lock();
        if arrivals.closed {
            drop(arrivals);
            return Err(self.refuse());
        }
        arrivals.queue.push_back(delivery);
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
        Ok(())
    }

    fn refuse(&self) -> ExchangeError {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        ExchangeError::Backlog
    }

    /// Takes nothing more: the sender shall try another gateway, or this one when it is back.
    fn close(&self) {
        self.lock().closed = true;
    }

    fn arrivals(&self) -> VecDeque<Delivery> {
        std::mem::take(&mut self.lock().queue)
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the requests so far.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            queued: load(&self.counters.queued),
            refused: load(&self.counters.refused),
            delivered: load(&self.counters.delivered),
            retried: load(&self.counters.retried),
            dropped: load(&self.counters.dropped),
        }
    }

    /// Requests that are kept or read now, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        let [unread, kept] = [&self.unread, &self.kept].map(|backlog| backlog.held());
        (unread[0] + kept[0], unread[1] + kept[1])
    }
}

/// Makes a head stand for a request that is here as a whole, and that may arrive more than once.
fn seal(head: &mut Parts, length: usize, trailers: bool) {
    head.extensions.clear();
    if !trailers && !head.headers.contains_key(CONTENT_LENGTH) {
        // RFC 9110 §8.6: it is known now, and many origins want it.
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    // An empty one tells nothing apart, as a string or as nothing.
    let own = head.headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
    if own.is_none_or(|key| matches!(key, b"" | b"\"\""))
        && let Ok(key) =
            HeaderValue::try_from(format!("\"{:032x}\"", u128::from_ne_bytes(crypto::random())))
    {
        head.headers.insert(IDEMPOTENCY_KEY, key);
    }
}

/// What a request's sender gets: marked as ours, with the id that log and origin know it by.
fn acknowledgement(status: StatusCode, id: RequestId) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert("2ptth-request-id", id);
    }
    response.extensions_mut().insert(Acknowledged);
    response
}

/// Marks a response that is the gateway's own, so that its fields need no hygiene.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged;

/// draft-ietf-httpapi-idempotency-key-header: a structured field, whose value is a string.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Requests whose bodies are under way at a time. An address has a quarter at most.
const UNREAD: usize = 400;
/// A night and a working day: after that somebody has noticed that the backend is away, and the
/// sender's own list of what it sent is the better source.
const KEPT: Duration = Duration::from_secs(24 * 3600);
