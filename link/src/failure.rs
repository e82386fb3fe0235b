//! The failures for which the gateway or the client answers by itself: one row each, the same at both ends.
//!
//! A row is the only place where a failure becomes a status code. `docs/errors.md` has a section for each code, which a
//! test compares with this table.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The party at fault, as the page and the metrics name it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Party {
    Visitor,
    Gateway,
    /// The backend, or the tunnel to it.
    Backend,
    Origin,
}

impl Party {
    pub const ALL: [Self; 4] = [Self::Visitor, Self::Gateway, Self::Backend, Self::Origin];

    pub fn name(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::Gateway => "gateway",
            Self::Backend => "backend",
            Self::Origin => "origin",
        }
    }
}

/// What the table says of a failure.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub code: &'static str,
    /// The usual status; where a route or the request's own fault has another one, that is sent.
    pub status: StatusCode,
    pub party: Party,
    /// RFC 9209 §2.3
    pub proxy_error: &'static str,
    /// For visitors: which part of the way failed, and nothing about addresses. Without a character that HTML or JSON
    /// would escape.
    pub sentence: &'static str,
}

macro_rules! failures {
    ($($name:ident $code:literal $status:ident $party:ident $error:literal $sentence:literal;)*) => {
        /// Why one of our programs answers by itself.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Failure {
            $($name,)*
        }

        impl Failure {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        code: $code,
                        status: StatusCode::$status,
                        party: Party::$party,
                        proxy_error: $error,
                        sentence: $sentence,
                    },)*
                }
            }
        }
    };
}

