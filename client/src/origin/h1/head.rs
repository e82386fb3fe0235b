//! Heads of HTTP/1.1, written and read (RFC 9112 §2 to §6). Pure.
//!
//! Invariant: a head that is accepted frames its body in exactly one way; what could be read in two ways is
//! refused, or ends the connection with its response.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use httparse::{Header, ParserConfig, Status};
use ptth_link::limits::LENGTH_DIGITS;

use super::H1Error;
use super::body::Decoder;

/// A response's head, and what it says about what follows.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Decoder,
    /// The connection may serve another request after this one.
    pub(super) keep: bool,
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// There is none, and nothing is said of it.
    None,
    Length(u64),
    Chunked,
}

/// Writes a request's head. Of the fields, `Host` and those that frame the body are given apart.
pub(super) fn write(
    method: &Method,
    target: &str,
    host: &HeaderValue,
    fields: &HeaderMap,
    framing: Framing,
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\nhost: "] {
        out.put_slice(part.as_bytes());
    }
    out.put_slice(host.as_bytes());
    for (name, value) in fields {
        if ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            write_field(&mut out, name, value);
        }
    }
    match framing {
        Framing::None => {}
        Framing::Length(length) => write_field(&mut out, &CONTENT_LENGTH, &length.into()),
        Framing::Chunked => out.put_slice(b"\r\ntransfer-encoding: chunked"),
    }
    out.put_slice(b"\r\n\r\n");
    out.freeze()
}

/// A field after the end of the line before it.
pub(super) fn write_field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    for part in [b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()] {
        out.put_slice(part);
    }
}

/// Takes a response's head off `input`. `None` while it isn't whole.
///
/// # Errors
/// It is none.
pub(super) fn read(input: &mut BytesMut, method: &Method) -> Result<Option<Head>, H1Error> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    if let Some(b'\r' | b'\n') = input.first() {
        // The parser would skip them, and anew with each that comes.
        return Err(H1Error::Malformed("an empty line before its head"));
    }
    let parser = ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, input, &mut room);
    let parsed = parsed.map_err(|err| foreign(input).map_or(H1Error::Head(err), H1Error::Foreign));
    let Status::Complete(length) = parsed? else { return Ok(None) };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(H1Error::Malformed("its status is none"))?;
    let http10 = response.version == Some(0);
    let mut found = Vec::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| H1Error::Malformed("the name of a field"))?;
        found.push((name, range(input, field.value)));
    }
    // The values stay where they are: they are encoded, and gone, before the next read.
    let head = input.split_to(length).freeze();
    let mut fields = HeaderMap::with_capacity(found.len());
    for (name, value) in found {
        let value = HeaderValue::from_maybe_shared(head.slice(value));
        fields.append(name, value.map_err(|_| H1Error::Malformed("the value of a field"))?);
    }
    let (body, clear) = framing(&mut fields, status, method, http10)?;
    let keep = clear && status != StatusCode::SWITCHING_PROTOCOLS && persists(&fields, http10);
    Ok(Some(Head { status, fields, body, keep }))
}

/// What to do about an origin that speaks another protocol, if what came is that of one.
fn foreign(input: &[u8]) -> Option<&'static str> {
    match input {
        // A record of an alert or of a handshake (RFC 8446 §5.1).
        [0x15 | 0x16, 0x03, ..] => Some(TLS),
        // SETTINGS, with which a server of HTTP/2 begins (RFC 9113 §3.4).
        [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Some(HTTP2),
        _ => None,
    }
}

/// Where `part`, which is of `whole`, begins and ends in it.
fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let begin = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    begin.min(whole.len())..begin.saturating_add(part.len()).min(whole.len())
}

/// How the body is framed (RFC 9112 §6.3), and whether another reader would say the same. A length that
/// doesn't frame it is taken out: it would contradict the DATA frames.
fn framing(
    fields: &mut HeaderMap,
    status: StatusCode,
    method: &Method,
    http10: bool,
) -> Result<(Decoder, bool), H1Error> {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        // We ask for no other (TE, RFC 9110 §10.1.4), and the visitor won't hear of it.
        _ => return Err(H1Error::Malformed("a transfer coding that nobody asked for")),
    };
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let length = match lengths.next() {
        None => None,
        Some(first) if lengths.all(|other| other == first) => Some(number(first.as_bytes())?),
        Some(_) => return Err(H1Error::Malformed("two lengths")),
    };
    let clear = !chunked || length.is_none();
    if !clear || fields.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        fields.remove(CONTENT_LENGTH);
    }
    let no_content = status == StatusCode::NO_CONTENT;
    if no_content {
        fields.remove(CONTENT_LENGTH);
    }
    let not_modified = status == StatusCode::NOT_MODIFIED;
    if no_content || not_modified || status.is_informational() || method == Method::HEAD {
        // An origin whose head promises a body may send that body, late: it would be read as the response to
        // the next request on the connection.
        return Ok((Decoder::Done, !chunked && length.unwrap_or(0) == 0));
    }
    match length {
        _ if chunked && http10 => Err(H1Error::Malformed("a transfer coding of HTTP/1.0")),
        _ if chunked => Ok((Decoder::chunked(), clear)),
        Some(0) => Ok((Decoder::Done, true)),
        Some(length) => Ok((Decoder::Length(length), true)),
        None => Ok((Decoder::UntilClose, false)),
    }
}

