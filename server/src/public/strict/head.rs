//! Reads the head of a request, line by line (RFC 9112 §2 to §6).
//!
//! Invariant: a head that is accepted frames its body in exactly one way.

use std::mem::replace;
use std::net::Ipv6Addr;

use http::{StatusCode, Uri};
use ptth_link::limits::LENGTH_DIGITS;

use super::{Refusal, after_token, bad, field, length, line, members, refuse};

/// What a sound head says about what follows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// How the body is framed.
    pub body: BodyKind,
    /// The visitor asks for another protocol than HTTP (RFC 9110 §7.8). What follows this message
    /// may be that protocol already, so nothing of it is sound before the answer (RFC 9931).
    pub upgrade: bool,
    /// The body comes only after a 100 (RFC 9110 §10.1.1). False where there is none to come.
    pub expect_continue: bool,
    /// HTTP/1.0 rather than 1.1.
    pub http10: bool,
}

/// How a body is framed (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyKind {
    /// There is none: neither Content-Length nor Transfer-Encoding.
    None,
    /// This many bytes, maybe zero.
    Length(u64),
    /// Chunks up to one of size zero, then trailers.
    Chunked,
}

/// A head as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Where the line under way begins, and how much of it was searched for its end.
    at: usize,
    seen: usize,
    /// An empty line came before the request line.
    skipped: bool,
    /// From the request line on.
    fields: Option<Fields>,
}

impl Reader {
    /// Whether nothing of a request line has come. A stray empty line is nothing.
    pub(super) fn is_fresh(&self) -> bool {
        self.fields.is_none() && self.seen == 0
    }

    /// The head that `raw` begins with and its length; `None` while it isn't whole.
    pub(super) fn read(&mut self, raw: &[u8]) -> Result<Option<(usize, Head)>, Refusal> {
        while let Some(line) = self.line(raw)? {
            self.at = self.at.saturating_add(line.len()).saturating_add(2);
            match (&mut self.fields, line) {
                // RFC 9112 §2.2: old clients send a CRLF after a body. One, and only there.
                (None, []) if !self.skipped => self.skipped = true,
                (None, []) => return Err(bad("empty lines before the request line")),
                (None, line) => self.fields = Some(request_line(line)?),
                (Some(fields), []) => return Ok(Some((self.at, fields.head()?))),
                (Some(fields), line) => fields.add(line)?,
            }
        }
        Ok(None)
    }

    fn line<'a>(&mut self, raw: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        let raw = raw.get(self.at..).unwrap_or_default();
        if self.fields.is_none() {
            let has_target = raw.iter().take(MAX_REQUEST_LINE).any(|byte| *byte == b' ');
            let too_long = if has_target { TARGET_TOO_LONG } else { METHOD_TOO_LONG };
            return line(raw, &mut self.seen, MAX_REQUEST_LINE, too_long);
        }
        let max = MAX_HEAD.checked_sub(self.at).and_then(|left| left.checked_sub(2));
        line(raw, &mut self.seen, max.ok_or(HEAD_TOO_LARGE)?, HEAD_TOO_LARGE)
    }
}

