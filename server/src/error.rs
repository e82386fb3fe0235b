//! The party at fault when an exchange fails, and what the visitor is told.
//!
//! One variant per party, because the party decides the status code; this is the only place where a
//! failure becomes one. The page names the leg that failed and a request id that is in the log too,
//! and not a word about internals.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use ptth_link::crypto;
use ptth_link::page::page;

use crate::config::NoBackend;

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
    #[error("{}", .0.row().1)]
    Register(RegisterError),
    /// No backend is connected; and what its route wants the visitor to get.
    #[error("no backend is connected")]
    Absent(NoBackend),
    /// The visitor's connection has a place that is kept for backends.
    #[error("too many connections")]
    Crowded,
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
    /// The status code, which names the party at fault, and what the visitor may know.
    fn row(&self) -> (StatusCode, &'static str) {
        const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        match self {
            Self::Request(status, reason) => (*status, reason),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "This method is not available here."),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "This connection is not for that host; make a new one.",
            ),
            Self::NoExtendedConnect => (
                StatusCode::NOT_IMPLEMENTED,
                "The server behind this gateway has no WebSockets over HTTP/2.",
            ),
            Self::VisitorBody => {
                (StatusCode::BAD_REQUEST, "The request's body was malformed or broke off.")
            }
            Self::VisitorSlow => {
                (StatusCode::REQUEST_TIMEOUT, "The request's body came too slowly.")
            }
            Self::Unrouted => (StatusCode::NOT_FOUND, "There is no such site here."),
            Self::Register(err) => err.row(),
            Self::Absent(instead) => {
                let status = match instead {
                    NoBackend::Status(status) => *status,
                    NoBackend::Page { .. } => UNAVAILABLE,
                    // It was tried, and isn't to be had.
                    NoBackend::Origin(_) => StatusCode::BAD_GATEWAY,
                    // For now, and with the same method and body (RFC 9110 §15.4.8).
                    NoBackend::Redirect(_) => StatusCode::TEMPORARY_REDIRECT,
                };
                (status, "There is no upstream available")
            }
            Self::Crowded => (UNAVAILABLE, "This gateway has too many connections."),
            Self::Full => (UNAVAILABLE, "Every way to the server behind this gateway is busy."),
            Self::Backlog => {
                (UNAVAILABLE, "Too many requests wait for the server behind this gateway.")
            }
            Self::Moved => (UNAVAILABLE, "This site is being changed."),
            Self::BackendTimeout(_) => (
                StatusCode::GATEWAY_TIMEOUT,
                "The server behind this gateway did not answer in time.",
            ),
            Self::Tunnel(_) => {
                (StatusCode::BAD_GATEWAY, "The connection to the server behind this gateway broke.")
            }
            Self::Backend(_) => {
                (StatusCode::BAD_GATEWAY, "The server behind this gateway gave no valid response.")
            }
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The response, with what its status wants.
    pub(crate) fn page(&self, accept: Option<&HeaderValue>, id: RequestId) -> Response<String> {
        let (status, sentence) = self.row();
        let mut response = page(status, sentence, accept, Some(&id.to_string()));
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
            Self::Register(err) => err.tell(fields),
            Self::Absent(NoBackend::Page { content, html }) => {
                let kind =
                    if *html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
                fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                fields.insert(CONTENT_LENGTH, content.len().into());
                *response.body_mut() = content.to_string();
            }
            Self::Absent(NoBackend::Redirect(url)) => drop(fields.insert(LOCATION, url.clone())),
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
    /// The status code, and what the backend is told.
    fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(why) => (StatusCode::BAD_REQUEST, why),
            // One answer for what is unknown and for what is wrong.
            Self::Unauthorized(..) => (
                StatusCode::UNAUTHORIZED,
                "this credential isn't known here, or is no longer valid",
            ),
            Self::Forbidden(_) => {
                (StatusCode::FORBIDDEN, "this credential doesn't allow to serve what was asked for")
            }
            Self::Taken => (StatusCode::CONFLICT, "another backend is there and keeps its place"),
            Self::TooMany(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "too many failed attempts from this address")
            }
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this credential or connection has all the tunnels that it may have",
            ),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "credentials can't be checked right now")
            }
        }
    }

    /// What the status alone doesn't say.
    fn tell(&self, fields: &mut HeaderMap) {
        fields.insert(REASON, HeaderValue::from_static(self.row().1));
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
