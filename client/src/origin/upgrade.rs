//! WebSocket and any other upgrade: extended CONNECT on the tunnel, `Upgrade` at the origin (RFC 8441 §5).

use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode};
use log::trace;
use ptth_link::body::{Body, write_out};
use ptth_link::websocket::{self, WEBSOCKET};

use crate::serve::Onward;

use super::h1::{Sending, cut};
use super::leg::{Leg, Legs};
use super::{OriginBody, OriginError};

/// Asks the origin to upgrade. A refusal comes back with its status, fields and body.
pub(super) async fn ask(
    legs: &Legs,
    head: Parts,
    host: &HeaderValue,
    outgoing: Body,
) -> Result<Response<OriginBody>, OriginError> {
    let protocol = head.extensions.get::<Protocol>().ok_or(OriginError::Request)?.as_str();
    let mut fields = head.headers;
    let token = HeaderValue::from_str(protocol).map_err(|_| OriginError::Request)?;
    fields.insert(UPGRADE, token);
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.remove(CONTENT_LENGTH);
    let key = (protocol == WEBSOCKET).then(websocket::key);
    if let Some(key) = &key {
        let value = HeaderValue::from_str(key).map_err(|_| OriginError::Request)?;
        fields.insert(SEC_WEBSOCKET_KEY, value);
        fields.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    }
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let request = Sending::new(&Method::GET, target, host, &fields, Body::empty());
    let (response, leg) = legs.ask(request, &Method::GET, head.extensions.get()).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return accepted(response, leg, outgoing, key.as_deref());
    }
    let mut response = response.map(|()| OriginBody::Http(Some(leg)));
    if response.status().is_success() {
        // The origin didn't upgrade, but 200 as the answer to CONNECT would say that it did.
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    Ok(response)
}

fn accepted(
    response: Response<()>,
    mut leg: Leg,
    outgoing: Body,
    key: Option<&str>,
) -> Result<Response<OriginBody>, OriginError> {
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if let Some(key) = key
        && accept != Some(websocket::accept(key.as_bytes()).as_bytes())
    {
        return Err(OriginError::Upgrade("Sec-WebSocket-Accept doesn't fit the key"));
    }
    let mut writer = leg.connection.upgraded().ok_or_else(cut)?;
    let (mut head, ()) = response.into_parts();
    head.status = StatusCode::OK;
    for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    // The directions end independently; an error ends both.
    head.extensions.insert(Onward::new(async move {
        if let Err(err) = write_out(outgoing, &mut writer).await {
            trace!("origin: upgraded connection: {err}");
        }
    }));
    Ok(Response::from_parts(head, OriginBody::Http(Some(leg))))
}
