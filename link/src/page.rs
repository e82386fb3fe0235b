//! What a visitor is shown in place of a response, by whichever end answers for the one that there isn't.

use std::fmt::Write as _;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

/// One sentence: plain text, or RFC 9457's problem+json for who accepts that or JSON. `id` names the request in the
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
    let (kind, code) = (if json { PROBLEM } else { TEXT }, status.as_u16());
    let mut text = match json {
        true => format!("{{\"title\":\"{sentence}\",\"status\":{code}"),
        false => format!("{code} {sentence}\n"),
    };
    // A String takes all that is written.
    let _ = match id {
        Some(id) if json => write!(text, ",\"instance\":\"urn:request:{id}\""),
        Some(id) => writeln!(text, "Request id: {id}"),
        None => Ok(()),
    };
    if json {
        text.push_str("}\n");
    }
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
