//! Visitors: their wire on one side, an exchange on the other.
//!
//! `h1`, `h2` and `embed` translate between a wire and [`Account::answer`], which every request passes: it becomes an
//! exchange, a tunnel (door B), a redirect, or a page of the gateway's own.

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
use std::time::SystemTime;

use ::h2::ext::Protocol;
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, DATE, HOST};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body as HttpBody;
use http_body_util::{Either, Full};
use log::{Level, debug, log_enabled};
use ptth_link::alpn::CONNECT_TCP;
use ptth_link::body::Body;
use ptth_link::budget::{Budget, Held};
use ptth_link::forwarded::Forwarded;
use ptth_link::h1::Refusal;
use ptth_link::headers::{self, Origination, Statement};
use ptth_link::lock::Mutex;
use ptth_link::page;
use ptth_link::upgrade::WEBSOCKET;
use rustls::ProtocolVersion;
use tokio::time::Instant;

use crate::deliver;
use crate::error::{ExchangeError, RegisterError, RequestId};
use crate::exchange::{self, Exchange, Informational, Way};
use crate::gate::limited;
use crate::observe::{End, Record, Request as Asked};
use crate::policy::Lost;
use crate::quota::ConnectionPermit;
use crate::shard::Shard;

use register::Registered;
use upgrade::Wish;

pub(crate) use self::embed::InFront;
pub use self::embed::Source;
pub use self::h1::serve as serve_h1;
pub use self::h2::serve as serve_h2;

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
    /// The port of https to which all its requests are redirected; none reaches a tunnel then.
    pub redirect: Option<u16>,
    /// Of the connection, for the access log.
    pub tls: Option<ProtocolVersion>,
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
            redirect: None,
            tls: None,
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

    /// Makes a checked head fit to cross (target, hygiene, identity) and finds its way.
    fn prepare(&self, head: &mut Parts, id: RequestId) -> Result<Way<'_>, ExchangeError> {
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
        let version = match head.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        let from = Origination { address: self.address, host: &host, scheme, said, version };
        let statement = {
            let mut last = self.stated.lock();
            let same = last.take().filter(|last| last.suits(&from));
            last.insert(same.unwrap_or_else(|| Arc::new(Statement::new(from)))).clone()
        };
        headers::request(&mut head.headers, &statement);
        head.headers.insert(REQUEST_ID, id.value());
        Ok(Way::new(&self.shard, policy, found, self.address))
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("2ptth-request-id");

/// The body of an answer: a tunnel's, or a page of ours.
pub type Answer = Either<Body, Full<Bytes>>;

/// The work beside and after an answer.
enum Then {
    /// None: it is a page of ours.
    Nothing,
    /// The stream or the connection is to end without this page ([`page::is_withheld`]).
    Withhold,
    Exchange(Exchange),
    /// The two bodies are those of another protocol (RFC 9110 §7.8).
    Upgrade(Exchange),
    /// The connection, or its stream, becomes a tunnel.
    Tunnel(Box<Registered>),
}

/// One request, from its head to its answer: its sender, and what the log and the page say of it.
#[derive(Debug)]
struct Account {
    visitor: Arc<Visitor>,
    id: RequestId,
    begun: Instant,
    /// Method, host and path, if they are logged and its result isn't yet; never the query, which may hold secrets.
    subject: Option<String>,
    /// For a page of the gateway's own.
    accept: Option<HeaderValue>,
    /// An EventSource asks, on a connection of its own.
    events: bool,
    record: Record,
}

impl Account {
    fn open(visitor: &Arc<Visitor>, head: &Parts) -> Self {
        let visitor = visitor.seen(&head.headers);
        let subject = log_enabled!(Level::Debug).then(|| {
            let host = named_host(&head.uri, &head.headers).unwrap_or_default();
            let path = head.uri.path();
            format!("{} {host:?} {path:?} {:?}", head.method, head.version)
        });
        // A proxy in front has a connection of its own: it makes a page of ours, or of no response.
        let events = visitor.said.is_none() && page::is_event_source(&head.method, &head.headers);
        let (id, begun) = (RequestId::random(), Instant::now());
        let record = Record::open(&visitor.shard.observe, begun, || {
            let host = named_host(&head.uri, &head.headers);
            Asked::new((id, visitor.address), visitor.tls, host, head)
        });
        Self {
            visitor,
            id,
            begun,
            record,
            subject,
            accept: head.headers.get(ACCEPT).cloned(),
            events,
        }
    }

