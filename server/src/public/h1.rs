//! A visitor that speaks HTTP/1.1: exchanges on its [`connection`].

mod connection;
mod reply;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body as HttpBody;
use log::trace;
use ptth_link::body::Body;
use ptth_link::h1::Head;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::error::{ExchangeError, RegisterError, RequestId};

use super::register;
use super::upgrade::Wish;
use super::{Account, Visitor, admit, declared_length};

use connection::Then;
pub(super) use connection::{Answer, Asked, run};
use reply::Content;
use wire::{Incoming, Wire};

/// Answers one visitor's HTTP/1.1 connection to its end. Dropping the future cuts it.
pub async fn serve<IO>(visitor: Arc<Visitor>, io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (budget, shutdown) = (visitor.budget.clone(), visitor.shard.shutdown.clone());
    let address = visitor.address;
    // Boxed: the connection would hold its size between requests, too.
    let answer = |asked| Box::pin(answer(visitor.clone(), asked)) as Answering<IO>;
    if let Err(err) = run(io, budget, shutdown, answer).await {
        trace!("visitor: {address} connection ended: {err}");
    }
}

type Answering<IO> = Pin<Box<dyn Future<Output = Option<Answer<IO>>> + Send>>;

/// `None`: the connection is to be cut in place of a response.
async fn answer<IO>(visitor: Arc<Visitor>, asked: Asked<IO>) -> Option<Answer<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let busy = visitor.permit.busy();
    let Asked { request, body, wire } = asked;
    let (request, head) = match request {
        Ok((request, head)) => (request, Ok(head)),
        Err(refusal) => (Box::new(Request::new(()).into_parts().0), Err(refusal)),
    };
    let visitor = &*visitor.seen(&request.headers);
    let account = Account::open(visitor, &request);
    let result = match head {
        Ok(head) => forward((visitor, &wire, account.id), request, body, head).await,
        Err(refusal) => Err(ExchangeError::Request(refusal.status, refusal.reason)),
    };
    match result {
        Ok((response, then)) => {
            account.answered(response.status());
            Some(Answer { response: response.map(Content::Tunnel), then, busy })
        }
        Err(err) => {
            // A malformed body shows as a failed upload; its reader has the reason.
            let err = match (err, wire.refusal()) {
                (ExchangeError::VisitorBody, Some(refusal)) => {
                    ExchangeError::Request(refusal.status, refusal.reason)
                }
                (err, _) => err,
            };
            account.failed(&err).map(|page| Answer::page(page, busy))
        }
    }
}

type Answered<IO> = Result<(Response<Body>, Then<IO>), ExchangeError>;

/// The head is boxed: each future on the way to the tunnel would hold its size.
async fn forward<IO>(
    (visitor, wire, id): (&Visitor, &Wire<IO>, RequestId),
    mut request: Box<Parts>,
    body: Incoming<IO>,
    head: Head,
) -> Answered<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if request.method == Method::CONNECT {
        return Err(ExchangeError::Method);
    }
    if register::is_registration(&request) {
        if head.upgrade {
            return register(visitor, &request).await;
        }
        // With a body, or by HTTP/1.0, it is no upgrade, and it must not cross either.
        let why = RegisterError::Malformed("a registration has no body");
        return Err(ExchangeError::Register(why));
    }
    let wish = if head.upgrade { Wish::take(&mut request) } else { None };
    if wish.is_none() {
        // RFC 9110 §7.8: a wish may be ignored.
        wire.decline();
    }
    let way = visitor.prepare(&mut request, if head.http10 { "1.0" } else { "1.1" }, id)?;
    let is_head = request.method == Method::HEAD;
    let mut inform = |status, fields: &HeaderMap| {
        // RFC 9110 §15.2: HTTP/1.0 has no interim responses.
        if !head.http10 {
            wire.inform(status, fields);
        }
    };
    let (mut response, mut exchange) = visitor.ask(&way, request, body, id, &mut inform).await?;
    admit(&mut response)?;
    if let Some(wish) = wish {
        if !(response.status().is_success() && exchange.extended) {
            return Ok((response, Then::Exchange(exchange)));
        }
        wish.grant(&mut response, &mut exchange);
        return Ok((response, Then::Upgrade(exchange)));
    }
    if exchange.unasked {
        // RFC 9110 §10.1.1: otherwise the visitor couldn't know whether to send the body.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let unframed = || declared_length(response.headers()).is_none() && !is_head;
    if head.http10 && unframed() && !response.body().is_end_stream() {
        let _ = visitor.permit.unframed.set(());
    }
    Ok((response, Then::Exchange(exchange)))
}

async fn register<IO>(visitor: &Visitor, request: &Parts) -> Answered<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let admitted = register::admit(visitor, request).await?;
    let mut response = Response::new(Body::empty());
    admitted.grant(&mut response, true);
    let (give, given) = oneshot::channel();
    let io = async move { given.await.ok() };
    visitor.permit.leave_to_tunnels();
    let tunnel = admitted.tunnel(io, visitor);
    // Fails only at the end of the process.
    let _ = visitor.shard.drive(tunnel);
    Ok((response, Then::Give(give)))
}
