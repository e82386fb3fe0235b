//! The gateway inside another program's HTTP server: one service, in front of the program's own.
//!
//! In:  requests that a hyper server has read, and that it would let be upgraded.
//! Out: what a tunnel answers where the gateway has a route, and what the program's own service answers
//! everywhere else. Backends come in by door B, over HTTP/1.1.
//!
//! The program keeps the deadlines and limits of its connections itself, and says by a [`Source`] where each request
//! comes from.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::Either;
use http_body_util::channel::Channel;
use hyper_util::rt::TokioIo;
use ptth_link::body::Body;
use tower_service::Service;

use crate::error::ExchangeError;
use crate::shard::Driving;

use super::upgrade::{self, Wish};
use super::{Account, Answer, Then, Visitor, check, named_host, register};

/// Where a request comes from, to be put among its extensions; without it, from nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source(pub IpAddr);

/// A service that asks backends for what they serve, and `S` for everything else.
#[derive(Clone, Debug)]
pub struct InFront<S> {
    pub(crate) visitor: Arc<Visitor>,
    pub(crate) next: S,
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
    let upgraded = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let account = Account::open(&Arc::new(Visitor { address, ..visitor.clone() }), &head);
    // The server that read the head has judged its framing.
    let sound = match check::is_well_formed(&head) {
        true => check::limits(&mut head),
        false => Err(ExchangeError::Request(StatusCode::BAD_REQUEST, "The request is malformed.")),
    };
    let wish = Wish::take(&mut head);
    let (sender, upload) = Channel::<_, io::Error>::new(1);
    let (head, mut inform) = (Box::new(head), |_, _: &HeaderMap| {});
    let (mut response, then) = match wish {
        Some(_) => account.answer(head, upload, wish, sound, &mut inform, || None).await,
        None => account.answer(head, body, wish, sound, &mut inform, || None).await,
    };
    let shard = &visitor.shard;
    let work: Driving = match then {
        // A service can't end the connection of the server that it is in.
        Then::Nothing | Then::Withhold => return response,
        Then::Exchange(mut exchange) => Box::pin(async move {
            (&mut exchange).await;
            exchange.delivered();
        }),
        Then::Upgrade(exchange) => {
            let empty = Either::Left(Body::empty());
            let body = std::mem::replace(response.body_mut(), empty);
            Box::pin(upgrade::carry(exchange, body, upgraded, sender))
        }
        Then::Tunnel(registered) => {
            let shard = shard.clone();
            Box::pin(async move {
                if let Ok(io) = upgraded.await {
                    registered.tunnel(TokioIo::new(io), shard).await;
                }
            })
        }
    };
    // The embedding program drives it ([`crate::embed`]). Fails only when the driver is gone, and then the drop is what
    // is wanted.
    let _ = shard.drive(work);
    response
}
