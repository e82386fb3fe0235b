//! HTTP/1.1, read and written (RFC 9112): one codec for both roles. Pure: no I/O and no clock.
//!
//! In:  a peer's bytes, in pieces of any size; or a message to send.
//! Out: heads as http's `Parts`, with the framing of the body and the persistence of the connection; bodies without
//! their framing; or why the connection must end. And the same in the other direction.
//!
//! Invariant: an accepted byte has one reading. Where two servers are known to read a request
//! differently it is refused, even if an RFC lets a recipient repair it: repairs are how requests
//! are smuggled.
//! Invariant: the verdict depends on the bytes only, not on how they were cut, and comes with the
//! first byte that settles it; each byte is looked at a constant number of times.

mod ask;
mod body;
mod fields;
#[cfg(test)]
mod oracle;
mod outgoing;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::io;

use http::StatusCode;
use http::header::{CONNECTION, HeaderMap};

use crate::headers::says;
use fields::Limits;

pub use ask::ask;
pub use body::{Decoder, Part};
pub use outgoing::{Framing, Outgoing, OutgoingError, write_request, write_response};
pub(crate) use request::port;
pub use request::{Head, Request, RequestReader, is_host};
pub use response::{Response, ResponseReader};

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
    head: Limits,
    /// Bytes of a line with a chunk's size.
    chunk_line: usize,
    /// Bytes of the chunk extensions of a body: they cost work and deliver nothing (CVE-2023-39326).
    extensions: usize,
    trailers: Limits,
}

/// For a visitor's request.
const STRICT: Rules = Rules {
    loose: false,
    // The bytes are nginx's default (4 buffers of 8 KiB): a visitor holds them before its request is known. A browser
    // sends about 20 fields.
    head: Limits { bytes: 32 << 10, fields: 100, too_large: too_large("header section too large") },
    // The longest known extension, a signature of the chunk, has 81 bytes.
    chunk_line: MAX_SIZE_DIGITS + 256,
    extensions: 8 << 10,
    trailers: Limits { bytes: 8 << 10, fields: 100, too_large: TRAILERS_TOO_LARGE },
};

/// For a response of a configured server: devices and old programs write such lines.
const LOOSE: Rules = Rules {
    loose: true,
    // More than the gateway takes of a backend.
    head: Limits { bytes: 256 << 10, fields: 200, too_large: bad("its head is too long") },
    chunk_line: 4 << 10,
    extensions: usize::MAX,
    trailers: Limits { bytes: 16 << 10, fields: 64, too_large: TRAILERS_TOO_LARGE },
};

/// Digits of 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

const fn refuse(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

const fn too_large(reason: &'static str) -> Refusal {
    refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
}

const TRAILERS_TOO_LARGE: Refusal = too_large("trailer section too large");

const fn bad(reason: &'static str) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, reason)
}

/// Whether the connection may serve another message after this one (RFC 9112 §9.3).
fn persists(fields: &HeaderMap, http10: bool) -> bool {
    !says(fields, CONNECTION, "close") && (!http10 || says(fields, CONNECTION, "keep-alive"))
}

/// A length in at most `most` digits of `radix`, and nothing but digits: no sign, prefix, separator or blank.
fn length(digits: &[u8], most: usize, radix: u32) -> Option<u64> {
    // `from_str_radix` alone would take a plus sign.
    let fits = digits.len() <= most && !digits.starts_with(b"+");
    let digits = str::from_utf8(digits).ok().filter(|_| fits)?;
    u64::from_str_radix(digits, radix).ok().filter(|length| *length <= MAX_LENGTH)
}

/// The longest body or chunk. Many programs hold a length in 63 bits and a sign; to one of those
/// a longer message would be another message.
const MAX_LENGTH: u64 = i64::MAX as u64;
