//! Door B: a backend's registration among visitors' requests (draft-kazuho-ptth-ptth-01).
//!
//! In:  a request that asks for the protocol `ptth` by its token, over either version of HTTP.
//! Out: its identity and what it may serve, or the status that tells it why not.
//!
//! Invariant: a peer becomes a backend only by asking for it by name and being admitted by the policy; the
//! upgraded connection ends in the same `tunnel::attach` as door A.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use h2::ext::Protocol;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version};
use log::{Level, info, log, warn};
use percent_encoding::percent_decode_str;
use ptth_link::alpn;
use ptth_link::body::Body;
use ptth_link::explain::{Opening, What};
use ptth_link::headers::says;
use ptth_link::tcp::{HTTP, HTTPS};
use ptth_link::token;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::auth::Claim;
use crate::error::{ExchangeError, RegisterError};
use crate::identity::{Identity, Key};
use crate::policy::{Lost, Policy, Refused};
use crate::router;
use crate::shard::Shard;
use crate::tunnel::{Admitted, Ended, attach, is_free};

use super::{Visitor, named_host};

/// An admitted backend.
pub(super) struct Registered {
    backend: Admitted,
    from: IpAddr,
}

/// Whether a head asks to become a backend: `GET` with exactly this token (`PTTH/1.0` is something else), or
/// extended CONNECT with it as `:protocol`.
pub(super) fn is_registration(head: &Parts) -> bool {
    match head.extensions.get::<Protocol>() {
        Some(protocol) => protocol.as_str() == TOKEN,
        None => head.method == Method::GET && names_token(&head.headers),
    }
}

/// The refusal of a backend of an earlier program: forwarded as a visitor's request, its credential would reach
/// another backend.
pub(super) fn foreign(policy: &Policy, host: &str, head: &Parts) -> Option<&'static str> {
    if head.headers.contains_key(WEBHOOKTUNNEL) {
        return Some(
            "webhooktunnel's registration isn't spoken here: the README's recipe of that name says what is",
        );
    }
    let code = head.uri.path().strip_prefix("/pull/")?;
    let served = policy.find(host, &format!("/forward/{code}"));
    let named = matches!(served, Ok(_) | Err(Lost::Nobody(_)));
    let own = policy.find(host, head.uri.path()).is_ok();
    (named && !own).then_some(
        "Caronte's /pull isn't spoken here: the README's recipe of that name says what is",
    )
}

pub(super) fn names_token(fields: &HeaderMap) -> bool {
    says(fields, UPGRADE, TOKEN)
}

/// Judges a registration, and makes the response that accepts it. Under the deadlines of the authorizers; cancel safe.
/// The error is logged here, with the reason that the backend isn't told. Boxed: it is rare, and each exchange's task
/// would hold its size.
pub(super) async fn admit(
    visitor: &Visitor,
    head: &Parts,
) -> Result<(Response<Body>, Box<Registered>), ExchangeError> {
    Box::pin(judge(visitor, head)).await.map_err(|err| {
        let from = visitor.address;
        let [asks, name] = [head.uri.path(), field(head, NAME).unwrap_or_default()]
            .map(|text| text.chars().take(SHOWN).collect::<String>());
        // A peer without a credential causes these two at the rate of its requests, so they are no warnings.
        let cheap = matches!(err, RegisterError::Malformed(_) | RegisterError::TooMany(_));
        let level = if cheap { Level::Debug } else { Level::Warn };
        log!(level, "tunnel: refused from={from} door=upgrade asks={asks:?} name={name:?}: {err}");
        ExchangeError::Register(err)
    })
}

async fn judge(
    visitor: &Visitor,
    head: &Parts,
) -> Result<(Response<Body>, Box<Registered>), RegisterError> {
    let (hosts, name, authorization) = read(head).map_err(RegisterError::Malformed)?;
    let targets = visitor.shard.registry.policy().targets(name, &hosts);
    let attempt = visitor.shard.attempts.begin(visitor.address, targets).await;
    let attempt = attempt.map_err(|wait| RegisterError::TooMany(wait.as_secs().max(1)))?;
    let (address, hosts) = (visitor.address, &*hosts);
    let claim = Claim { key: None, chain: &[], authorization, address, hosts, name };
    let policy = visitor.shard.registry.policy();
    let judged = timeout(JUDGED, policy.register(&claim, field(head, SERVED_PATH))).await;
    let judged = judged.unwrap_or(Err(Refused::Unavailable));
    if matches!(judged, Ok(_) | Err(Refused::Unavailable)) {
        attempt.take_back();
    }
    let (principal, grants) = judged.map_err(|refused| match refused {
        Refused::Unknown { challenges, why } => RegisterError::Unauthorized(challenges, why),
        Refused::Forbidden(what) => RegisterError::Forbidden(what),
        Refused::Unavailable => RegisterError::Unavailable,
    })?;
    let name = field(head, INSTANCE).unwrap_or_default();
    let mut identity = Identity::called(name);
    identity.ours = !name.is_empty();
    identity.key = principal.map(Key::Secret);
    if !is_free(&visitor.shard.registry, &identity, &grants).await {
        return Err(RegisterError::Taken);
    }
    if visitor.shard.registry.is_full(&identity, &grants) {
        return Err(RegisterError::Full);
    }
    // The backend's name for the gateway: its port is the public one, with any proxy in between.
    let called = named_host(&head.uri, &head.headers);
    let called = called.and_then(|host| host.parse::<Authority>().ok());
    let said = visitor.said.as_ref().and_then(|said| said.scheme.as_ref());
    let scheme = said.unwrap_or(&visitor.scheme);
    let usual = if *scheme == Scheme::HTTPS { HTTPS } else { HTTP };
    let port = called.as_ref().and_then(Authority::port_u16).unwrap_or(usual);
    let (urls, more) = policy.urls(&grants, called.as_ref(), (scheme, port));
    let mut response = Response::new(Body::empty());
    let fields = response.headers_mut();
    fields.insert(ALPN, HeaderValue::from_static("h2"));
    for url in urls.iter().filter_map(|url| HeaderValue::from_str(url).ok()) {
        fields.append(URL, url);
    }
    if more > 0 {
        fields.insert(MORE, more.into());
    }
    if head.version != Version::HTTP_2 {
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static(TOKEN));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    let (proven, permit) = (identity.key.is_some(), visitor.permit.clone());
    let from = Some(visitor.address);
    let label = if head.version == Version::HTTP_2 { alpn::H2 } else { alpn::HTTP_1_1 };
    let opening = || Opening::new(false, visitor.address, visitor.tls, Some(label));
    let tap = visitor.shard.explain.tap(What::Tunnel, opening);
    let backend = Admitted { identity, grants, proven, permit, announce: false, from, tap };
    Ok((response, Box::new(Registered { backend, from: visitor.address })))
}

