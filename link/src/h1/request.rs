//! Reads the head of a request, line by line (RFC 9112 §2 to §6).
//!
//! Invariant: a head that is accepted frames its body in exactly one way.

use std::mem::{replace, take};
use std::net::Ipv6Addr;

use bytes::BytesMut;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};

use super::body::Decoder;
use super::fields::Section;
use super::{Refusal, STRICT, bad, length, persists, refuse};
use crate::headers::{members, says};
use crate::limits::LENGTH_DIGITS;

/// A request, up to its body.
#[derive(Debug)]
pub struct Request {
    /// Boxed, since it is moved often.
    pub parts: Box<Parts>,
    pub head: Head,
    pub body: Decoder,
}

/// What a valid head says of its message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// Bytes of the body, where they are known (RFC 9112 §6.3). `None`: it comes in chunks.
    pub length: Option<u64>,
    /// The sender asks for another protocol than HTTP (RFC 9110 §7.8). What follows this message
    /// may be that protocol already, so nothing of it is sound before the answer (RFC 9931).
    pub upgrade: bool,
    /// The body comes only after a 100 (RFC 9110 §10.1.1). False where there is none to come.
    pub expect_continue: bool,
    pub http10: bool,
    /// The connection may serve another request (RFC 9112 §9.3).
    pub keep_alive: bool,
}

#[derive(Debug, Default)]
pub struct RequestReader {
    section: Section,
    /// An empty line came before the request line.
    skipped: bool,
    /// From the request line on.
    begun: Option<Box<Begun>>,
}

impl RequestReader {
    /// Whether nothing of a request line has come. A stray empty line is nothing.
    pub fn is_fresh(&self) -> bool {
        self.begun.is_none() && self.section.is_fresh()
    }

    /// Takes a head off the front of `input`; `None` while it isn't whole. Between two calls `input` may only
    /// grow at its end.
    /// After an error nothing more of it may be read.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Request>, Refusal> {
        while self.begun.is_none() {
            let Some(line) = self.first_line(input)? else { return Ok(None) };
            match line {
                // RFC 9112 §2.2: old clients send a CRLF after a body. One, and only there.
                [] if !replace(&mut self.skipped, true) => {}
                [] => return Err(bad("empty lines before the request line")),
                line => self.begun = Some(Box::new(request_line(line)?)),
            }
        }
        let begun = self.begun.as_mut().ok_or(bad("no request line"))?;
        loop {
            let field = self.section.field(input, STRICT.loose, &STRICT.head)?;
            let Some(field) = field else { return Ok(None) };
            let Some((name, value)) = field else { break };
            begun.add(name, value)?;
        }
        let request = take(begun).end(self.section.end(input)?)?;
        *self = Self::default();
        Ok(Some(request))
    }

    fn first_line<'a>(&mut self, raw: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        let line = raw.get(self.section.at()..).unwrap_or_default();
        let has_target = || line.iter().take(MAX_REQUEST_LINE).any(|byte| *byte == b' ');
        // RFC 9112 §3.
        let too_long = match line.len() > MAX_REQUEST_LINE && !has_target() {
            true => refuse(StatusCode::NOT_IMPLEMENTED, "method too long"),
            false => refuse(StatusCode::URI_TOO_LONG, "request line too long"),
        };
        self.section.line(raw, STRICT.loose, MAX_REQUEST_LINE, too_long)
    }
}

/// The request line and the fields so far.
#[derive(Debug, Default)]
struct Begun {
    method: Method,
    target: Uri,
    http10: bool,
    host: bool,
    length: Option<u64>,
    /// True: `chunked`; false: others.
    coding: Option<bool>,
    expect: bool,
}