fn number(digits: &[u8]) -> Result<u64, H1Error> {
    // Not by `parse` alone, which takes a sign; and what doesn't fit the tunnel isn't sent into it.
    let fine = digits.iter().all(u8::is_ascii_digit) && digits.len() <= LENGTH_DIGITS;
    let digits = fine.then_some(digits);
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.ok_or(H1Error::Malformed("a length that is none"))
}

/// RFC 9112 §9.3.
fn persists(fields: &HeaderMap, http10: bool) -> bool {
    let says = |option: &[u8]| {
        let values = fields.get_all(CONNECTION).iter();
        let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        options.any(|said| said.trim_ascii().eq_ignore_ascii_case(option))
    };
    !says(b"close") && (!http10 || says(b"keep-alive"))
}

/// Reads trailers up to the line that ends them (RFC 9112 §7.1.2), and tells their length. `None` while they
/// aren't whole.
///
/// # Errors
/// They are none.
pub(super) fn trailers(input: &[u8]) -> Result<Option<(usize, HeaderMap)>, H1Error> {
    let mut room = [httparse::EMPTY_HEADER; TRAILERS];
    let parsed = httparse::parse_headers(input, &mut room).map_err(H1Error::Head)?;
    let Status::Complete((length, found)) = parsed else { return Ok(None) };
    let mut fields = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| H1Error::Malformed("the name of a trailer"))?;
        let value = HeaderValue::from_bytes(field.value);
        fields.append(name, value.map_err(|_| H1Error::Malformed("the value of a trailer"))?);
    }
    Ok(Some((length, fields)))
}

/// What is said of an origin that can't be asked in this way.
pub(in crate::origin) const TLS: &str = "it speaks TLS: write https:// in front of its address";
pub(in crate::origin) const NO_TLS: &str =
    "it speaks no TLS: write http:// in front of its address";
pub(in crate::origin) const HTTP2: &str =
    "it speaks HTTP/2 alone, and is asked by HTTP/1.1: have it speak that, too";
