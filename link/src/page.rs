//! The page of an error, from either end.

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

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

#[cfg(test)]
mod tests {
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
}
