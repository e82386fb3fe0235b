//! WebSocket and any other upgrade: extended CONNECT on the tunnel, `Upgrade` at the origin (RFC 8441 §5).

use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use log::trace;
use ptth_link::body::{Body, write_out};
use ptth_link::upgrade::{self, WEBSOCKET};

use crate::serve::Onward;

use super::connections::Leased;
use super::h1::cut;
use super::{OriginBody, OriginError};

/// Makes a CONNECT the request for an upgrade. The key of a WebSocket is returned.
pub(super) fn request(head: &mut Parts) -> Result<Option<String>, OriginError> {
    let protocol = head.extensions.get::<Protocol>().ok_or(OriginError::Request)?.as_str();
    let token = HeaderValue::from_str(protocol).map_err(|_| OriginError::Request)?;
    let fields = &mut head.headers;
    fields.insert(UPGRADE, token);
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.remove(CONTENT_LENGTH);
    let key = (protocol == WEBSOCKET).then(upgrade::key);
    if let Some(key) = &key {
        let value = HeaderValue::from_str(key).map_err(|_| OriginError::Request)?;
        fields.insert(SEC_WEBSOCKET_KEY, value);
        fields.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    }
    head.method = Method::GET;
    Ok(key)
}

/// The answer to the CONNECT. A refusal keeps its status, fields and body.
pub(super) fn response(
    response: Response<()>,
    mut leased: Leased,
    outgoing: Body,
    key: Option<&str>,
) -> Result<Response<OriginBody>, OriginError> {
    let (mut head, ()) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let accept = head.headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if key.is_some_and(|key| accept != Some(upgrade::accept(key.as_bytes()).as_bytes())) {
            return Err(OriginError::Upgrade("Sec-WebSocket-Accept doesn't fit the key"));
        }
        let mut writer = leased.connection.upgraded().ok_or_else(cut)?;
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
    } else if head.status.is_success() {
        // The origin didn't upgrade, but 200 as the answer to CONNECT would say that it did.
        head.status = StatusCode::NOT_IMPLEMENTED;
    }
    Ok(Response::from_parts(head, OriginBody::Http(Some(leased))))
}
