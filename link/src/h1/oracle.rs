//! A second opinion on what was accepted, for the tests and the fuzz targets, which share this file.
//!
//! It is httparse and the framing rules written down once more.

use httparse::Status;

/// Panics if httparse reads the head `raw` otherwise than as one whole head with this framing (`None`: in chunks).
pub(super) fn agree(raw: &[u8], length: Option<u64>) {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    assert_eq!(request.parse(raw), Ok(Status::Complete(raw.len())), "{raw:?}");
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    assert!(http::Method::from_bytes(method.as_bytes()).is_ok(), "{raw:?}");
    let uri = http::Uri::try_from(target).unwrap_or_else(|err| panic!("{err}: {raw:?}"));
    let whole = uri.path_and_query().is_none_or(|path| {
        // http makes an absent path a slash.
        target.ends_with(path.as_str()) || uri.scheme().is_some()
    });
    assert!(whole && !target.contains('#'), "part of the target was lost: {raw:?}");

    let values = |name: &'static str| {
        request.headers.iter().filter(move |f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    };
    let lengths: Vec<_> = values("content-length").collect();
    let codings: Vec<_> = values("transfer-encoding").collect();
    let hosts = values("host").count();
    let expected = match (&*lengths, &*codings) {
        ([], []) => Some(0),
        ([digits], []) => str::from_utf8(digits).ok().and_then(|d| d.parse().ok()),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => None,
        _ => panic!("ambiguous framing: {raw:?}"),
    };
    assert_eq!(length, expected, "{raw:?}");
    assert!(hosts == 1 || (hosts == 0 && request.version == Some(0)), "{raw:?}");
    for field in request.headers.iter() {
        assert!(http::HeaderName::from_bytes(field.name.as_bytes()).is_ok(), "{raw:?}");
        assert!(http::HeaderValue::from_bytes(field.value).is_ok(), "{raw:?}");
    }
}

/// Panics if httparse doesn't read `raw` as one whole chunked body with its trailers.
pub(super) fn agree_chunked(raw: &[u8]) {
    let text = raw.escape_ascii();
    let mut rest = raw;
    loop {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(rest) else {
            panic!("another chunk line: {text}");
        };
        rest = &rest[line..];
        if size == 0 {
            break;
        }
        let (_, after) = rest.split_at_checked(size as usize).expect("data as long as said");
        rest = after.strip_prefix(b"\r\n").expect("a CRLF after the data");
    }
    let mut fields = [httparse::EMPTY_HEADER; 100];
    match httparse::parse_headers(rest, &mut fields) {
        Ok(Status::Complete((len, _))) => assert_eq!(len, rest.len(), "{text}"),
        other => panic!("other trailers: {other:?}: {text}"),
    }
}