/// Most requests' heads are shorter.
const HEAD: usize = 512;
/// Fields of a response.
const FIELDS: usize = 200;
/// Fields after a body.
const TRAILERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The status, how the body is framed, whether the connection persists and the length that is told.
    fn judge(method: Method, head: &str) -> Result<(u16, String, bool, Option<String>), String> {
        let mut input = BytesMut::from(head.replace('|', "\r\n").as_str());
        let read = read(&mut input, &method).map_err(|err| err.to_string())?;
        let Head { status, fields, body, keep } = read.ok_or("not whole")?;
        let length = fields.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned());
        Ok((status.as_u16(), format!("{body:?}"), keep, length))
    }

    #[test]
    fn a_response_is_framed_in_one_way() {
        let table = [
            ("200 OK|Content-Length: 5||", "Length(5)", true, Some("5")),
            ("200 OK|Content-Length: 0||", "Done", true, Some("0")),
            ("200 OK|Content-Length: 5|Content-Length: 5||", "Length(5)", true, None),
            ("200 OK|Content-Length: 5|Connection: x, Close||", "Length(5)", false, Some("5")),
            ("200|Transfer-Encoding: chunked||", "Chunked(Size)", true, None),
            ("200 OK|Transfer-Encoding:  Chunked ||", "Chunked(Size)", true, None),
            ("200 OK|Transfer-Encoding: chunked|Content-Length: 5||", "Chunked(Size)", false, None),
            ("200 OK||", "UntilClose", false, None),
            ("204 No Content||", "Done", true, None),
            ("204 No Content|Content-Length: 0||", "Done", true, None),
            ("204 No Content|Content-Length: 5||", "Done", false, None),
            ("204 No Content|Transfer-Encoding: chunked||", "Done", false, None),
            ("304 Not Modified||", "Done", true, None),
            ("304 Not Modified|Content-Length: 0||", "Done", true, Some("0")),
            ("304 Not Modified|Content-Length: 5||", "Done", false, Some("5")),
            ("304 Not Modified|Transfer-Encoding: chunked||", "Done", false, None),
            (
                "304 Not Modified|Transfer-Encoding: chunked|Content-Length: 5||",
                "Done",
                false,
                None,
            ),
            ("103 Early Hints||", "Done", true, None),
            ("103 Early Hints|Content-Length: 5||", "Done", false, Some("5")),
            ("101 Switching Protocols||", "Done", false, None),
        ];
        for (head, body, keep, length) in table {
            let got = judge(Method::GET, &format!("HTTP/1.1 {head}")).unwrap();
            let length = length.map(str::to_owned);
            assert_eq!((got.1.as_str(), got.2, got.3), (body, keep, length), "{head}");
        }
        for (fields, keep, length) in [
            ("", true, None),
            ("Content-Length: 0|", true, Some("0")),
            ("Content-Length: 5|", false, Some("5")),
            ("Transfer-Encoding: chunked|", false, None),
        ] {
            let got = judge(Method::HEAD, &format!("HTTP/1.1 200 OK|{fields}|")).unwrap();
            assert_eq!(got, (200, "Done".to_owned(), keep, length.map(str::to_owned)), "{fields}");
        }
        let old =
            |fields| judge(Method::GET, &format!("HTTP/1.0 200 OK|Content-Length: 1|{fields}|"));
        assert!(!old("").unwrap().2);
        assert!(old("Connection: Keep-Alive|").unwrap().2);
    }

    #[test]
    fn what_is_no_head_or_could_be_two_is_refused() {
        let table = [
            "HTTP/2.0 200 OK||",
            "HTTP/1.1 099 No||",
            "HTTP/1.1 20 OK||",
            "SSH-2.0-OpenSSH||",
            "|HTTP/1.1 200 OK|Content-Length: 0||",
            "|",
            "HTTP/1.1 200 OK|no colon||",
            "HTTP/1.1 200 OK|a b: c||",
            "HTTP/1.1 200 OK|a: b| folded||",
            "HTTP/1.1 200 OK|a: b\u{0}||",
            "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 6||",
            "HTTP/1.1 200 OK|Content-Length: 5, 5||",
            "HTTP/1.1 200 OK|Content-Length: +5||",
            "HTTP/1.1 200 OK|Content-Length: -5||",
            "HTTP/1.1 200 OK|Content-Length:||",
            "HTTP/1.1 200 OK|Content-Length: 99999999999999999999||",
            "HTTP/1.1 200 OK|Content-Length: 00000000000000000005||",
            "HTTP/1.0 200 OK|Transfer-Encoding: chunked||",
            "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||",
            "HTTP/1.1 200 OK|Transfer-Encoding: chunked, chunked||",
            "HTTP/1.1 200 OK|Transfer-Encoding: chunked,||",
            "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Transfer-Encoding: chunked||",
            "HTTP/1.1 200 OK|Transfer-Encoding: identity||",
            "HTTP/1.1 204 No Content|Transfer-Encoding: gzip||",
        ];
        for head in table {
            let got = judge(Method::GET, head);
            assert!(got.as_ref().is_err_and(|why| why != "not whole"), "{head}: {got:?}");
        }
        let many = format!("HTTP/1.1 200 OK|{}|", "a: b|".repeat(FIELDS + 1));
        assert!(judge(Method::GET, &many).is_err());
    }

    #[test]
    fn a_request_is_framed_by_what_is_known_and_not_by_what_it_says() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("host", "evil"), ("content-length", "7"), ("x", "1"), ("x", "2")] {
            fields.append(name, HeaderValue::from_static(value));
        }
        fields.append("transfer-encoding", HeaderValue::from_static("chunked"));
        let host = HeaderValue::from_static("a.test");
        let table = [
            (Framing::None, ""),
            (Framing::Length(5), "content-length: 5\r\n"),
            (Framing::Chunked, "transfer-encoding: chunked\r\n"),
        ];
        for (framing, last) in table {
            let head = write(&Method::PUT, "/?a", &host, &fields, framing);
            let expected =
                format!("PUT /?a HTTP/1.1\r\nhost: a.test\r\nx: 1\r\nx: 2\r\n{last}\r\n");
            assert_eq!(head, expected);
        }
    }
}
