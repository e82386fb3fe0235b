//! Checks what a visitor sends over HTTP/1.1 before the HTTP library sees it (RFC 9112).
//!
//! In:  the visitor's bytes, in pieces of any size. Pure: no I/O and no clock.
//! Out: how many of them are sound, what message they are, or why the connection must end.
//!
//! Invariant: an approved byte has one reading. Where two servers are known to read a message
//! differently it is refused, even if an RFC lets a recipient repair it: repairs are how requests
//! are smuggled.
//! Invariant: the verdict depends on the bytes only, not on how they were cut, and comes with the
//! first byte that settles it; each byte is looked at a constant number of times.

mod chunked;
mod head;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use http::StatusCode;

pub use head::{BodyKind, Head, is_host};

/// The position in one visitor's byte stream.
#[derive(Debug, Default)]
pub struct Checker {
    state: State,
}

/// What is known of the bytes that [`Checker::next`] was shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Too few bytes to decide. None of them may be passed on yet; show them again with more.
    More,
    /// The first `len` bytes are one whole and sound head.
    Head {
        /// Its bytes, with an empty line before it, if there was one.
        len: usize,
        /// What it says about what follows.
        head: Head,
    },
    /// The first `len` bytes, at least one, are sound.
    Body {
        /// How many.
        len: usize,
        /// What they are.
        part: Part,
    },
    /// The message that began with the last head is whole. Uses up nothing; a head comes next.
    End,
    /// None of these bytes may be passed on, and no later ones. Every later answer is the same.
    Refuse(Refusal),
}

/// What bytes of a body are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Data of a body that has a length, the last chunk's line, or a trailer section's.
    Plain,
    /// Data of a chunk.
    Data,
    /// A line that says where a chunk begins or ends, and nothing else.
    Line,
}

/// Why a connection ends. The visitor is at fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// How to answer, if an answer can still be sent.
    pub status: StatusCode,
    /// One short sentence for the log and the error page; nothing of it comes from the visitor.
    pub reason: &'static str,
}

/// Where in the stream a [`Checker`] is, which says what a pause or an end there means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Between messages: to pause is idling, to end is a clean close.
    Between,
    /// Within a head: not all of it has come.
    Head,
    /// After a head and before [`Next::End`]: an end here cuts a message short.
    Body,
    /// After a refusal.
    Refused,
}

/// ```text
/// Head ──Next::Head──> Length | Chunked ──Next::End──> Head        any ──> Refused
/// ```
#[derive(Debug)]
enum State {
    Head(head::Reader),
    /// So many bytes of the body are to come; a message without a body has zero.
    Length(u64),
    Chunked(chunked::Reader),
    Refused(Refusal),
}

impl Default for State {
    fn default() -> Self {
        Self::Head(head::Reader::default())
    }
}

impl Checker {
    /// A checker for a connection that nothing has come from yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at all bytes that were not yet passed on.
    ///
    /// After [`Next::Head`] and [`Next::Body`] drop `len` bytes and call again, even with none left:
    /// only [`Next::More`] asks for more. Between two calls `raw` may only grow at its end.
    pub fn next(&mut self, raw: &[u8]) -> Next {
        self.advance(raw).unwrap_or_else(|refusal| {
            self.state = State::Refused(refusal);
            Next::Refuse(refusal)
        })
    }

    /// Where the next byte belongs.
    #[must_use]
    pub fn place(&self) -> Place {
        match &self.state {
            State::Head(reader) if reader.is_fresh() => Place::Between,
            State::Head(_) => Place::Head,
            State::Length(_) | State::Chunked(_) => Place::Body,
            State::Refused(_) => Place::Refused,
        }
    }

    /// Whether more of the message under way is to come.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        match &self.state {
            State::Head(_) | State::Refused(_) => false,
            State::Length(left) => *left > 0,
            State::Chunked(reader) => !reader.is_done(),
        }
    }

    fn advance(&mut self, raw: &[u8]) -> Result<Next, Refusal> {
        let next = match &mut self.state {
            State::Head(reader) => match reader.read(raw)? {
                Some((len, head)) => Next::Head { len, head },
                None => Next::More,
            },
            State::Length(0) => Next::End,
            State::Length(left) => match take(left, raw) {
                0 => Next::More,
                len => Next::Body { len, part: Part::Plain },
            },
            State::Chunked(reader) => reader.read(raw)?,
            State::Refused(refusal) => return Err(*refusal),
        };
        match &next {
            Next::Head { head, .. } => {
                self.state = match head.body {
                    BodyKind::None => State::Length(0),
                    BodyKind::Length(length) => State::Length(length),
                    BodyKind::Chunked => State::Chunked(chunked::Reader::default()),
                };
            }
            Next::End => self.state = State::default(),
            Next::More | Next::Body { .. } | Next::Refuse(_) => {}
        }
        Ok(next)
    }
}

/// Takes from `left` what `raw` has of it, and says how much that was.
fn take(left: &mut u64, raw: &[u8]) -> usize {
    let len = usize::try_from(*left).map_or(raw.len(), |left| left.min(raw.len()));
    *left = left.saturating_sub(len as u64);
    len
}

const fn refuse(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

const fn bad(reason: &'static str) -> Refusal {
    refuse(StatusCode::BAD_REQUEST, reason)
}

/// The line that `raw` begins with, without its CRLF; `None` while its end hasn't come.
///
/// `seen` is how much of it was searched before; it begins at 0 and is 0 again after each line.
/// Longer than `max` bytes it is refused as `too_long`. Only here are control bytes found, so
/// whatever is made of a line has none but HTAB.
fn line<'a>(
    raw: &'a [u8],
    seen: &mut usize,
    max: usize,
    too_long: Refusal,
) -> Result<Option<&'a [u8]>, Refusal> {
    let fresh = raw.get(*seen..).unwrap_or_default();
    let clean = fresh.iter().take_while(|b| !b.is_ascii_control() || **b == b'\t').count();
    let (line, rest) = raw.split_at_checked(seen.saturating_add(clean)).unwrap_or((raw, &[]));
    if line.len() > max {
        return Err(too_long);
    }
    match rest {
        [b'\r', b'\n', ..] => {
            *seen = 0;
            Ok(Some(line))
        }
        [] | [b'\r'] => {
            *seen = line.len();
            Ok(None)
        }
        // RFC 9112 §2.2 lets a recipient take a bare LF for a line's end and a bare CR for a
        // blank. Those who don't see another message.
        [b'\r' | b'\n', ..] => Err(bad("bare CR or LF")),
        _ => Err(bad("control byte in a line")),
    }
}

/// Splits a field line into name and value (RFC 9112 §5).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if let [b' ' | b'\t', ..] = line {
        return Err(bad("folded field line, or a blank before a field name"));
    }
    let mut halves = line.splitn(2, |b| *b == b':');
    let (Some(name), Some(value)) = (halves.next(), halves.next()) else {
        return Err(bad("field line without a colon"));
    };
    // A blank before the colon ends here too.
    if after_token(name) != Some(&[]) {
        return Err(bad("field name is not a token"));
    }
    // Of what this trims only SP and HTAB, the OWS, get past `line`.
    Ok((name, value.trim_ascii()))
}

/// What follows the token that `raw` begins with (RFC 9110 §5.6.2); `None` without one.
fn after_token(raw: &[u8]) -> Option<&[u8]> {
    let is_tchar = |b: &&u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let len = raw.iter().take_while(is_tchar).count();
    if len == 0 { None } else { raw.get(len..) }
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
