//! Responses of the client itself, where the service has none.

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::header::ALLOW;
use http::{HeaderValue, Response, StatusCode};
use ptth_link::failure::{Failure, Row};
use ptth_link::page::{self, page};

use crate::journal::{Exchange, Journal};

/// A response of the client itself. A service puts it among the extensions of a response, which it replaces.
#[derive(Clone, Debug)]
pub struct Own {
    pub failure: Failure,
    /// For the user's log.
    pub why: String,
}

impl Own {
    pub(super) fn failed(why: String) -> Self {
        Self { failure: Failure::BackendService, why }
    }

    /// draft-thomson-ptth-potato: names outside the gateway's certificate are refused.
    pub(super) fn misdirected() -> Self {
        let why = "the gateway's certificate doesn't cover the host (--any-host)".to_owned();
        Self { failure: Failure::BackendHost, why }
    }

    /// Sends it, or resets the stream where a page would end an EventSource for good.
    pub(super) fn tell(&self, mut respond: SendResponse<Bytes>, line: &Exchange, to: &Journal) {
        let Row { status, sentence, .. } = self.failure.row();
        line.unanswered(to, Some((self.failure, self.why.as_str())));
        if line.is_event_source && page::is_withheld(status) {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        let id = line.id.as_ref().and_then(|id| id.to_str().ok());
        let page = page(self.failure, (status, sentence), line.accept.as_ref(), id);
        let (mut head, text) = page.into_parts();
        if status == StatusCode::METHOD_NOT_ALLOWED {
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