impl Begun {
    fn add(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Refusal> {
        if *name == HOST {
            if replace(&mut self.host, true) {
                return Err(bad("more than one Host"));
            }
            port(value).ok_or(bad("malformed Host"))?;
        } else if *name == CONTENT_LENGTH {
            // The next hop would refuse one with more digits.
            let length = length(value, LENGTH_DIGITS, 10).ok_or(bad("malformed Content-Length"))?;
            // RFC 9112 §6.3 lets a recipient merge equal ones; not all do.
            if self.length.replace(length).is_some() {
                return Err(bad("more than one Content-Length"));
            }
        } else if *name == TRANSFER_ENCODING {
            let coding = coding(value).ok_or(bad("malformed Transfer-Encoding"))?;
            if self.coding.replace(coding).is_some() {
                return Err(bad("more than one Transfer-Encoding"));
            }
        } else if *name == EXPECT {
            // A second one, even an equal one, is an expectation other than 100-continue.
            if replace(&mut self.expect, true) || !value.eq_ignore_ascii_case(b"100-continue") {
                let why = "expectation other than 100-continue";
                return Err(refuse(StatusCode::EXPECTATION_FAILED, why));
            }
        }
        Ok(())
    }

    /// The whole head; the rules that take more than one field to break.
    fn end(self, fields: HeaderMap) -> Result<Request, Refusal> {
        if !self.host && !self.http10 {
            return Err(bad("no Host"));
        }
        let length = match (self.length, self.coding) {
            // RFC 9110 §10.1.1: a request that expects a 100 has a body, and this one has no end (RFC 9112 §6.3).
            (None, None) if self.expect && !self.http10 => {
                return Err(refuse(StatusCode::LENGTH_REQUIRED, "body without a length"));
            }
            (None, None) => Some(0),
            // RFC 9110 §9.3.6: it has no meaning there.
            _ if self.method == Method::CONNECT => return Err(bad("CONNECT with a body")),
            (Some(length), None) => Some(length),
            (Some(_), Some(_)) => return Err(bad("Transfer-Encoding with Content-Length")),
            // RFC 9112 §6.1: a proxy that forwarded it didn't understand it.
            (None, Some(_)) if self.http10 => return Err(bad("Transfer-Encoding in HTTP/1.0")),
            (None, Some(true)) => None,
            (None, Some(false)) => {
                let why = "transfer coding other than chunked";
                return Err(refuse(StatusCode::NOT_IMPLEMENTED, why));
            }
        };
        let unframed = self.length.is_none() && self.coding.is_none();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method;
        parts.uri = self.target;
        parts.version = if self.http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        parts.headers = fields;
        let head = Head {
            length,
            // An upgrade after a body would have to wait for it; no known client asks for that.
            upgrade: unframed && !self.http10 && asks_upgrade(&parts.headers),
            expect_continue: self.expect && length != Some(0) && !self.http10,
            http10: self.http10,
            keep_alive: persists(&parts.headers, self.http10),
        };
        let body = length.map_or_else(|| Decoder::chunked(&STRICT), Decoder::length);
        Ok(Request { parts: Box::new(parts), head, body })
    }
}

/// Never to h2c, which isn't agreed to: HTTP/1.1 follows, as without the field.
fn asks_upgrade(fields: &HeaderMap) -> bool {
    members(fields, UPGRADE).any(|it| !it.is_empty() && !it.eq_ignore_ascii_case(b"h2c"))
        && says(fields, CONNECTION, "upgrade")
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`.
fn request_line(line: &[u8]) -> Result<Begun, Refusal> {
    let mut words = line.splitn(3, |b| *b == b' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("request line is not method, target and version"));
    };
    let method = Method::from_bytes(method).map_err(|_| bad("method is not a token"))?;
    // Before the target: HTTP/2's preface, `PRI * HTTP/2.0`, is another version first of all.
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            let why = "HTTP version other than 1.0 and 1.1";
            return Err(refuse(StatusCode::HTTP_VERSION_NOT_SUPPORTED, why));
        }
        _ => return Err(bad("malformed HTTP version")),
    };
    Ok(Begun {
        target: uri(&method, target).ok_or(bad("malformed request target"))?,
        method,
        http10,
        ..Begun::default()
    })
}

/// RFC 9112 §3.2: the form that goes with the method.
fn uri(method: &Method, target: &[u8]) -> Option<Uri> {
    // http's parser cuts a fragment off silently and lets 8-bit bytes through.
    if !target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return None;
    }
    let uri = Uri::try_from(target).ok()?;
    let port = uri.authority().map(|authority| port(authority.as_str().as_bytes()));
    let fits = match (uri.scheme_str(), port) {
        // RFC 9110 §9.3.6: never without a port.
        (scheme, port) if *method == Method::CONNECT => {
            scheme.is_none() && port.flatten().is_some_and(|port| !port.is_empty())
        }
        (None, None) => target.starts_with(b"/") || *method == Method::OPTIONS && target == b"*",
        (Some("http" | "https"), Some(Some(_))) => true,
        _ => false,
    };
    fits.then_some(uri)
}

/// The port of `uri-host [ ":" port ]` (RFC 9110 §7.2), "" if it has none; `None` if malformed.
///
/// Requests are routed by this, so a host has one spelling: percent-encoding and sub-delims, which
/// RFC 3986 §3.2.2 allows and no name in use has, are refused, and so is a comma-separated list.
pub(crate) fn port(authority: &[u8]) -> Option<&str> {
    let authority = str::from_utf8(authority).ok()?;
    let rest = if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        rest
    } else {
        // An IPv4 address is a name like others here.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let rest = authority.trim_start_matches(is_name);
        if rest.len() == authority.len() {
            return None;
        }
        rest
    };
    if rest.is_empty() {
        return Some("");
    }
    let port = rest.strip_prefix(':')?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    (digits && (port.is_empty() || port.parse::<u16>().is_ok())).then_some(port)
}

/// Whether `authority` is a host that requests can be routed by, with a port or without one.
pub fn is_host(authority: &[u8]) -> bool {
    port(authority).is_some()
}

/// Whether a Transfer-Encoding is `chunked` alone (RFC 9112 §6.1), and not another well-formed one; `None` if it is
/// malformed.
fn coding(value: &[u8]) -> Option<bool> {
    // The whole registry (RFC 9112 §7.2). A name that isn't in it is a misspelling that another server may still
    // take for `chunked`.
    const REGISTERED: [&str; 5] = ["compress", "deflate", "gzip", "x-compress", "x-gzip"];
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let is_other =
        |coding: &[u8]| REGISTERED.iter().any(|name| coding.eq_ignore_ascii_case(name.as_bytes()));
    if is_chunked(value) {
        return Some(true);
    }
    let mut codings = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let last = codings.next_back()?;
    ((is_chunked(last) || is_other(last)) && codings.all(is_other)).then_some(false)
}

/// RFC 9112 §3 recommends to take 8,000 bytes at least.
const MAX_REQUEST_LINE: usize = 8 << 10;