failures! {
    Request "E-REQUEST" BAD_REQUEST Visitor "http_request_error"
        "This request is malformed.";
    Method "E-METHOD" METHOD_NOT_ALLOWED Visitor "http_request_denied"
        "This method is not available here.";
    Misdirected "E-MISDIRECTED" MISDIRECTED_REQUEST Visitor "http_request_denied"
        "This connection is not for that host; make a new one.";
    Body "E-BODY" BAD_REQUEST Visitor "http_request_error"
        "The request's body was malformed or broke off.";
    BodySlow "E-BODY-SLOW" REQUEST_TIMEOUT Visitor "http_request_error"
        "The request's body came too slowly.";
    NoRoute "E-NO-ROUTE" NOT_FOUND Gateway "destination_not_found"
        "There is no such site here.";
    Connections "E-CONNECTIONS" SERVICE_UNAVAILABLE Gateway "connection_limit_reached"
        "This gateway has too many connections.";
    Streams "E-STREAMS" SERVICE_UNAVAILABLE Gateway "connection_limit_reached"
        "Every way to the server behind this gateway is busy.";
    Backlog "E-BACKLOG" SERVICE_UNAVAILABLE Gateway "connection_limit_reached"
        "Too many requests wait for the server behind this gateway.";
    RouteChanged "E-ROUTE-CHANGED" SERVICE_UNAVAILABLE Gateway "proxy_configuration_error"
        "This site is being changed.";
    NoBackend "E-NO-BACKEND" BAD_GATEWAY Backend "destination_unavailable"
        "There is no upstream available";
    BackendSilent "E-BACKEND-SILENT" GATEWAY_TIMEOUT Backend "http_response_timeout"
        "The server behind this gateway did not answer in time.";
    TunnelLost "E-TUNNEL-LOST" BAD_GATEWAY Backend "connection_terminated"
        "The connection to the server behind this gateway broke.";
    BackendProtocol "E-BACKEND-PROTOCOL" BAD_GATEWAY Backend "http_protocol_error"
        "The server behind this gateway gave no valid response.";
    BackendUpgrade "E-BACKEND-UPGRADE" NOT_IMPLEMENTED Backend "http_upgrade_failed"
        "The server behind this gateway has no WebSockets over HTTP/2.";
    BackendService "E-BACKEND-SERVICE" BAD_GATEWAY Backend "proxy_internal_error"
        "The server behind this gateway failed.";
    BackendHost "E-BACKEND-HOST" MISDIRECTED_REQUEST Gateway "http_request_denied"
        "The gateway's certificate does not cover this host.";
    OriginRefused "E-ORIGIN-REFUSED" BAD_GATEWAY Origin "connection_refused"
        "The server behind this gateway is not listening.";
    OriginSilent "E-ORIGIN-SILENT" GATEWAY_TIMEOUT Origin "connection_timeout"
        "The server behind this gateway is not listening.";
    OriginUntrusted "E-ORIGIN-UNTRUSTED" BAD_GATEWAY Origin "tls_certificate_error"
        "The server behind this gateway could not be verified.";
    OriginProtocol "E-ORIGIN-PROTOCOL" BAD_GATEWAY Origin "http_protocol_error"
        "The server behind this gateway gave no valid response.";
    OriginBroken "E-ORIGIN-BROKEN" BAD_GATEWAY Origin "connection_terminated"
        "The server behind this gateway gave no valid response.";
    OriginUpgrade "E-ORIGIN-UPGRADE" BAD_GATEWAY Origin "http_upgrade_failed"
        "The server behind this gateway botched the upgrade.";
    OriginRequest "E-ORIGIN-REQUEST" BAD_REQUEST Visitor "http_request_error"
        "This request can't be passed on over HTTP/1.1.";
    OriginTcp "E-ORIGIN-TCP" METHOD_NOT_ALLOWED Visitor "http_request_denied"
        "The server behind this gateway speaks no HTTP; reach it by connect-tcp.";
    OriginNoWebSocket "E-ORIGIN-NO-WEBSOCKET" NOT_IMPLEMENTED Visitor "http_upgrade_failed"
        "The server behind this gateway speaks no WebSocket; reach it by connect-tcp.";
    GateAddress "E-GATE-ADDRESS" FORBIDDEN Visitor "http_request_denied"
        "This site is not open to your address.";
    GateRate "E-GATE-RATE" TOO_MANY_REQUESTS Visitor "http_request_denied"
        "Too many requests came from your address.";
    GateBody "E-GATE-BODY" PAYLOAD_TOO_LARGE Visitor "http_request_denied"
        "The request's body is larger than this site takes.";
    GatePassword "E-GATE-PASSWORD" UNAUTHORIZED Visitor "http_request_denied"
        "This site wants a user and a password.";
    GateForward "E-GATE-FORWARD" SERVICE_UNAVAILABLE Gateway "proxy_internal_error"
        "This site can't check right now whether it is open to you.";
    RouteStreams "E-ROUTE-STREAMS" SERVICE_UNAVAILABLE Gateway "connection_limit_reached"
        "This site has as many requests as it may have at a time.";
    Registration "E-REGISTRATION" BAD_REQUEST Backend "http_request_error"
        "this registration is malformed";
    Credential "E-CREDENTIAL" UNAUTHORIZED Backend "http_request_denied"
        "this credential isn't known here, or is no longer valid";
    Forbidden "E-FORBIDDEN" FORBIDDEN Backend "http_request_denied"
        "this credential doesn't allow to serve what was asked for";
    Taken "E-TAKEN" CONFLICT Backend "http_request_denied"
        "another backend is there and keeps its place";
    Attempts "E-ATTEMPTS" TOO_MANY_REQUESTS Backend "http_request_denied"
        "too many failed attempts from this address";
    Tunnels "E-TUNNELS" SERVICE_UNAVAILABLE Backend "connection_limit_reached"
        "this credential or connection has all the tunnels that it may have";
    Authorizer "E-AUTHORIZER" SERVICE_UNAVAILABLE Gateway "proxy_internal_error"
        "credentials can't be checked right now";
}

impl Failure {
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The value of Proxy-Status (RFC 9209) that a page carries.
    pub fn proxy_status(self) -> HeaderValue {
        let Row { code, proxy_error, .. } = self.row();
        HeaderValue::try_from(format!("2ptth; error={proxy_error}; details=\"{code}\""))
            .expect("the table holds tokens")
    }

    /// The failure that a page of our own names in its Proxy-Status; `None` where another program answered.
    pub fn told(fields: &HeaderMap) -> Option<Self> {
        let told = fields.get(PROXY_STATUS)?.to_str().ok()?;
        let code = told.strip_prefix("2ptth; ")?.split('"').nth(1)?;
        Self::ALL.iter().copied().find(|failure| failure.code() == code)
    }
}

pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_apart_and_need_no_escapes() {
        let mut codes = std::collections::HashSet::new();
        for failure in Failure::ALL {
            let row = failure.row();
            assert!(codes.insert(row.code), "{}", row.code);
            assert!(row.code.starts_with("E-") && !row.sentence.contains(['<', '&', '"', '\\']));
            assert!(row.status.is_client_error() || row.status.is_server_error());
            let mut fields = HeaderMap::new();
            fields.insert(PROXY_STATUS, failure.proxy_status());
            assert_eq!(Failure::told(&fields), Some(*failure));
        }
        let foreign = HeaderValue::from_static("nginx; details=\"E-NO-BACKEND\"");
        assert_eq!(Failure::told(&HeaderMap::from_iter([(PROXY_STATUS, foreign)])), None);
    }
}
