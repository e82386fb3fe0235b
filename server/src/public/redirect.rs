//! A port that only says where to go: `https://`, the same host and path.
//!
//! Invariant: nothing here knows a way to a tunnel.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use log::debug;
use ptth_link::shutdown::Shutdown;
use ptth_link::window::Budget;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{ExchangeError, RequestId};

use super::guard::Verdict;
use super::h1::{Reply, Wire, drive};
use super::{check, stamp};

/// Sends one visitor elsewhere.
#[derive(Debug)]
pub struct Redirect {
    /// Where he comes from.
    pub address: IpAddr,
    /// The port of https.
    pub port: u16,
    /// What the process may hold.
    pub budget: Arc<Budget>,
    /// The end of the process.
    pub shutdown: Shutdown,
}

impl Redirect {
    /// Answers one connection, in HTTP/1.1. Dropping the future cuts it.
    pub async fn serve<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (address, shutdown, budget) =
            (self.address, self.shutdown.clone(), self.budget.clone());
        let answer = |wire: Wire| move |request| ready(Ok(self.answer(&wire, request)));
        drive(io, address, shutdown, budget, answer).await;
    }

    fn answer(&self, wire: &Wire, request: Request<Incoming>) -> Response<Reply> {
        let (verdict, exchange) = wire.begin();
        // Whatever he wants to speak next, it isn't spoken here.
        wire.refuse_upgrade();
        let (mut head, _) = request.into_parts();
        let mut response = location(verdict, &mut head, self.port).unwrap_or_else(|err| {
            let id = RequestId::random();
            debug!(
                "exchange: {id} visitor={} status={} {err}",
                self.address,
                err.status().as_u16()
            );
            err.page(None, id)
        });
        // He has no business here any more, and a body isn't waited for.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        stamp(response.headers_mut());
        response.map(|text| Reply::page(text, (exchange, None)))
    }
}

fn location(
    verdict: Option<Verdict>,
    head: &mut Parts,
    port: u16,
) -> Result<Response<String>, ExchangeError> {
    let bad = |why| ExchangeError::Request(StatusCode::BAD_REQUEST, why);
    let verdict = verdict.ok_or(bad("Unexpected request."))?;
    verdict.map_err(|refusal| ExchangeError::Request(refusal.status, refusal.reason))?;
    if head.method == Method::CONNECT {
        return Err(ExchangeError::Method);
    }
    check::target(head, None, &http::uri::Scheme::HTTPS)?;
    let authority = head.uri.authority().ok_or(bad("No host was named."))?;
    // `OPTIONS *` is about the server, not about a page of it.
    let path = head.uri.path_and_query().map(|path| path.as_str()).filter(|path| *path != "*");
    let port = if port == HTTPS { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{}", authority.host(), path.unwrap_or("/"));
    let value = HeaderValue::from_str(&location).map_err(|_| bad("The target is malformed."))?;
    let mut response = Response::new(format!("This is at {location}\n"));
    // RFC 9110 §15.4.9: the same method again, which 301 doesn't promise.
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let fields = response.headers_mut();
    fields.insert(LOCATION, value);
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // Without a word, this one is kept for ever, also when the gateway has moved.
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}

const HTTPS: u16 = 443;
