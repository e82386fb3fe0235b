//! Responses of the client itself, where the service has none.

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::header::ALLOW;
use http::{HeaderValue, Response, StatusCode};
use ptth_link::page::{self, page};

use crate::journal::{Exchange, Journal};

/// A response of the client itself. A service puts it among the extensions of a response, which it replaces.
#[derive(Clone, Debug)]
pub struct Own {
    pub status: StatusCode,
    /// For visitors: which part of the way failed, and nothing about addresses.
    pub sentence: &'static str,
    /// For the user's log.
    pub why: String,
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
    pub(super) fn tell(&self, mut respond: SendResponse<Bytes>, line: &Exchange, to: &Journal) {
        line.unanswered(to, Some((self.status, self.why.as_str())));
        if line.is_event_source && page::is_withheld(self.status) {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let id = line.id.as_ref().and_then(|id| id.to_str().ok());
        let (mut head, text) =
            page(self.status, self.sentence, line.accept.as_ref(), id).into_parts();
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 §15.5.6. The service speaks no HTTP.
            head.headers.insert(ALLOW, HeaderValue::from_static("CONNECT"));
        }
        match respond.send_response(Response::from_parts(head, ()), line.is_head()) {
            Ok(mut stream) if !line.is_head() => {
                let _ = stream.send_data(text.into(), true);
            }
            Ok(_) => {}
            Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
