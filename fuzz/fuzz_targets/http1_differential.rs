//! Heads of requests and of responses: what the codec accepts, httparse reads with the same words, fields and
//! length; and what isn't whole for the one isn't for the other.
#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method, Version};
use httparse::{Header, Status};
use libfuzzer_sys::fuzz_target;
use ptth_link::h1::{RequestReader, ResponseReader};

fuzz_target!(|data: &[u8]| {
    requests(data);
    responses(data);
});

fn requests(data: &[u8]) {
    let mut input = BytesMut::from(data);
    let Ok(Some(request)) = RequestReader::default().read(&mut input) else { return };
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut other = httparse::Request::new(&mut room);
    let used = data.len() - input.len();
    assert_eq!(other.parse(data), Ok(Status::Complete(used)));
    assert_eq!(other.method, Some(request.parts.method.as_str()));
    assert_eq!(other.version, Some(version(request.parts.version)));
    same(&request.parts.headers, other.headers);
}

fn responses(data: &[u8]) {
    // httparse skips empty lines before a head.
    if let Some(b'\r' | b'\n') | None = data.first() {
        return;
    }
    let mut input = BytesMut::from(data);
    let read = ResponseReader::default().read(&mut input, &Method::HEAD);
    let mut room = [httparse::EMPTY_HEADER; 200];
    let mut other = httparse::Response::new(&mut room);
    let parsed = other.parse(data);
    match read {
        Ok(Some(response)) => {
            assert_eq!(parsed, Ok(Status::Complete(data.len() - input.len())));
            assert_eq!(other.code, Some(response.parts.status.as_u16()));
            assert_eq!(other.version, Some(version(response.parts.version)));
            let length = |field: &&Header<'_>| field.name.eq_ignore_ascii_case("content-length");
            if !other.headers.iter().any(|field| length(&field)) {
                same(&response.parts.headers, other.headers);
            }
        }
        Ok(None) => assert!(!matches!(parsed, Ok(Status::Complete(_)))),
        // Stricter is what it is for.
        Err(_) => {}
    }
}

fn version(version: Version) -> u8 {
    u8::from(version == Version::HTTP_11)
}

/// The same fields, of the same name in the same order.
fn same(fields: &HeaderMap, others: &[Header<'_>]) {
    assert_eq!(fields.len(), others.len());
    for name in fields.keys() {
        let ours = fields.get_all(name).iter().map(|value| value.as_bytes());
        let theirs = others.iter().filter(|other| other.name.eq_ignore_ascii_case(name.as_str()));
        assert!(ours.eq(theirs.map(|other| other.value.trim_ascii())));
    }
}
