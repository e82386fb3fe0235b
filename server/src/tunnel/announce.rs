//! Tells a client of ours its public addresses: a request of the gateway's own on the new tunnel.
//!
//! No visitor can send one like it: fields that begin with `2ptth-` are dropped from a visitor's.

use h2::client::ResponseFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::live::Tunnel;
use crate::policy::Policy;

/// Sends the addresses, if `tunnel` is one of ours and has any; the port is the gateway's public one.
/// What comes back says nothing, and only has to be waited for.
pub(super) fn announce(tunnel: &Tunnel, policy: &Policy, port: u16) -> Option<ResponseFuture> {
    if !tunnel.identity.ours {
        return None;
    }
    let host = tunnel.identity.sni.as_deref().unwrap_or("localhost");
    let called = Authority::try_from(format!("{host}:{port}")).ok()?;
    // Without SNI the gateway's name isn't known.
    let known = tunnel.identity.sni.as_ref().map(|_| &called);
    let (urls, more) = policy.urls(&tunnel.grants, known, (&Scheme::HTTPS, port));
    let mut target = Uri::default().into_parts();
    target.scheme = Some(Scheme::HTTPS);
    target.authority = Some(called);
    target.path_and_query = Some(PathAndQuery::from_static("*"));
    let mut request = Request::new(());
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    for url in &urls {
        request.headers_mut().append(URL, HeaderValue::from_str(url).ok()?);
    }
    if urls.is_empty() {
        return None;
    }
    if more > 0 {
        request.headers_mut().insert(MORE, more.into());
    }
    let (response, _) = tunnel.sender.clone().send_request(request, true).ok()?;
    Some(response)
}

const MORE: HeaderName = HeaderName::from_static("2ptth-more-urls");
const URL: HeaderName = HeaderName::from_static("2ptth-url");
