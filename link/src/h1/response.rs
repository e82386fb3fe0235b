//! Reads the head of a response, line by line (RFC 9112 §2 to §6).
//!
//! Invariant: a head that is accepted frames its body in exactly one way; an ambiguous one is refused, or ends the
//! connection with its response.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::body::Decoder;
use super::fields::{Limits, Section};
use super::{LOOSE, Refusal, bad, length, persists};
use crate::limits::LENGTH_DIGITS;

/// A response, up to its body.
#[derive(Debug)]
pub struct Response {
    /// Without a length that doesn't frame the body.
    pub parts: Parts,
    pub body: Decoder,
    /// The connection may serve another request (RFC 9112 §9.3).
    pub keep_alive: bool,
}

#[derive(Debug)]
pub struct ResponseReader {
    limits: Limits,
    section: Section,
    /// From the status line on.
    begun: Option<(StatusCode, bool)>,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::within(LOOSE.head.bytes, LOOSE.head.fields)
    }
}

impl ResponseReader {
    /// For a head of so many bytes and fields at most.
    pub fn within(bytes: usize, fields: usize) -> Self {
        let limits = Limits { bytes, fields, ..LOOSE.head };
        Self { limits, section: Section::default(), begun: None }
    }

    /// Takes the head of a response to a request of that method off the front of `input`; `None` while it isn't
    /// whole. Between two calls `input` may only grow at its end.
    /// After an error nothing more of it may be read.
    pub fn read(
        &mut self,
        input: &mut BytesMut,
        method: &Method,
    ) -> Result<Option<Response>, Refusal> {
        let (loose, limits) = (LOOSE.loose, &self.limits);
        let (status, http10) = match self.begun {
            Some(begun) => begun,
            None => {
                let line = self.section.line(input, loose, limits.bytes, limits.too_large)?;
                let Some(line) = line else { return Ok(None) };
                *self.begun.insert(status_line(line)?)
            }
        };
        loop {
            let field = self.section.field(input, loose, limits)?;
            let Some(field) = field else { return Ok(None) };
            if field.is_none() {
                break;
            }
        }
        self.begun = None;
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = status;
        parts.version = if http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        parts.headers = self.section.end(input)?;
        let (body, clear) = framing(&mut parts.headers, status, method, http10)?;
        let keep_alive =
            clear && status != StatusCode::SWITCHING_PROTOCOLS && persists(&parts.headers, http10);
        Ok(Some(Response { parts, body, keep_alive }))
    }
}

/// RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`. The status, and whether it is HTTP/1.0. The
/// blank before an absent reason may be absent, too.
fn status_line(line: &[u8]) -> Result<(StatusCode, bool), Refusal> {
    let (version, rest) = line.split_at_checked(8).ok_or(bad("malformed status line"))?;
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(bad("it isn't HTTP/1.1")),
    };
    let code = match rest {
        [b' ', code @ ..] => code.split(|b| *b == b' ').next().unwrap_or_default(),
        _ => return Err(bad("malformed status line")),
    };
    let status = StatusCode::from_bytes(code).map_err(|_| bad("its status is none"))?;
    Ok((status, http10))
}

/// The framing of the body (RFC 9112 §6.3), and whether another reader would find the same. A length that
/// doesn't frame it is removed: it would contradict the body.
fn framing(
    fields: &mut HeaderMap,
    status: StatusCode,
    method: &Method,
    http10: bool,
) -> Result<(Decoder, bool), Refusal> {
    if *method == Method::CONNECT && status.is_success() {
        // RFC 9110 §9.3.6: whatever it says of a body.
        return Ok((Decoder::Done, false));
    }
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        // The client asks for no other (TE, RFC 9110 §10.1.4).
        _ => return Err(bad("a transfer coding that nobody asked for")),
    };
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let length = match lengths.next() {
        None => None,
        Some(first) if lengths.all(|other| other == first) => {
            // The tunnel's other end would refuse more digits.
            let length = length(first.as_bytes(), LENGTH_DIGITS, 10);
            Some(length.ok_or(bad("a length that is none"))?)
        }
        Some(_) => return Err(bad("two lengths")),
    };
    let clear = !chunked || length.is_none();
    let no_content = status == StatusCode::NO_CONTENT;
    if !clear || no_content || fields.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        fields.remove(CONTENT_LENGTH);
    }
    let not_modified = status == StatusCode::NOT_MODIFIED;
    if no_content || not_modified || status.is_informational() || *method == Method::HEAD {
        // A server that promises a body in the head may send it late: it would be read as the response to the next
        // request on the connection.
        return Ok((Decoder::Done, !chunked && length.unwrap_or(0) == 0));
    }
    match length {
        _ if chunked && http10 => Err(bad("a transfer coding of HTTP/1.0")),
        _ if chunked => Ok((Decoder::chunked(&LOOSE), clear)),
        Some(length) => Ok((Decoder::length(length), true)),
        None => Ok((Decoder::UntilClose, false)),
    }
}
