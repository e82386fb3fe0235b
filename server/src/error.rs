//! Why the gateway answers an exchange by itself, and what the visitor is told.
//!
//! Each variant is a row of [`ptth_link::failure`], which has the party at fault, status and sentence. The page names
//! them and a request id that is in the log too, and not a word about internals.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use ptth_link::crypto;
use ptth_link::failure::{Failure, Row};
use ptth_link::page::page;

use crate::config::NoBackend;
use crate::gate::{self, Refused};

/// Why the gateway answers by itself; with each, what the log says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The request breaks HTTP, or a limit. The connection it came on is not to be trusted further.
    #[error("request refused: {1}")]
    Request(StatusCode, &'static str),
    /// CONNECT, for one.
    #[error("method refused")]
    Method,
    /// The connection was made for a name with another certificate than the request's host.
    #[error("the host isn't the connection's")]
    Misdirected,
    /// A WebSocket over HTTP/2, and a backend that doesn't speak RFC 8441.
    #[error("the backend has no extended CONNECT")]
    NoExtendedConnect,
    #[error("the visitor's body broke off or was malformed")]
    VisitorBody,
    #[error("the visitor's body came too slowly")]
    VisitorSlow,
    #[error("no route")]
    Unrouted,
    #[error("{0}")]
    Register(RegisterError),
    /// No backend is connected; and what its route wants the visitor to get.
    #[error("no backend is connected")]
    Absent(NoBackend),
    /// The visitor's connection has a place that is kept for backends.
    #[error("too many connections")]
    Crowded,
    #[error("the gate: {0}")]
    Gate(#[from] Refused),
    /// The route has the requests that it may have at a time.
    #[error("the route has all its streams (`max_streams`)")]
    Quota,
    #[error("all tunnels are full")]
    Full,
    #[error("no room to keep it for delivery")]
    Backlog,
    #[error("the route changed while it waited")]
    Moved,
    #[error("the backend did not answer within {} s", .0.as_secs())]
    BackendTimeout(Duration),
    /// The tunnel broke before the response's head arrived.
    #[error("the tunnel broke: {0}")]
    Tunnel(#[source] h2::Error),
    #[error("the backend broke the protocol: {0}")]
    Backend(&'static str),
}

impl ExchangeError {
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Request(..) => Failure::Request,
            Self::Method => Failure::Method,
            Self::Misdirected => Failure::Misdirected,
            Self::NoExtendedConnect => Failure::BackendUpgrade,
            Self::VisitorBody => Failure::Body,
            Self::VisitorSlow => Failure::BodySlow,
            Self::Unrouted => Failure::NoRoute,
            Self::Register(err) => err.failure(),
            Self::Absent(_) => Failure::NoBackend,
            Self::Crowded => Failure::Connections,
            Self::Gate(Refused::Address) => Failure::GateAddress,
            Self::Gate(Refused::Rate(..)) => Failure::GateRate,
            Self::Gate(Refused::Body) => Failure::GateBody,
            Self::Gate(Refused::Password(_)) => Failure::GatePassword,
            Self::Gate(Refused::Forward(_)) => Failure::GateForward,
            Self::Quota => Failure::RouteStreams,
            Self::Full => Failure::Streams,
            Self::Backlog => Failure::Backlog,
            Self::Moved => Failure::RouteChanged,
            Self::BackendTimeout(_) => Failure::BackendSilent,
            Self::Tunnel(_) => Failure::TunnelLost,
            Self::Backend(_) => Failure::BackendProtocol,
        }
    }

    /// The status code and the sentence: the table's, unless the request or its route has others.
    fn said(&self) -> (StatusCode, &'static str) {
        let Row { status, sentence, .. } = self.failure().row();
        let status = match self {
            Self::Request(status, reason) => return (*status, reason),
            Self::Register(RegisterError::Malformed(why)) => return (status, why),
            Self::Absent(NoBackend::Status(status)) => *status,
            Self::Absent(NoBackend::Page { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            // For now, and with the same method and body (RFC 9110 §15.4.8).
            Self::Absent(NoBackend::Redirect(_)) => StatusCode::TEMPORARY_REDIRECT,
            _ => status,
        };
        (status, sentence)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.said().0
    }

    /// The response, with what its status wants.
    pub(crate) fn page(&self, accept: Option<&HeaderValue>, id: RequestId) -> Response<String> {
        let said @ (status, sentence) = self.said();
        let mut response = page(self.failure(), said, accept, Some(&id.to_string()));
        let fields = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            fields.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if matches!(self, Self::Request(..) | Self::VisitorBody | Self::VisitorSlow | Self::Crowded)
        {
            // The connection's framing can't be trusted any more, or it holds a permit that is kept for backends. HTTP/1.1
            // only: it is taken off for HTTP/2.
            fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self {
            Self::Register(err) => err.tell(fields, sentence),
            Self::Absent(NoBackend::Page { content, html }) => {
                let kind =
                    if *html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
                fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                fields.insert(CONTENT_LENGTH, content.len().into());
                *response.body_mut() = content.to_string();
            }
            Self::Absent(NoBackend::Redirect(url)) => drop(fields.insert(LOCATION, url.clone())),
            Self::Gate(Refused::Rate(seconds, _)) => {
                fields.insert(RETRY_AFTER, HeaderValue::from(*seconds));
            }
            Self::Gate(Refused::Password(_)) => {
                fields.insert(WWW_AUTHENTICATE, gate::challenge());
            }
            Self::Method => {
                // RFC 9110 §15.5.6 wants the field. What the origin allows only the origin knows.
                let usual = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
                fields.insert(ALLOW, HeaderValue::from_static(usual));
            }
            _ => {}
        }
        response
    }
}

/// Why door B doesn't admit a backend (draft-kazuho-ptth-ptth-01); with each, what the log says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The challenges for WWW-Authenticate, and the reason.
    #[error("not admitted: {1}")]
    Unauthorized(Vec<&'static str>, String),
    #[error("not allowed to serve {0}")]
    Forbidden(String),
    #[error("another backend is there and keeps its place")]
    Taken,
    /// The seconds until the address may try again.
    #[error("too many failures from this address")]
    TooMany(u64),
    /// The credential, or the connection.
    #[error("its credential has all the tunnels that it may have")]
    Full,
    #[error("the authorizer can't be asked")]
    Unavailable,
}

impl RegisterError {
    fn failure(&self) -> Failure {
        match self {
            Self::Malformed(_) => Failure::Registration,
            // One answer for what is unknown and for what is wrong.
            Self::Unauthorized(..) => Failure::Credential,
            Self::Forbidden(_) => Failure::Forbidden,
            Self::Taken => Failure::Taken,
            Self::TooMany(_) => Failure::Attempts,
            Self::Full => Failure::Tunnels,
            Self::Unavailable => Failure::Authorizer,
        }
    }

    /// What the status alone doesn't say.
    fn tell(&self, fields: &mut HeaderMap, sentence: &'static str) {
        fields.insert(REASON, HeaderValue::from_static(sentence));
        match self {
            Self::Unauthorized(challenges, _) => {
                // RFC 9110 §15.5.2 wants one; where keys alone are known, this is the nearest.
                let usual = challenges.is_empty().then_some("Bearer");
                for challenge in challenges.iter().copied().chain(usual) {
                    fields.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
                }
            }
            Self::TooMany(seconds) => {
                fields.insert(RETRY_AFTER, HeaderValue::from(*seconds));
            }
            _ => {}
        }
    }
}

const REASON: HeaderName = HeaderName::from_static("2ptth-reason");

/// Names one exchange in the log, on the error page and at the origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RequestId(u64);

impl RequestId {
    /// A random one: no other one tells anything of it.
    pub(crate) fn random() -> Self {
        thread_local! {
            /// Random bytes that were not used yet. Asking for many at a time costs a request a few instructions.
            static POOL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        POOL.with_borrow_mut(|pool| {
            if pool.is_empty() {
                pool.extend(crypto::random::<POOLED>());
            }
            let rest = pool.len().saturating_sub(size_of::<u64>());
            let id = pool.drain(rest..).fold(0, |id, byte| id << 8 | u64::from(byte));
            Self(id)
        })
    }

    /// As a field. In no HPACK table (RFC 7541 §7.1.3): it is never the same again, and would only push out
    /// what is; and h2 compares each value with all that the table has under its name, which cost more than
    /// the rest of the head.
    pub(crate) fn value(self) -> HeaderValue {
        let text = crypto::hex(&self.0.to_be_bytes());
        let mut value = HeaderValue::try_from(text).expect("digits can stand in a field");
        value.set_sensitive(true);
        value
    }
}

/// A multiple of an id's eight bytes.
const POOLED: usize = 512;

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a refused visitor is told to wait.
const RETRY_AFTER_SECONDS: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither the difference nor the exclusive-or of two ids is ever that of two others, as a counter under
    /// whatever disguise would have it.
    #[test]
    fn ids_tell_nothing_of_each_other() {
        let ids: Vec<u64> = (0..300).map(|_| RequestId::random().0).collect();
        let mut seen = std::collections::HashSet::new();
        for pair in ids.windows(2) {
            let [one, other] = pair else { continue };
            assert!(seen.insert(one ^ other) && seen.insert(one.wrapping_sub(*other)));
        }
        assert!((0..64).all(|bit| ids.iter().any(|id| id >> bit & 1 == 1)));
    }
}
