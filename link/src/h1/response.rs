//! Reads the head of a response, line by line (RFC 9112 §2 to §6).
//!
//! Invariant: a head that is accepted frames its body in exactly one way; what could be read in two ways is
//! refused, or ends the connection with its response.

use std::mem::replace;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::body::Decoder;
use super::fields::{Found, Lines};
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
    /// Bytes and fields that it may have.
    most: (usize, usize),
    lines: Lines,
    /// From the status line on.
    begun: Option<(StatusCode, bool)>,
    found: Found,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::within(LOOSE.head, LOOSE.fields)
    }
}

impl ResponseReader {
    /// For a head of so many bytes and fields at most.
    pub fn within(bytes: usize, fields: usize) -> Self {
        let most = (bytes, fields);
        Self { most, lines: Lines::default(), begun: None, found: Found::default() }
    }

    /// Takes the head of a response to a request of that method off the front of `input`; `None` while it isn't
    /// whole. Between two calls `input` may only grow at its end.
    ///
    /// # Errors
    /// It is malformed. Nothing more of `input` may be read.
    pub fn read(
        &mut self,
        input: &mut BytesMut,
        method: &Method,
    ) -> Result<Option<Response>, Refusal> {
        loop {
            let begin = self.lines.at();
            let left = self.most.0.checked_sub(begin).and_then(|left| left.checked_sub(2));
            let line = self.lines.next(input, LOOSE.loose, left, bad("its head is too long"))?;
            let Some(line) = line else { return Ok(None) };
            match (self.begun, line) {
                (None, line) => self.begun = Some(status_line(line)?),
                (Some(_), []) => break,
                (Some(_), _) if self.found.len() >= self.most.1 => {
                    return Err(bad("too many fields"));
                }
                (Some(_), line) => drop(self.found.add(line, begin)?),
            }
        }
        let next = Self::within(self.most.0, self.most.1);
        let Self { mut lines, begun, found, .. } = replace(self, next);
        let (status, http10) = begun.ok_or(bad("no status line"))?;
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = status;
        parts.version = if http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        parts.headers = found.into_map(&lines.split(input))?;
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

/// How the body is framed (RFC 9112 §6.3), and whether another reader would say the same. A length that
/// doesn't frame it is taken out: it would contradict the body.
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
            // What doesn't fit the tunnel isn't sent into it.
            let digits = Some(first.as_bytes()).filter(|digits| digits.len() <= LENGTH_DIGITS);
            let length = digits.and_then(|digits| length(digits, 10));
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
        // A server whose head promises a body may send that body, late: it would be read as the response to
        // the next request on the connection.
        return Ok((Decoder::Done, !chunked && length.unwrap_or(0) == 0));
    }
    match length {
        _ if chunked && http10 => Err(bad("a transfer coding of HTTP/1.0")),
        _ if chunked => Ok((Decoder::chunked(&LOOSE), clear)),
        Some(length) => Ok((Decoder::length(length), true)),
        None => Ok((Decoder::UntilClose, false)),
    }
}
