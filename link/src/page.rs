//! The page of an error, from either end, and the requests that get none.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};

/// One sentence: plain text, or RFC 9457's problem+json where that or JSON is accepted. `id` names the request in the
/// log. `sentence` and `id` hold nothing that JSON would escape.
pub fn page(
    status: StatusCode,
    sentence: &str,
    accept: Option<&HeaderValue>,
    id: Option<&str>,
) -> Response<String> {
    let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let json =
        ["application/problem+json", "application/json"].iter().any(|it| accept.contains(it));
    let code = status.as_u16();
    let (kind, text) = if json {
        let id = id.map(|id| format!(",\"instance\":\"urn:request:{id}\"")).unwrap_or_default();
        (PROBLEM, format!("{{\"title\":\"{sentence}\",\"status\":{code}{id}}}\n"))
    } else {
        let id = id.map(|id| format!("Request id: {id}\n")).unwrap_or_default();
        (TEXT, format!("{code} {sentence}\n{id}"))
    };
    let length = text.len();
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(CONTENT_LENGTH, length.into());
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const PROBLEM: &str = "application/problem+json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Whether a request is an EventSource's, which takes every response but 200 as final, and connects again after a broken
/// connection (WHATWG HTML, §9.2.2 and §9.2.3). A page of the gateway's or the client's with 502, because a program
/// restarts, would end its events for good.
///
/// It is a GET that accepts text/event-stream and nothing else, as all browsers send it.
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
    fn a_page_is_text_or_json() {
        for (accept, id, expected) in [
            (None, Some("7"), "502 No.\nRequest id: 7\n"),
            (Some("text/html, */*"), None, "502 No.\n"),
            (
                Some("text/html, application/json;q=0.9"),
                Some("7"),
                "{\"title\":\"No.\",\"status\":502,\"instance\":\"urn:request:7\"}\n",
            ),
            (Some("application/problem+json"), None, "{\"title\":\"No.\",\"status\":502}\n"),
        ] {
            let accept = accept.map(HeaderValue::from_static);
            let page = page(StatusCode::BAD_GATEWAY, "No.", accept.as_ref(), id);
            assert_eq!(page.body(), expected);
            assert_eq!(page.headers()[CONTENT_LENGTH], expected.len().to_string());
            assert_eq!(page.headers()[CONTENT_TYPE] == PROBLEM, expected.starts_with('{'));
        }
    }

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
