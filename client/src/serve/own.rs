//! Responses of the client itself, where the service has none.

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::header::{ACCEPT, ALLOW};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use ptth_link::page;
use ptth_link::page::page;

/// A response of the client itself. A service puts it among the extensions of a response, which it replaces.
#[derive(Clone, Debug)]
pub struct Own {
    pub status: StatusCode,
    /// For visitors: which leg failed, and nothing about addresses.
    pub sentence: &'static str,
    /// For the user's log.
    pub why: String,
}

/// The part of a request's head that such a response depends on.
pub(super) struct Asker {
    accept: Option<HeaderValue>,
    id: Option<HeaderValue>,
    events: bool,
    is_head: bool,
}

impl Own {
    pub(super) fn failed(why: String) -> Self {
        let sentence = "The server behind this gateway failed.";
        Self { status: StatusCode::BAD_GATEWAY, sentence, why }
    }

    /// draft-thomson-ptth-potato: names outside the gateway's certificate are refused.
    pub(super) fn misdirected() -> Self {
        Self {
            status: StatusCode::MISDIRECTED_REQUEST,
            sentence: "The gateway's certificate does not cover this host.",
            why: "the gateway's certificate doesn't cover the host (--any-host)".to_owned(),
        }
    }

    /// Sends it, or resets the stream where a page would end an EventSource for good.
    pub(super) fn tell(&self, mut respond: SendResponse<Bytes>, asked: &Asker) {
        if asked.events && page::is_withheld(self.status) {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let id = asked.id.as_ref().and_then(|id| id.to_str().ok());
        let (mut head, text) =
            page(self.status, self.sentence, asked.accept.as_ref(), id).into_parts();
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 §15.5.6. The service speaks no HTTP.
            head.headers.insert(ALLOW, HeaderValue::from_static("CONNECT"));
        }
        match respond.send_response(Response::from_parts(head, ()), asked.is_head) {
            Ok(mut stream) if !asked.is_head => {
                let _ = stream.send_data(text.into(), true);
            }
            Ok(_) => {}
            Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl Asker {
    pub(super) fn of(head: &Parts) -> Self {
        let field = |name| head.headers.get(name).cloned();
        Self {
            accept: field(ACCEPT),
            // A foreign gateway may pass on a visitor's field.
            id: field(REQUEST_ID).filter(|id| {
                id.len() <= LONGEST_ID && id.as_bytes().iter().all(u8::is_ascii_hexdigit)
            }),
            events: page::is_event_source(&head.method, &head.headers),
            is_head: head.method == Method::HEAD,
        }
    }
}

/// Twice the digits of our gateway's.
const LONGEST_ID: usize = 32;
/// Names the request in the gateway's log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("2ptth-request-id");
