//! HTTP/1.1, read and written (RFC 9112): one codec for both roles. Pure: no I/O and no clock.
//!
//! In:  a peer's bytes, in pieces of any size; or a message to send.
//! Out: heads as http's `Parts`, with what they say of the body and of the connection; bodies without
//! their framing; or why the connection must end. And the same in the other direction.
//!
//! Invariant: an accepted byte has one reading. Where two servers are known to read a request
//! differently it is refused, even if an RFC lets a recipient repair it: repairs are how requests
//! are smuggled.
//! Invariant: the verdict depends on the bytes only, not on how they were cut, and comes with the
//! first byte that settles it; each byte is looked at a constant number of times.

mod ask;
mod body;
mod chunked;
mod fields;
#[cfg(test)]
mod oracle;
mod outgoing;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod upgraded;

use std::io;

use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, HeaderName};

pub use ask::ask;
pub use body::{Decoder, Part};
pub use outgoing::{Framing, Outgoing, OutgoingError, write_request, write_response};
pub use request::{Head, Request, RequestReader, is_host};
pub use response::{Response, ResponseReader};
pub use upgraded::{Upgraded, upgraded};

/// Why a message is refused. Its sender is at fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// How to answer a request, if an answer can still be sent.
    pub status: StatusCode,
    /// One short sentence for the log and the error page; nothing of it comes from the sender.
    pub reason: &'static str,
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::InvalidData, refusal.reason)
    }
}

/// Tolerance and limits of a parser.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// A line may end with a bare LF (RFC 9112 §2.2), though never in the framing of chunks. A chunk's size may be
    /// followed by blanks, and by malformed extensions. Trailers may have any name: the client takes out those that
    /// may not be one.
    loose: bool,
    /// Bytes of a head, its last empty line too.
    head: usize,
    fields: usize,
    /// Bytes of a line with a chunk's size.
    chunk_line: usize,
    /// Bytes of the chunk extensions of a body: they cost work and deliver nothing (CVE-2023-39326).
    extensions: usize,
    /// Bytes of a trailer section, its last empty line too: checksums and signatures.
    trailers: usize,
    trailer_fields: usize,
}

/// For a visitor's request.
const STRICT: Rules = Rules {
    loose: false,
    // What nginx takes by default (4 buffers of 8 KiB). A visitor holds this much memory before its request is known.
    head: 32 << 10,
    // A browser sends about 20.
    fields: 100,
    // The longest known extension, a signature of the chunk, has 81 bytes.
    chunk_line: MAX_SIZE_DIGITS + 256,
    extensions: 8 << 10,
    trailers: 8 << 10,
    trailer_fields: 100,
};

/// For a response of a configured server: devices and old programs write such lines.
const LOOSE: Rules = Rules {
    loose: true,
    // More than the gateway takes of a backend.
    head: 256 << 10,
    fields: 200,
    chunk_line: 4 << 10,
    extensions: usize::MAX,
    trailers: 16 << 10,
    trailer_fields: 64,
};

/// Digits of 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

const fn refuse(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

const TOO_MANY_FIELDS: Refusal =
    refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields");

const fn bad(reason: &'static str) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, reason)
}

/// Whether a list-valued field has that member, in whatever case.
pub fn says(fields: &HeaderMap, name: HeaderName, member: &str) -> bool {
    let mut members = fields.get_all(name).into_iter().flat_map(|it| members(it.as_bytes()));
    members.any(|it| it.eq_ignore_ascii_case(member.as_bytes()))
}

/// Whether the connection may serve another message after this one (RFC 9112 §9.3).
fn persists(fields: &HeaderMap, http10: bool) -> bool {
    !says(fields, CONNECTION, "close") && (!http10 || says(fields, CONNECTION, "keep-alive"))
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), empty ones too.
fn members(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// A length in digits of `radix`, and nothing but digits: no sign, prefix, separator or blank.
fn length(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let length = digits.iter().try_fold(0_u64, |length, b| {
        let digit = char::from(*b).to_digit(radix)?;
        length.checked_mul(radix.into())?.checked_add(digit.into())
    })?;
    (length <= MAX_LENGTH).then_some(length)
}

/// The longest body or chunk. Many programs hold a length in 63 bits and a sign; to one of those
/// a longer message would be another message.
const MAX_LENGTH: u64 = i64::MAX as u64;
