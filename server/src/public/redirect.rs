//! A port that redirects to `https://` with the same host and path.

use http::header::{CACHE_CONTROL, LOCATION};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Method, Response, StatusCode};
use ptth_link::page;
use ptth_link::tcp::HTTPS;

use crate::error::ExchangeError;

use super::check;

/// The redirect of a request to `port` of https.
pub(super) fn location(head: &mut Parts, port: u16) -> Result<Response<String>, ExchangeError> {
    let bad = |why| ExchangeError::Request(StatusCode::BAD_REQUEST, why);
    if head.method == Method::CONNECT {
        return Err(ExchangeError::Method);
    }
    check::target(head, None, &Scheme::HTTPS)?;
    let authority = head.uri.authority().ok_or(bad("No host was named."))?;
    // `OPTIONS *` is about the server, not about a page of it.
    let path = head.uri.path_and_query().map(|path| path.as_str()).filter(|path| *path != "*");
    let port = if port == HTTPS { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{}", authority.host(), path.unwrap_or("/"));
    let value = HeaderValue::from_str(&location).map_err(|_| bad("The target is malformed."))?;
    // RFC 9110 §15.4.9: the same method again, which 301 doesn't promise.
    let status = StatusCode::PERMANENT_REDIRECT;
    let mut response = page::of(status, page::TEXT, format!("This is at {location}\n"));
    let fields = response.headers_mut();
    fields.insert(LOCATION, value);
    // By default, a cache keeps this status for ever, also when the gateway has moved.
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}
