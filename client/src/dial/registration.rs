//! The request of a registration by HTTP, and the meaning of its answer: draft-kazuho-ptth-ptth-01. Pure.

use std::time::Duration;

use h2::ext::Protocol;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, RETRY_AFTER, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::announced::News;
use crate::config::{Config, Value, Via};

use super::DialError;
use super::error::{LONGEST_REASON, Reply, Verdict};

/// An HTTP/1.1 upgrade (RFC 9110 §7.8), or with [`Via::Connect`] an extended CONNECT over HTTP/2 (RFC 8441 §4).
/// `instance` is `<instance>.<slot>`, which tells the tunnels of one process apart and finds their predecessors.
pub(super) fn request(
    config: &Config,
    instance: &str,
    authorization: Option<&Value>,
) -> Request<()> {
    let mut request = Request::new(());
    let url = config.public_url();
    // The list of origins holds the gateway's own where nothing else is asked for. A gateway of ours then goes by the
    // name, which is `*` for all that the credential is good for.
    let path = format!("/.well-known/ptth/{}/", utf8_percent_encode(&url, LITERAL));
    let (token, is_connect) = (HeaderValue::from_static(TOKEN), config.via == Via::Connect);
    let uri = if is_connect { url + &path } else { path };
    *request.uri_mut() = Uri::try_from(uri).unwrap_or_default();
    if is_connect {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static(TOKEN));
    } else {
        let host = HeaderValue::from_str(&config.public_authority());
        let upgrade = HeaderValue::from_static("upgrade");
        let host = host.into_iter().map(|host| (HOST, host));
        request.headers_mut().extend(host.chain([(CONNECTION, upgrade), (UPGRADE, token)]));
    }
    let fields = request.headers_mut();
    fields.insert(ALPN, HeaderValue::from_static(INSIDE));
    if let Some(value) = authorization {
        fields.insert(AUTHORIZATION, value.reveal());
    }
    let all = config.asked_host.is_none().then_some("*");
    let ours = [
        (NAME, config.name.as_deref().or(all)),
        (PATH, config.path.as_deref()),
        (INSTANCE, Some(instance)),
    ];
    for (name, text) in ours {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            fields.insert(name, value);
        }
    }
    request
}

/// What the gateway announces with a success, or the meaning of its refusal, whose body begins with `body`.
pub(super) fn judge(head: &Parts, body: &[u8]) -> Result<News, DialError> {
    let opened = match head.status {
        StatusCode::SWITCHING_PROTOCOLS => names(&head.headers, UPGRADE, TOKEN),
        // Over HTTP/1.1 a 200 is just a page.
        status => status.is_success() && head.version == http::Version::HTTP_2,
    };
    if opened && (!head.headers.contains_key(ALPN) || names(&head.headers, ALPN, INSIDE)) {
        return Ok(News::of(&head.headers));
    }
    let busy = retry_after(&head.headers).map_or(Verdict::Failed, Verdict::Later);
    let (meaning, verdict): (fn(Reply) -> DialError, _) = match head.status.as_u16() {
        // Only a 2ptth server sends this field. The answer of a reverse proxy, portal or foreign gateway may change.
        400 | 401 | 403 | 409 if head.headers.contains_key(REASON) => {
            (DialError::Denied, Verdict::Final)
        }
        400 | 401 | 403 | 409 => (DialError::Denied, Verdict::FinalAtFirst),
        429 => (DialError::Busy, busy),
        503 if busy != Verdict::Failed => (DialError::Busy, busy),
        // 502, 503, 504, and the codes of content delivery networks: the request doesn't reach the gateway.
        502..=504 | 520..=530 => (DialError::Down, Verdict::Absent),
        // Not 501 and 505: that server takes no registrations.
        408 | 500 | 506..=599 => (DialError::Down, Verdict::Failed),
        _ => (DialError::NoDoor, Verdict::FinalAtFirst),
    };
    let reason = reason(&head.headers, body);
    Err(meaning(Reply { status: head.status, reason, verdict }))
}

fn names(fields: &HeaderMap, field: HeaderName, text: &str) -> bool {
    let mut values = fields.get_all(field).iter();
    let only = (values.next(), values.next());
    matches!(only, (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(text.as_bytes()))
}

/// The gateway's text: its field, or the first line of the body.
fn reason(fields: &HeaderMap, body: &[u8]) -> String {
    let said = fields.get(REASON).map_or(body, HeaderValue::as_bytes);
    let said = String::from_utf8_lossy(said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or_default().chars().take(LONGEST_REASON).collect()
}

/// RFC 9110 §10.2.3, in seconds; a date would need synchronised clocks.
fn retry_after(fields: &HeaderMap) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A number too large to read is a long time.
    digits.then(|| text.parse().map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT))
}

/// The upgrade token, and the value of `:protocol`.
const TOKEN: &str = "ptth";
/// The protocol inside (RFC 7639).
const INSIDE: &str = "h2";
const ALPN: HeaderName = HeaderName::from_static("alpn");
const NAME: HeaderName = HeaderName::from_static("2ptth-name");
const PATH: HeaderName = HeaderName::from_static("2ptth-path");
const INSTANCE: HeaderName = HeaderName::from_static("2ptth-instance");
const REASON: HeaderName = HeaderName::from_static("2ptth-reason");
/// RFC 3986 §2.3: all but the unreserved characters are encoded.
const LITERAL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A gateway that restarts should have its backends back within this time.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