    /// Answers a request that its protocol's side finds `sound`. `refusal`: what is wrong with a body that failed.
    /// Cancel safe. The head is boxed, since each future on the way to the tunnel would have room for it.
    async fn answer<B>(
        mut self,
        mut head: Box<Parts>,
        body: B,
        wish: Option<Wish>,
        sound: Result<(), ExchangeError>,
        informational: Informational<'_>,
        refusal: impl Fn() -> Option<Refusal> + Send,
    ) -> (Response<Answer>, Then)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
    {
        let (is_head, is_h2) = (head.method == Method::HEAD, head.version == Version::HTTP_2);
        let page =
            |text: String| Either::Right(if is_head { Full::default() } else { text.into() });
        let result = match (sound, self.visitor.redirect) {
            (Err(err), _) => Err(err),
            (Ok(()), _) if self.visitor.shard.is_probe(&head) => {
                Ok((self.visitor.shard.health().map(page), Then::Nothing))
            }
            (Ok(()), Some(port)) => {
                redirect::location(&mut head, port).map(|found| (found.map(page), Then::Nothing))
            }
            (Ok(()), None) => self.ask(head, body, wish, informational).await,
        };
        let (mut response, then) = match result {
            Ok(answered) => {
                self.note(&format_args!("status={}", answered.0.status().as_u16()));
                self.answered(answered)
            }
            Err(err) => {
                // A malformed body shows as a failed upload; its reader has the reason.
                let err = match (err, refusal()) {
                    (ExchangeError::VisitorBody, Some(Refusal { status, reason })) => {
                        ExchangeError::Request(status, reason)
                    }
                    (err, _) => err,
                };
                // The only place where a failure is logged.
                let (status, code) = (err.status(), err.failure().code());
                self.note(&format_args!("status={} code={code} why={err}", status.as_u16()));
                let withheld = self.events && page::is_withheld(status);
                let then = if withheld { Then::Withhold } else { Then::Nothing };
                let text = err.page(self.accept.as_ref(), self.id);
                let told = (!withheld).then(|| (status, text.body().len()));
                self.record.failed(err.failure(), told);
                (text.map(page), then)
            }
        };
        if is_h2 {
            response.headers_mut().remove(CONNECTION);
        }
        // RFC 9110 §6.6.1: a response without a Date is given the time at which it came.
        if !matches!(then, Then::Tunnel(_))
            && !response.headers().contains_key(DATE)
            && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
        {
            response.headers_mut().insert(DATE, now);
        }
        (response, then)
    }

    /// Forwards a request; or answers it, and keeps it for later, where its route says so; or judges a registration.
    async fn ask<B>(
        &mut self,
        mut head: Box<Parts>,
        body: B,
        wish: Option<Wish>,
        informational: Informational<'_>,
    ) -> Result<(Response<Answer>, Then), ExchangeError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
    {
        let visitor = &self.visitor;
        if register::is_registration(&head) {
            let (response, registered) = register::admit(visitor, &head).await?;
            return Ok((response.map(Either::Left), Then::Tunnel(registered)));
        }
        match head.extensions.get::<Protocol>() {
            Some(protocol) if ![WEBSOCKET, CONNECT_TCP].contains(&protocol.as_str()) => {
                return Err(ExchangeError::NoExtendedConnect);
            }
            None if head.method == Method::CONNECT => return Err(ExchangeError::Method),
            _ => {}
        }
        let is_head = head.method == Method::HEAD;
        let way = visitor.prepare(&mut head, self.id)?;
        self.record.route(|observe| way.found.route.counts(observe));
        let mut held = Held::of(visitor.budget.clone());
        held.set(headers::weight(&head.headers)).map_err(|_| ExchangeError::Crowded)?;
        let gate = way.found.route.gate();
        // Boxed: most routes have none, and each exchange's future would have room for it.
        if let Some(gate) = gate
            && let Some(said) = Box::pin(gate.check(&mut head, visitor.address)).await?
        {
            let page = |page| if is_head { Full::default() } else { Full::new(page) };
            return Ok((said.map(|it| Either::Right(page(it))), Then::Nothing));
        }
        let permit = way.found.route.begin().map_err(|()| ExchangeError::Quota)?;
        // The bytes of an upgraded connection are no body.
        let upgrades = wish.is_some() || head.method == Method::CONNECT;
        let most = gate.filter(|_| !upgrades).and_then(|gate| gate.max_body());
        let (body, excess) = limited(body, most);
        let (mut response, mut exchange) = match way.found.route.respond {
            Some(respond) if deliver::suits(&head.method) => {
                let (from, request) =
                    ((visitor.address, self.id), Request::from_parts(*head, body));
                // Boxed: it is rare, and each exchange's future would have room for it.
                let taking = deliver::take(&way, respond, from, request, informational);
                (Box::pin(taking).await.map_err(|err| excess.or(err))?, Exchange::nothing())
            }
            _ => {
                let asking = exchange::ask(&way, head, body, informational, &mut self.record);
                asking.await.map_err(|err| excess.or(err))?
            }
        };
        exchange.permit = permit;
        check::response(&mut response)?;
        gate.iter().for_each(|gate| gate.respond(response.headers_mut()));
        let wish = wish.filter(|_| response.status().is_success() && exchange.extended);
        if let Some(wish) = &wish {
            wish.grant(&mut response, &mut exchange);
        }
        let length = declared_length(response.headers()).filter(|_| !is_head);
        let response = response.map(|body| Either::Left(body.with_length(length)));
        Ok((response, if wish.is_some() { Then::Upgrade } else { Then::Exchange }(exchange)))
    }

    /// The record goes on with the bodies, if there are any.
    fn answered(
        &mut self,
        (response, mut then): (Response<Answer>, Then),
    ) -> (Response<Answer>, Then) {
        self.record.responded(response.status(), response.headers());
        match &mut then {
            Then::Exchange(exchange) | Then::Upgrade(exchange) => {
                exchange.record = std::mem::take(&mut self.record);
            }
            Then::Nothing | Then::Withhold | Then::Tunnel(_) => {
                self.record.ended(End::Complete, [0, 0]);
            }
        }
        (response, then)
    }

    /// Logs the result, once.
    fn note(&mut self, how: &dyn fmt::Display) {
        if let Some(subject) = self.subject.take() {
            let (id, visitor) = (self.id, self.visitor.address);
            let millis = self.begun.elapsed().as_millis();
            debug!("exchange: {id} visitor={visitor} {subject} ms={millis} {how}");
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.note(&"taken back by the visitor");
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
