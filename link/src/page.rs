//! The page of an error, from either end, and the requests that get none.

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, VARY,
};
use http::{HeaderMap, Method, Response, StatusCode};

use crate::failure::{Failure, PROXY_STATUS, Party, Row};

/// The page of a failure, in the form that is preferred: plain text, HTML, or problem+json (RFC 9457). `id` names the
/// request in the log. `sentence` is the table's, or another one that needs no escape either.
pub fn page(
    failure: Failure,
    (status, sentence): (StatusCode, &str),
    accept: Option<&HeaderValue>,
    id: Option<&str>,
) -> Response<String> {
    let Row { code, party, .. } = failure.row();
    let (form, number) = (Form::preferred(accept), status.as_u16());
    let body = match form {
        Form::Text => {
            let id = id.map(|id| format!("Request id: {id}\n")).unwrap_or_default();
            format!("{number} {sentence}\nError code: {code}\n{id}")
        }
        Form::Html => html(number, sentence, code, party, id),
        Form::Json => {
            let id = id.map(|id| format!(",\"instance\":\"urn:request:{id}\"")).unwrap_or_default();
            let party = party.name();
            format!(
                "{{\"title\":\"{sentence}\",\"status\":{number},\"code\":\"{code}\",\"party\":\"{party}\"{id}}}\n"
            )
        }
    };
    let mut response = of(status, form.media_type(), body);
    let fields = response.headers_mut();
    fields.insert(PROXY_STATUS, failure.proxy_status());
    // One resource, several forms (RFC 9110 §12.5.5).
    fields.insert(VARY, HeaderValue::from_static("accept"));
    if form == Form::Html {
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
    response
}

/// A response of our own, which no cache keeps.
pub fn of(status: StatusCode, media_type: &'static str, body: String) -> Response<String> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(CONTENT_LENGTH, length.into());
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// No scripts; dark where the visitor's system is. The parties from the visitor to the origin, with the one at fault.
fn html(status: u16, sentence: &str, code: &str, at_fault: Party, id: Option<&str>) -> String {
    let way = Party::ALL.map(|party| {
        let mark = if party == at_fault { " class=\"fault\"" } else { "" };
        format!("<li{mark}>{}</li>", party.name())
    });
    let id = id.map(|id| format!("<br>Request id: <code>{id}</code>")).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{status} {code}</title><style>{STYLE}</style></head>\n\
         <body><h1>{status}</h1><p>{sentence}</p>\n<ol>{}</ol>\n\
         <p>Error code: <code>{code}</code>{id}</p></body></html>\n",
        way.concat()
    )
}

const STYLE: &str = "body{font:1rem/1.6 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem}\
    ol{display:flex;flex-wrap:wrap;gap:.5rem;padding:0;list-style:none}\
    li{border:1px solid;border-radius:.3rem;padding:0 .6rem;opacity:.6}\
    li.fault{opacity:1;border-width:2px;font-weight:bold}";

/// The forms of a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Text,
    Html,
    Json,
}

impl Form {
    /// The first of those with the highest weight that Accept names (RFC 9110 §12.5.1); text where it names none.
    fn preferred(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let (mut best, mut most) = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "text/html" | "application/xhtml+xml" => Self::Html,
                "application/json" | "application/problem+json" => Self::Json,
                "text/plain" => Self::Text,
                _ => continue,
            };
            let weight = parts.find_map(|it| it.strip_prefix("q=").or(it.strip_prefix("Q=")));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if weight > most {
                (best, most) = (form, weight);
            }
        }
        best
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Text => TEXT,
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/problem+json",
        }
    }
}

pub const TEXT: &str = "text/plain; charset=utf-8";

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
    fn a_page_has_the_form_that_is_preferred() {
        let text = "502 No.\nError code: E-TUNNEL-LOST\n";
        let json =
            "{\"title\":\"No.\",\"status\":502,\"code\":\"E-TUNNEL-LOST\",\"party\":\"backend\"";
        for (accept, id, begins, ends) in [
            (None, Some("7"), text, "Request id: 7\n"),
            (Some("*/*"), None, text, text),
            (
                Some("text/html, */*"),
                Some("7"),
                "<!doctype html>",
                "id: <code>7</code></p></body></html>\n",
            ),
            (Some("text/html;q=0.5, text/plain"), None, text, text),
            (Some("text/html;q=0, */*"), None, text, text),
            (Some("text/html, application/json;q=0.9"), None, "<!doctype html>", "</html>\n"),
            (
                Some("application/json, text/plain, */*"),
                Some("7"),
                json,
                ",\"instance\":\"urn:request:7\"}\n",
            ),
            (Some("Application/Problem+JSON"), None, json, "\"}\n"),
        ] {
            let accept = accept.map(HeaderValue::from_static);
            let said = (StatusCode::BAD_GATEWAY, "No.");
            let page = page(Failure::TunnelLost, said, accept.as_ref(), id);
            let body = page.body();
            assert!(body.starts_with(begins) && body.ends_with(ends), "{accept:?} {body}");
            assert_eq!(page.headers()[CONTENT_LENGTH], body.len().to_string());
            assert_eq!(Failure::told(page.headers()), Some(Failure::TunnelLost));
            let fault = body.contains("<li class=\"fault\">backend</li>");
            assert_eq!(fault, begins.starts_with("<!"), "{body}");
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
