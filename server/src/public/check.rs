//! What a head must be before it may cross: a request's, over HTTP/1.1 or HTTP/2, and a response's.
//!
//! HTTP/1.1 heads went through [`ptth_link::h1`] before; HTTP/2 ones through h2, which leaves open
//! what [`is_well_formed`] checks (RFC 9113 §8.2, §8.3).

use std::collections::HashSet;

use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version};
use ptth_link::h1::is_host;
use ptth_link::headers;

use crate::deliver::Acknowledged;
use crate::error::ExchangeError;

/// Gives the head its target as the tunnel carries it, and returns the host that the visitor named.
///
/// An absolute-form target wins over Host (RFC 9112 §3.2.2); Host itself becomes `:authority`.
pub(super) fn target(
    head: &mut Parts,
    sni: Option<&str>,
    scheme: &Scheme,
) -> Result<String, ExchangeError> {
    let bad = |why| ExchangeError::Request(StatusCode::BAD_REQUEST, why);
    let host = head.headers.remove(HOST);
    let has_path = |path: &PathAndQuery| !path.as_str().starts_with('?');
    let whole =
        head.uri.scheme() == Some(scheme) && head.uri.path_and_query().is_some_and(has_path);
    if let Some(authority) = head.uri.authority().filter(|_| whole) {
        // It crosses as it is, as most of HTTP/2's do.
        return Ok(authority.as_str().to_owned());
    }
    let authority = match head.uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let host = host.as_ref().map(HeaderValue::as_bytes);
            let host = host.or(sni.map(str::as_bytes)).ok_or(bad("No host was named."))?;
            Authority::try_from(host).map_err(|_| bad("The host is malformed."))?
        }
    };
    let path = match head.uri.path_and_query() {
        // RFC 9112 §3.2.1: an empty path is sent as "/".
        Some(path) if path.as_str().starts_with('?') => {
            let path = format!("/{}", path.as_str());
            PathAndQuery::try_from(path).map_err(|_| bad("The target is malformed."))?
        }
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    };
    let host = authority.as_str().to_owned();
    let uri = Uri::builder().scheme(scheme.clone()).authority(authority).path_and_query(path);
    head.uri = uri.build().map_err(|_| bad("The target is malformed."))?;
    Ok(host)
}

/// Holds an HTTP/2 head to the limits of an HTTP/1.1 one.
pub(super) fn limits(head: &mut Parts) -> Result<(), ExchangeError> {
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let mut expectations = head.headers.get_all(EXPECT).iter();
    let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let (status, why) = if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        // As over HTTP/1.1: http's parser lets 8-bit bytes through, and origins read them differently.
        (StatusCode::BAD_REQUEST, "The target is malformed.")
    } else if target.len() > MAX_TARGET {
        (StatusCode::URI_TOO_LONG, "The target is longer than 8 KiB.")
    } else if list_size(head) > MAX_HEAD {
        (too_large, "The head is longer than 32 KiB.")
    } else if head.headers.len() > MAX_FIELDS {
        (too_large, "There are more than 100 fields.")
    } else if repeats(&head.headers) > MOST_REPEATED {
        (too_large, "The same field is there again and again.")
    } else if !expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        (StatusCode::EXPECTATION_FAILED, "Only 100-continue can be expected.")
    } else {
        join_cookies(&mut head.headers);
        return Ok(());
    };
    Err(ExchangeError::Request(status, why))
}

/// Whether an HTTP/2 head is; otherwise the stream ends by an error (RFC 9113 §8.1.1).
pub(super) fn is_well_formed(head: &Parts) -> bool {
    let extended = head.extensions.get::<h2::ext::Protocol>().is_some();
    let path_is_fine = match head.uri.path_and_query().map(PathAndQuery::as_str) {
        Some("*") => head.method == Method::OPTIONS,
        Some(path) => path.starts_with('/'),
        None => head.method == Method::CONNECT && !extended,
    };
    let scheme_is_fine =
        head.uri.scheme().is_none_or(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
    path_is_fine
        && scheme_is_fine
        && has_one_host(head)
        && has_one_length(head)
        // RFC 9113 §8.2.1: no blank at either end.
        && head.headers.values().all(|value| value.as_bytes().trim_ascii().len() == value.len())
}

/// The size of the head as RFC 9113 §6.5.2 counts it, without the pseudo-header fields but the path.
fn list_size(head: &Parts) -> usize {
    let fields = head.headers.iter();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    target + fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum::<usize>()
}

/// Bytes of values that repeat one of the same field: in HPACK each costs its sender one byte, but the tunnel
/// all of it (RFC 7541 §7.3 warns of that).
fn repeats(fields: &HeaderMap) -> usize {
    // Most heads have no name twice.
    if fields.keys_len() == fields.len() {
        return 0;
    }
    let mut seen = HashSet::new();
    fields.iter().filter(|field| !seen.insert(*field)).map(|(_, value)| value.len()).sum()
}

/// h2 takes an empty one for zero, and equal ones for one; an HTTP/1.1 origin may not.
fn has_one_length(head: &Parts) -> bool {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
    let is_length = |length: &[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(is_length) && lengths.next().is_none()
}

/// RFC 9113 §8.3.1: a host as HTTP/1.1's must be, and a Host field that says the same or is absent.
fn has_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let agree = match (authority, host.map(HeaderValue::as_bytes)) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        (None, None) => false,
        _ => true,
    };
    let named = authority.or(host.map(HeaderValue::as_bytes)).unwrap_or_default();
    agree && more.is_none() && is_host(named)
}

