//! A port that redirects to `https://` with the same host and path.
//!
//! Invariant: nothing here reaches a tunnel.

use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONNECTION, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use log::{debug, trace};
use ptth_link::budget::Budget;
use ptth_link::h1::{Head, Refusal};
use ptth_link::page::page;
use ptth_link::shutdown::Shutdown;
use ptth_link::tcp::HTTPS;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{ExchangeError, RequestId};

use super::h1::{Answer, Asked, run};
use super::{check, stamp};

/// Redirects one visitor.
#[derive(Debug)]
pub struct Redirect {
    /// The visitor's.
    pub address: IpAddr,
    /// Of https.
    pub port: u16,
    /// For its requests.
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
        let (shutdown, budget) = (self.shutdown.clone(), self.budget.clone());
        // An upgrade is declined.
        let answer = |asked: Asked<IO>| ready(Some(Answer::page(self.answer(asked.request), None)));
        if let Err(err) = run(io, budget, shutdown, answer).await {
            trace!("visitor: {} connection ended: {err}", self.address);
        }
    }

    fn answer(&self, request: Result<(Box<Parts>, Head), Refusal>) -> Response<String> {
        let mut response = location(request, self.port).unwrap_or_else(|err| {
            let id = RequestId::random();
            let (visitor, status) = (self.address, err.status().as_u16());
            debug!("exchange: {id} visitor={visitor} status={status} {err}");
            err.page(None, id)
        });
        // The visitor goes on elsewhere, and its body isn't read.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        stamp(response.headers_mut());
        response
    }
}

fn location(
    request: Result<(Box<Parts>, Head), Refusal>,
    port: u16,
) -> Result<Response<String>, ExchangeError> {
    let bad = |why| ExchangeError::Request(StatusCode::BAD_REQUEST, why);
    let refused = |refusal: Refusal| ExchangeError::Request(refusal.status, refusal.reason);
    let (mut head, _) = request.map_err(refused)?;
    if head.method == Method::CONNECT {
        return Err(ExchangeError::Method);
    }
    check::target(&mut head, None, &http::uri::Scheme::HTTPS)?;
    let authority = head.uri.authority().ok_or(bad("No host was named."))?;
    // `OPTIONS *` is about the server, not about a page of it.
    let path = head.uri.path_and_query().map(|path| path.as_str()).filter(|path| *path != "*");
    let port = if port == HTTPS { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{}", authority.host(), path.unwrap_or("/"));
    let value = HeaderValue::from_str(&location).map_err(|_| bad("The target is malformed."))?;
    // RFC 9110 §15.4.9: the same method again, which 301 doesn't promise.
    let status = StatusCode::PERMANENT_REDIRECT;
    let mut response = page(status, &format!("This is at {location}"), None, None);
    let fields = response.headers_mut();
    fields.insert(LOCATION, value);
    // By default, a cache keeps this status for ever, also when the gateway has moved.
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}
