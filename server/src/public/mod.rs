//! Visitors: their wire on one side, an exchange on the other.
//!
//! `h1` and `h2` mirror each other; what they share is here: what a request must look like before it
//! may cross, and what the visitor is told when it can't.

mod check;
mod embed;
mod h1;
mod h2;
mod redirect;
mod register;
mod stall;
mod upgrade;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, DATE, HOST};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use log::{Level, debug, log_enabled};
use ptth_link::body::Body;
use ptth_link::budget::{Budget, Held};
use ptth_link::forwarded::Forwarded;
use ptth_link::headers::{self, Origination, Statement};
use ptth_link::lock::Mutex;
use ptth_link::page;
use tokio::time::Instant;

use crate::deliver::{self, Acknowledged};
use crate::error::{ExchangeError, RegisterError, RequestId};
use crate::exchange::{self, Exchange, Informational, Way};
use crate::policy::Lost;
use crate::quota::ConnectionPermit;
use crate::shard::Shard;

pub(crate) use self::embed::InFront;
pub use self::embed::{Answer, Source};
pub use self::h1::serve as serve_h1;
pub use self::h2::serve as serve_h2;
pub use self::redirect::Redirect;

/// One visitor's connection, as its exchanges need to know it.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub(crate) shard: Arc<Shard>,
    /// The peer's address, or the address that one of its requests comes from.
    pub address: IpAddr,
    /// What a trusted proxy says of the one request.
    pub(crate) said: Option<Forwarded>,
    /// For a request that names no host.
    pub(crate) sni: Option<String>,
    /// What the connection itself is: https over TLS, http without.
    pub scheme: Scheme,
    pub(crate) budget: Arc<Budget>,
    pub(crate) permit: Arc<ConnectionPermit>,
    /// Of its last request: that of the next one is mostly the same.
    stated: Arc<Mutex<Option<Arc<Statement>>>>,
}

impl Visitor {
    /// A visitor that came to `shard` over TLS.
    pub fn new(
        shard: &Arc<Shard>,
        address: IpAddr,
        sni: Option<&str>,
        permit: Arc<ConnectionPermit>,
    ) -> Self {
        Self {
            shard: shard.clone(),
            address,
            said: None,
            sni: sni.map(str::to_owned),
            scheme: Scheme::HTTPS,
            budget: shard.budget.part(),
            permit,
            stated: Arc::default(),
        }
    }

    /// Whether the forwarding fields of this address count on this connection. A proxy that passes bytes through can't
    /// vouch for their content: where it speaks the PROXY protocol, the connection's address is the one of the header.
    fn trusts(&self, address: IpAddr) -> bool {
        self.permit.opaque.get().is_none() && self.shard.trusted.contains(address)
    }

    /// The sender of a request on this connection, by its fields, if those count.
    fn seen(self: &Arc<Self>, fields: &HeaderMap) -> Arc<Self> {
        if !self.trusts(self.address) {
            return self.clone();
        }
        let said = Forwarded::read(fields, self.address, |address| self.trusts(address));
        let address = said.visitor().unwrap_or(self.address);
        Arc::new(Self { address, said: Some(said), ..(**self).clone() })
    }

