//! The gateway inside another program's HTTP server: one service, in front of the program's own.
//!
//! In:  requests that a hyper server has read, and that it would let be upgraded.
//! Out: what a tunnel answers where the gateway has a route, and what the program's own service answers
//! everywhere else. Backends come in by door B, over HTTP/1.1.
//!
//! The program keeps the deadlines and limits of its connections itself, and says by a [`Source`] where each request
//! comes from.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use http_body_util::{Either, Full};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ptth_link::body::Body;
use tower_service::Service;

use crate::error::{ExchangeError, RequestId};
use crate::exchange::ask;
use crate::shard::Driving;

use super::upgrade::{self, Wish};
use super::{Account, Visitor, admit, check, declared_length, named_host, register};

/// Where a request comes from, to be put among its extensions; without it, from nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source(pub IpAddr);

/// A service that asks backends for what they serve, and `S` for everything else.
#[derive(Clone, Debug)]
pub struct InFront<S> {
    visitor: Arc<Visitor>,
    next: S,
}

/// What a request that has a route gets: a tunnel's body, or a page of ours.
pub type Answer = Either<Body, Full<Bytes>>;

impl<S> InFront<S> {
    pub(crate) fn new(visitor: Visitor, next: S) -> Self {
        Self { visitor: Arc::new(visitor), next }
    }
}

impl<S, B, R> Service<Request<B>> for InFront<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    type Response = Response<Either<R, Answer>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.next.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !has_route(&self.visitor, &request) {
            let answer = self.next.call(request);
            return Box::pin(async { Ok(answer.await?.map(Either::Left)) });
        }
        let visitor = self.visitor.clone();
        Box::pin(async move { Ok(answer(&visitor, request).await.map(Either::Right)) })
    }
}

fn has_route<B>(visitor: &Visitor, request: &Request<B>) -> bool {
    let asks_to_register = request.method() == Method::GET
        && register::names_token(request.headers())
        && request.uri().path().starts_with(register::PATH);
    let host = named_host(request.uri(), request.headers());
    let (policy, path) = (visitor.shard.registry.policy(), request.uri().path());
    // By path, a dynamic name has only what a backend serves: every page of the program's might be one.
    let served = |host| policy.find(host, path).is_ok_and(|found| !found.route.pool.is_empty());
    asks_to_register || host.is_some_and(|host| policy.has_place(host, path) || served(host))
}

async fn answer<B>(visitor: &Visitor, mut request: Request<B>) -> Response<Answer>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    // Without a source it comes from nowhere, as the visitor says.
    let address = request.extensions().get().map_or(visitor.address, |Source(address)| *address);
    let own = Arc::new(Visitor { address, ..visitor.clone() });
    let upgraded = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let visitor = &*own.seen(&parts.headers);
    let account = Account::open(visitor, &parts);
    let result = match sound(&mut parts) {
        Ok(()) if register::is_registration(&parts) => enroll(visitor, &parts, upgraded).await,
        Ok(()) => forward(visitor, parts, body, upgraded, account.id).await,
        Err(err) => Err(err),
    };
    match result {
        Ok(mut response) => {
            account.answered(response.status());
            // The tunnel's version says nothing about this connection.
            *response.version_mut() = Version::HTTP_11;
            response.map(Either::Left)
        }
        Err(err) => {
            // A service can't end the connection of the server that it is in.
            let page = account.failed(&err).unwrap_or_else(|| account.page(&err));
            page.map(|page| Either::Right(Full::from(page)))
        }
    }
}

/// What a head must be to cross. The server that read it has judged its framing.
fn sound(head: &mut Parts) -> Result<(), ExchangeError> {
    let malformed = ExchangeError::Request(StatusCode::BAD_REQUEST, "The request is malformed.");
    if head.method == Method::CONNECT {
        return Err(ExchangeError::Method);
    }
    check::h2(head).map_err(|err| err.unwrap_or(malformed))
}

async fn enroll(
    visitor: &Visitor,
    head: &Parts,
    upgraded: OnUpgrade,
) -> Result<Response<Body>, ExchangeError> {
    let admitted = register::admit(visitor, head).await?;
    let mut response = Response::new(Body::empty());
    admitted.grant(&mut response, true);
    let io = async move { upgraded.await.ok().map(TokioIo::new) };
    in_background(visitor, admitted.tunnel(io, visitor));
    Ok(response)
}

async fn forward<B>(
    visitor: &Visitor,
    mut parts: Parts,
    body: B,
    upgraded: OnUpgrade,
    id: RequestId,
) -> Result<Response<Body>, ExchangeError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
{
    let is_head = parts.method == Method::HEAD;
    let version = if parts.version == Version::HTTP_2 { "2" } else { "1.1" };
    let wish = Wish::take(&mut parts);
    let way = visitor.prepare(&mut parts, version, id)?;
    let (upload, writer) = upgrade::streams(upgraded);
    let (mut response, exchange) = match wish {
        Some(_) => ask(&way, Box::new(parts), upload, &mut |_, _| {}).await?,
        None => visitor.ask(&way, Box::new(parts), body, id, &mut |_, _| {}).await?,
    };
    admit(&mut response)?;
    if let Some(wish) = wish
        && response.status().is_success()
        && exchange.extended
    {
        let (response, work) = upgrade::switch(&wish, response, exchange, writer);
        in_background(visitor, Box::pin(work));
        return Ok(response);
    }
    in_background(visitor, Box::pin(exchange));
    let length = declared_length(response.headers()).filter(|_| !is_head);
    Ok(response.map(|body| body.with_length(length)))
}

/// What must move on beside the response. The embedding program drives it ([`crate::embed`]).
fn in_background(visitor: &Visitor, work: Driving) {
    // Fails only when the driver is gone, and then the drop is what is wanted.
    let _ = visitor.shard.drive(work);
}