/// What the request line and the fields so far said.
#[derive(Debug)]
struct Fields {
    connect: bool,
    http10: bool,
    count: usize,
    host: bool,
    length: Option<u64>,
    coding: Option<Coding>,
    connection_upgrade: bool,
    upgrade: bool,
    expect: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.count = self.count.saturating_add(1);
        if self.count > MAX_FIELDS {
            return Err(TOO_MANY_FIELDS);
        }
        let (name, value) = field(line)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("host") {
            if replace(&mut self.host, true) {
                return Err(bad("more than one Host"));
            }
            port(value).ok_or(bad("malformed Host"))?;
        } else if is("content-length") {
            // One with more digits would only be refused by whoever reads it after us.
            let digits = Some(value).filter(|digits| digits.len() <= LENGTH_DIGITS);
            let length = digits.and_then(|digits| length(digits, 10));
            let length = length.ok_or(bad("malformed Content-Length"))?;
            // RFC 9112 §6.3 lets a recipient merge equal ones. Not everybody does.
            if self.length.replace(length).is_some() {
                return Err(bad("more than one Content-Length"));
            }
        } else if is("transfer-encoding") {
            let coding = coding(value).ok_or(bad("malformed Transfer-Encoding"))?;
            if self.coding.replace(coding).is_some() {
                return Err(bad("more than one Transfer-Encoding"));
            }
        } else if is("connection") {
            self.connection_upgrade |= members(value).any(|m| m.eq_ignore_ascii_case(b"upgrade"));
        } else if is("upgrade") {
            // h2c is never agreed to: what follows is HTTP/1.1 then, as if nobody had asked.
            self.upgrade |=
                members(value).any(|m| !m.is_empty() && !m.eq_ignore_ascii_case(b"h2c"));
        } else if is("expect") {
            // A second one, even an equal one, is an expectation other than 100-continue.
            if replace(&mut self.expect, true) || !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(UNKNOWN_EXPECTATION);
            }
        }
        Ok(())
    }

    /// The whole head; the rules that take more than one field to break.
    fn head(&self) -> Result<Head, Refusal> {
        if !self.host && !self.http10 {
            return Err(bad("no Host"));
        }
        let body = match (self.length, self.coding) {
            // RFC 9110 §10.1.1: who expects a 100 has a body, and this one has no end (RFC 9112 §6.3).
            (None, None) if self.expect && !self.http10 => return Err(UNFRAMED),
            (None, None) => BodyKind::None,
            // RFC 9110 §9.3.6: it has no meaning there.
            _ if self.connect => return Err(bad("CONNECT with a body")),
            (Some(length), None) => BodyKind::Length(length),
            (Some(_), Some(_)) => return Err(bad("Transfer-Encoding with Content-Length")),
            // RFC 9112 §6.1: who forwarded it didn't understand it.
            (None, Some(_)) if self.http10 => return Err(bad("Transfer-Encoding in HTTP/1.0")),
            (None, Some(Coding::Chunked)) => BodyKind::Chunked,
            (None, Some(Coding::Other)) => return Err(UNKNOWN_CODING),
        };
        let comes = !matches!(body, BodyKind::None | BodyKind::Length(0));
        Ok(Head {
            body,
            upgrade: self.upgrade && self.connection_upgrade && !self.http10,
            expect_continue: self.expect && comes && !self.http10,
            http10: self.http10,
        })
    }
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`.
fn request_line(line: &[u8]) -> Result<Fields, Refusal> {
    let mut words = line.splitn(3, |b| *b == b' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(bad("request line is not method, target and version"));
    };
    if after_token(method) != Some(&[]) {
        return Err(bad("method is not a token"));
    }
    // Before the target: HTTP/2's preface, `PRI * HTTP/2.0`, is another version first of all.
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(UNKNOWN_VERSION);
        }
        _ => return Err(bad("malformed HTTP version")),
    };
    if !is_target(method, target) {
        return Err(bad("malformed request target"));
    }
    Ok(Fields {
        connect: method == b"CONNECT",
        http10,
        count: 0,
        host: false,
        length: None,
        coding: None,
        connection_upgrade: false,
        upgrade: false,
        expect: false,
    })
}

/// RFC 9112 §3.2: the form that goes with the method.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    // http's parser cuts a fragment off silently and lets 8-bit bytes through.
    if !target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return false;
    }
    // The same parser reads it once more after us, so what it refuses, we refuse.
    let Ok(uri) = Uri::try_from(target) else {
        return false;
    };
    let port = uri.authority().map(|authority| port(authority.as_str().as_bytes()));
    match (method, uri.scheme_str(), port) {
        // RFC 9110 §9.3.6: never without a port.
        (b"CONNECT", scheme, port) => {
            scheme.is_none() && port.flatten().is_some_and(|port| !port.is_empty())
        }
        (b"OPTIONS", None, None) if target == b"*" => true,
        (_, None, None) => target.starts_with(b"/"),
        (_, Some("http" | "https"), Some(Some(_))) => true,
        _ => false,
    }
}

/// The port of `uri-host [ ":" port ]` (RFC 9110 §7.2), "" if it has none; `None` if malformed.
///
/// Requests are routed by this, so a host has one spelling: percent-encoding and sub-delims, which
/// RFC 3986 §3.2.2 allows and no name in use has, are refused, and so is a comma-separated list.
fn port(authority: &[u8]) -> Option<&str> {
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

#[derive(Clone, Copy, Debug)]
enum Coding {
    /// `chunked`, alone.
    Chunked,
    /// Well-formed, but not offered here.
    Other,
}

/// What a Transfer-Encoding says (RFC 9112 §6.1); `None` if it is malformed.
fn coding(value: &[u8]) -> Option<Coding> {
    // The whole registry (RFC 9112 §7.2). A name that isn't in it is no unknown coding but a
    // misspelling that somebody may still take for `chunked`.
    const REGISTERED: [&str; 5] = ["compress", "deflate", "gzip", "x-compress", "x-gzip"];
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let is_other =
        |coding: &[u8]| REGISTERED.iter().any(|name| coding.eq_ignore_ascii_case(name.as_bytes()));
    if is_chunked(value) {
        return Some(Coding::Chunked);
    }
    let mut codings = members(value);
    let last = codings.next_back()?;
    ((is_chunked(last) || is_other(last)) && codings.all(is_other)).then_some(Coding::Other)
}

/// RFC 9112 §3 recommends to take 8,000 bytes at least.
const MAX_REQUEST_LINE: usize = 8 << 10;
/// All of the head, its last empty line too: what nginx takes by default (4 buffers of 8 KiB).
/// A visitor holds this much of our memory before anybody knows what he wants.
const MAX_HEAD: usize = 32 << 10;
/// hyper's own limit; a browser sends about 20.
pub(super) const MAX_FIELDS: usize = 100;

const TARGET_TOO_LONG: Refusal = refuse(StatusCode::URI_TOO_LONG, "request line too long");
/// RFC 9112 §3.
const METHOD_TOO_LONG: Refusal = refuse(StatusCode::NOT_IMPLEMENTED, "method too long");
const UNFRAMED: Refusal = refuse(StatusCode::LENGTH_REQUIRED, "body without a length");
const HEAD_TOO_LARGE: Refusal =
    refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header section too large");
pub(super) const TOO_MANY_FIELDS: Refusal =
    refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields");
const UNKNOWN_EXPECTATION: Refusal =
    refuse(StatusCode::EXPECTATION_FAILED, "expectation other than 100-continue");
const UNKNOWN_CODING: Refusal =
    refuse(StatusCode::NOT_IMPLEMENTED, "transfer coding other than chunked");
const UNKNOWN_VERSION: Refusal =
    refuse(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP version other than 1.0 and 1.1");