/// What a backend asks for: hosts, a name, or neither, which is anything; and its credential.
fn read(head: &Parts) -> Result<Asked<'_>, &'static str> {
    let has_body = head.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body || head.headers.contains_key(TRANSFER_ENCODING) {
        return Err("a registration has no body");
    }
    if !says(&head.headers, ALPN, "h2") {
        return Err("ALPN must list h2");
    }
    let mut authorizations = head.headers.get_all(AUTHORIZATION).iter();
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return Err("there are two Authorization fields");
    }
    let list = head.uri.path().strip_prefix(PATH).ok_or("the path isn't /.well-known/ptth/…/")?;
    let list = list.strip_suffix('/').unwrap_or(list);
    let list = percent_decode_str(list).decode_utf8().map_err(|_| "the origins aren't UTF-8")?;
    let (hosts, name) = match field(head, NAME) {
        // The origin in the path is the gateway's own then, for gateways that don't know the field.
        Some("*") => (Vec::new(), None),
        Some(name) if token::is_name(name) => (Vec::new(), Some(name)),
        _ if head.headers.contains_key(NAME) => return Err("2ptth-name isn't a name"),
        _ if *list == *"*" => (Vec::new(), None),
        _ => (origins(&list)?, None),
    };
    Ok((hosts, name, authorization))
}

type Asked<'a> = (Vec<String>, Option<&'a str>, Option<&'a HeaderValue>);

/// The hosts of a list of serialized origins (RFC 6454 §6.2, §7.1).
fn origins(list: &str) -> Result<Vec<String>, &'static str> {
    let mut hosts = BTreeSet::new();
    for origin in list.split([' ', ',']).filter(|origin| !origin.is_empty()) {
        // Before parsing: a parser of URIs drops a fragment silently.
        let serialized = origin.split_once("://").is_some_and(|(scheme, authority)| {
            matches!(scheme, "https" | "http") && !authority.contains(['/', '?', '#', '@', '\\'])
        });
        let uri = Some(origin).filter(|_| serialized).and_then(|it| it.parse::<Uri>().ok());
        let authority = uri.as_ref().and_then(Uri::authority);
        let authority =
            authority.ok_or("an origin is a scheme and a host, like https://example.com")?;
        // In the one spelling by which requests are routed.
        let host = router::exact(authority.host());
        hosts.insert(host.ok_or("an origin's host is a name or an address")?.to_string());
    }
    match hosts.len() {
        0 => Err("there is no list of origins"),
        1..=MOST_ORIGINS => Ok(hosts.into_iter().collect()),
        _ => Err("there are too many origins"),
    }
}

fn field(head: &Parts, name: HeaderName) -> Option<&str> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next()?.to_str().ok();
    value.filter(|value| values.next().is_none() && !value.is_empty())
}

impl Registered {
    /// Drives the tunnel on the byte stream that the connection, or its stream, has become. It holds the connection's
    /// permit.
    pub(super) async fn tunnel<IO>(self, io: IO, shard: Arc<Shard>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { backend, from } = self;
        info!("tunnel: admitted from={from} door=upgrade");
        let permit = backend.permit.clone();
        let ended = permit.hold(attach(io, backend, shard)).await.unwrap_or(Ended::Silent);
        if matches!(ended, Ended::Silent | Ended::Taken | Ended::Over) {
            warn!("tunnel: refused from={from} door=upgrade: {ended}");
        }
    }
}

/// The credential of webhooktunnel's client.
const WEBHOOKTUNNEL: HeaderName = HeaderName::from_static("x-webhooktunnel-id");
const TOKEN: &str = "ptth";
pub(super) const PATH: &str = "/.well-known/ptth/";
/// RFC 7639.
const ALPN: HeaderName = HeaderName::from_static("alpn");
/// The requested dynamic name; `*`: all that the credential admits.
const NAME: HeaderName = HeaderName::from_static("2ptth-name");
/// The path that the backend wants to serve alone.
const SERVED_PATH: HeaderName = HeaderName::from_static("2ptth-path");
/// The certificate's CN at door A.
const INSTANCE: HeaderName = HeaderName::from_static("2ptth-instance");
/// A public address that the backend serves from now on.
const URL: HeaderName = HeaderName::from_static("2ptth-url");
/// The number of further addresses.
const MORE: HeaderName = HeaderName::from_static("2ptth-more-urls");
/// Origins in one registration; each is looked up.
const MOST_ORIGINS: usize = 100;
/// Characters of a path, or of a name, in the log.
const SHOWN: usize = 200;
/// For all authorizers of a registration: less than the ten seconds after which the client gives up.
const JUDGED: Duration = Duration::from_secs(7);
