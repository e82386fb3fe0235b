//! Server-sent events: which failures end the stream without a response.
//!
//! An EventSource takes every response but 200 as final, and connects again after a broken connection (WHATWG
//! HTML, §9.2.2 and §9.2.3). A page of the gateway's or the client's with 502, because a program restarts, would end
//! its events for good.

use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};

/// Whether it is a GET that accepts text/event-stream and nothing else, as all browsers send it.
pub fn is_event_source(method: &Method, fields: &HeaderMap) -> bool {
    let mut values = fields.get_all(ACCEPT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let mut range = value.as_bytes().split(|byte| *byte == b';');
    let media = range.next().unwrap_or_default().trim_ascii();
    let more = value.as_bytes().contains(&b',');
    method == Method::GET && !more && media.eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether a page of our own with this status says that the other side can't be reached now: an EventSource gets no
/// response in its place. An origin's own response is always passed on.
pub fn is_withheld(status: StatusCode) -> bool {
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT]
        .contains(&status)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_event_source_is_told_by_its_accept() {
        let table: [(Method, &[&str], bool); 13] = [
            (Method::GET, &["text/event-stream"], true),
            (Method::GET, &["Text/Event-Stream"], true),
            (Method::GET, &[" text/event-stream;charset=utf-8"], true),
            (Method::GET, &["text/event-stream ; q=0.9"], true),
            (Method::POST, &["text/event-stream"], false),
            (Method::HEAD, &["text/event-stream"], false),
            (Method::GET, &[], false),
            (Method::GET, &[""], false),
            (Method::GET, &["*/*"], false),
            (Method::GET, &["text/*"], false),
            (Method::GET, &["text/event-streams"], false),
            (Method::GET, &["application/json, text/event-stream"], false),
            (Method::GET, &["text/event-stream", "text/html"], false),
        ];
        for (method, accept, expected) in table {
            let values = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value)));
            assert_eq!(
                is_event_source(&method, &values.collect()),
                expected,
                "{method} {accept:?}"
            );
        }
    }
}