    /// Makes a checked head fit to cross (target, hygiene, identity) and finds its way. `version` is Via's.
    fn prepare(
        &self,
        head: &mut Parts,
        version: &'static str,
        id: RequestId,
    ) -> Result<Way<'_>, ExchangeError> {
        if self.permit.is_reserved() {
            return Err(ExchangeError::Crowded);
        }
        let said = self.said.as_ref();
        let scheme = said.and_then(|said| said.scheme.as_ref()).unwrap_or(&self.scheme);
        let host = check::target(head, self.sni.as_deref(), scheme)?;
        if !self.shard.tls.certificates.is_same(self.sni.as_deref(), &host) {
            return Err(ExchangeError::Misdirected);
        }
        let policy = self.shard.registry.policy();
        if let Some(why) = register::foreign(&policy, &host, head) {
            return Err(ExchangeError::Register(RegisterError::Malformed(why)));
        }
        let found = policy.find(&host, head.uri.path());
        let found = found.map_err(|lost| match lost {
            Lost::Unrouted => ExchangeError::Unrouted,
            Lost::Nobody(instead) => ExchangeError::Absent(instead),
        })?;
        let from = Origination { address: self.address, host: &host, scheme, said, version };
        headers::request(&mut head.headers, &self.statement(from));
        head.headers.insert(REQUEST_ID, id.value());
        Ok(Way::new(&self.shard, policy, found, self.address))
    }

    fn statement(&self, from: Origination<'_>) -> Arc<Statement> {
        let mut last = self.stated.lock();
        if let Some(statement) = last.as_ref().filter(|last| last.suits(&from)) {
            return statement.clone();
        }
        last.insert(Arc::new(Statement::new(from))).clone()
    }

    /// Forwards a request; or answers it, and keeps it for later, where its route says so. Cancel safe.
    async fn ask<B>(
        &self,
        way: &Way<'_>,
        head: Box<Parts>,
        body: B,
        id: RequestId,
        informational: Informational<'_>,
    ) -> Result<(Response<Body>, Exchange), ExchangeError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
    {
        let mut held = Held::of(self.budget.clone());
        held.set(headers::weight(&head.headers)).map_err(|_| ExchangeError::Crowded)?;
        match way.found.route.respond {
            Some(respond) if deliver::suits(&head.method) => {
                let (from, request) = ((self.address, id), Request::from_parts(*head, body));
                // Boxed: it is rare, and each exchange's future would have room for it.
                let taking = deliver::take(way, respond, from, request, informational);
                Ok((Box::pin(taking).await?, Exchange::nothing()))
            }
            _ => exchange::ask(way, head, body, informational).await,
        }
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("2ptth-request-id");

/// What the log and the error page say of one exchange.
#[derive(Debug)]
struct Account {
    id: RequestId,
    visitor: IpAddr,
    begun: Instant,
    /// Method, host and path, if they are logged; never the query, which may hold secrets.
    subject: Option<String>,
    /// For a page of the gateway's own.
    accept: Option<HeaderValue>,
    /// An EventSource asks, on a connection of its own.
    events: bool,
    /// Its result is logged.
    told: AtomicBool,
}

impl Account {
    fn open(visitor: &Visitor, head: &Parts) -> Self {
        let subject = log_enabled!(Level::Debug).then(|| {
            let host = named_host(&head.uri, &head.headers).unwrap_or_default();
            let path = head.uri.path();
            format!("{} {host:?} {path:?} {:?}", head.method, head.version)
        });
        Self {
            id: RequestId::random(),
            visitor: visitor.address,
            begun: Instant::now(),
            subject,
            accept: head.headers.get(ACCEPT).cloned(),
            // A proxy in front has a connection of its own: it makes a page of ours, or of no response.
            events: visitor.said.is_none() && page::is_event_source(&head.method, &head.headers),
            told: AtomicBool::new(false),
        }
    }

    fn answered(&self, status: StatusCode) {
        self.note(&format_args!("status={}", status.as_u16()));
    }

    /// The page for a failure, which is logged here and nowhere else. `None`: the stream is to end without a
    /// response ([`page::is_withheld`]).
    fn failed(&self, err: &ExchangeError) -> Option<Response<String>> {
        self.note(&format_args!("status={} why={err}", err.status().as_u16()));
        let withheld = self.events && page::is_withheld(err.status());
        (!withheld).then(|| self.page(err))
    }

    fn page(&self, err: &ExchangeError) -> Response<String> {
        let mut page = err.page(self.accept.as_ref(), self.id);
        stamp(page.headers_mut());
        page
    }

    fn note(&self, how: &dyn fmt::Display) {
        self.told.store(true, Ordering::Relaxed);
        if let Some(subject) = &self.subject {
            let (id, visitor, millis) = (self.id, self.visitor, self.begun.elapsed().as_millis());
            debug!("exchange: {id} visitor={visitor} {subject} ms={millis} {how}");
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.told.load(Ordering::Relaxed) {
            self.note(&"taken back by the visitor");
        }
    }
}

/// The host that a request names, unchecked.
fn named_host<'a>(uri: &'a Uri, fields: &'a HeaderMap) -> Option<&'a str> {
    let field = || fields.get(HOST)?.to_str().ok();
    uri.authority().map(Authority::as_str).or_else(field)
}

/// A Content-Length, if it is one.
fn declared_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A final response must be one (RFC 9110 §15); and what it says about hops stays behind.
fn admit<B>(response: &mut Response<B>) -> Result<(), ExchangeError> {
    let status = response.status();
    if !(StatusCode::OK.as_u16()..600).contains(&status.as_u16()) {
        return Err(ExchangeError::Backend("a status that no final response can have"));
    }
    if response.extensions_mut().remove::<Acknowledged>().is_none() {
        headers::response(response.headers_mut());
    }
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6: there is no content, whatever the backend says, and a reader may believe the length.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    stamp(response.headers_mut());
    Ok(())
}

/// RFC 9110 §6.6.1: a response without a Date is given the time at which it came.
fn stamp(fields: &mut HeaderMap) {
    if !fields.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        fields.insert(DATE, now);
    }
}