/// RFC 9113 §8.2.3: HTTP/2 may split the one field of HTTP/1.1 into crumbs.
fn join_cookies(fields: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        fields.insert(COOKIE, joined);
    }
}

/// As HTTP/1.1's head.
const MAX_HEAD: usize = 32 * 1024;
/// Bytes that a field counts beside its own (RFC 9113 §6.5.2).
const FIELD: usize = 32;
/// Bytes of a request line.
const MAX_TARGET: usize = 8 * 1024;
const MAX_FIELDS: usize = 100;
/// Bytes of repeated fields. No known program needs any.
const MOST_REPEATED: usize = 4096;

/// A final response must be one (RFC 9110 §15); and what it says about hops stays behind.
pub(super) fn response<B>(response: &mut Response<B>) -> Result<(), ExchangeError> {
    let status = response.status();
    if !(StatusCode::OK.as_u16()..600).contains(&status.as_u16()) {
        return Err(ExchangeError::Backend("a status that no final response can have"));
    }
    if response.extensions_mut().remove::<Acknowledged>().is_none() {
        headers::response(response.headers_mut());
    }
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6: there is no content, whatever the backend says, and a reader may believe the length.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    // The tunnel's version says nothing about the visitor's connection.
    *response.version_mut() = Version::default();
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn malformed_http2_heads_are_stream_errors() {
        type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let cases: &[Case<'_>] = &[
            ("GET", "https://user@example.com/", &[]),
            ("GET", "https://example.com/", &[("host", "other.example")]),
            ("GET", "https://example.com/", &[("host", "example.com"), ("host", "example.com")]),
            ("GET", "/", &[]),
            ("GET", "ftp://example.com/", &[]),
            ("GET", "*", &[("host", "example.com")]),
            ("POST", "https://example.com/", &[("content-length", "1"), ("content-length", "1")]),
            ("POST", "https://example.com/", &[("content-length", "")]),
            ("GET", "https://a,b/", &[]),
            ("GET", "https://example.com:99999/", &[]),
            ("GET", "https://example.com/", &[("x", " padded")]),
            ("GET", "https://example.com/", &[("x", "padded\t")]),
        ];
        for (method, uri, fields) in cases {
            assert!(!is_well_formed(&head(method, uri, fields)), "{method} {uri} {fields:?}");
        }
    }

    #[test]
    fn sound_http2_heads_pass() {
        for (method, uri, fields) in [
            ("GET", "https://example.com/a%2Fb?x=%20&y=a+b", &[("host", "EXAMPLE.com")][..]),
            ("GET", "https://example.com//x", &[]),
            ("GET", "https://example.com/?", &[]),
            ("OPTIONS", "*", &[("host", "example.com")]),
            ("BREW", "https://[::1]:8443/", &[("x", "")]),
        ] {
            let mut head = head(method, uri, fields);
            assert!(is_well_formed(&head) && limits(&mut head).is_ok(), "{method} {uri}");
        }
    }

    #[test]
    fn limits_are_answered() {
        let long = format!("https://example.com/{}", "x".repeat(MAX_TARGET));
        let status = |result: Result<(), ExchangeError>| result.unwrap_err().status();
        assert_eq!(status(limits(&mut head("GET", &long, &[]))), 414);
        let many = vec![("a", "b"); MAX_FIELDS + 1];
        assert_eq!(status(limits(&mut head("GET", "https://example.com/", &many))), 431);
        let value = "x".repeat(1500);
        let twice = [("a", &*value), ("b", &*value), ("a", &*value), ("b", &*value)];
        let distinct = [("cookie", &*value), ("cookie", "other")];
        assert!(limits(&mut head("GET", "https://example.com/", &twice)).is_ok());
        assert!(limits(&mut head("GET", "https://example.com/", &distinct)).is_ok());
        let again = vec![("a", &*value); 4];
        assert_eq!(status(limits(&mut head("GET", "https://example.com/", &again))), 431);
        let expects = [("expect", "200-ok")];
        assert_eq!(status(limits(&mut head("GET", "https://example.com/", &expects))), 417);
    }

    #[test]
    fn the_target_crosses_byte_for_byte() {
        for (uri, host, expected) in [
            ("/a%2Fb?x=%20&y=a+b", "h", "https://h/a%2Fb?x=%20&y=a+b"),
            ("//x", "h", "https://h//x"),
            ("/?", "h", "https://h/?"),
            ("http://wins.example/p", "loses.example", "https://wins.example/p"),
            ("http://wins.example?q", "loses.example", "https://wins.example/?q"),
            ("/", "[::1]:8443", "https://[::1]:8443/"),
        ] {
            let mut head = head("GET", uri, &[("host", host)]);
            target(&mut head, None, &Scheme::HTTPS).unwrap();
            assert_eq!(head.uri.to_string(), expected);
            assert!(!head.headers.contains_key(HOST));
        }
        let mut options = head("OPTIONS", "*", &[("host", "h")]);
        target(&mut options, None, &Scheme::HTTP).unwrap();
        assert_eq!(options.uri.scheme(), Some(&Scheme::HTTP));
        assert_eq!(options.uri.path_and_query().unwrap(), "*");
        let nameless = |sni| target(&mut head("GET", "/", &[]), sni, &Scheme::HTTPS);
        assert!(nameless(None).is_err());
        assert_eq!(nameless(Some("sni.example")).unwrap(), "sni.example");
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2")];
        let mut head = head("GET", "https://example.com/", &crumbs);
        limits(&mut head).unwrap();
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
