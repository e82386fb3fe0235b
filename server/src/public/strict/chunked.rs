//! Reads a chunked body and its trailers (RFC 9112 §7.1).
//!
//! Invariant: chunk lines and trailer lines are passed on only whole; data as it comes.

use http::{HeaderName, StatusCode};
use ptth_link::headers;

use super::head::{MAX_FIELDS, TOO_MANY_FIELDS};
use super::{Next, Part, Refusal, after_token, bad, field, length, line, refuse, take};

/// A chunked body as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
    /// How much of the line under way was searched for its end.
    seen: usize,
    /// Bytes of chunk extensions so far.
    extensions: usize,
    /// Bytes and fields of the trailer section so far.
    trailers: usize,
    fields: usize,
}

/// ```text
/// Size ──> Data ──> DataEnd ──> Size        Size ──0──> Trailers ──empty line──> Done
/// ```
#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Size,
    /// So many bytes of the chunk are to come, at least one.
    Data(u64),
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
    Done,
}

impl Reader {
    /// Whether the body is whole.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Judges what `raw` begins with. Never answers with a head.
    pub(super) fn read(&mut self, raw: &[u8]) -> Result<Next, Refusal> {
        let mut part = Part::Line;
        let len = match &mut self.state {
            State::Size => {
                let len = self.size(raw)?;
                if let State::Trailers = self.state {
                    part = Part::Plain;
                }
                len
            }
            State::Data(left) => {
                let len = take(left, raw);
                if *left == 0 {
                    self.state = State::DataEnd;
                }
                part = Part::Data;
                len
            }
            State::DataEnd => match raw {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    2
                }
                [] | [b'\r'] => 0,
                _ => return Err(bad("chunk longer than its size")),
            },
            State::Trailers => {
                part = Part::Plain;
                self.trailer(raw)?
            }
            State::Done => return Ok(Next::End),
        };
        Ok(if len == 0 { Next::More } else { Next::Body { len, part } })
    }

    /// The length of a `chunk-size [ chunk-ext ] CRLF`, 0 while it isn't whole.
    fn size(&mut self, raw: &[u8]) -> Result<usize, Refusal> {
        let max = MAX_SIZE_DIGITS + MAX_LINE_EXTENSIONS;
        let Some(line) = line(raw, &mut self.seen, max, bad("chunk line too long"))? else {
            return Ok(0);
        };
        let digits = line.iter().take_while(|b| **b != b';').count();
        let (digits, extensions) = line.split_at_checked(digits).unwrap_or((line, &[]));
        if digits.len() > MAX_SIZE_DIGITS {
            return Err(bad("malformed chunk size"));
        }
        let size = length(digits, 16).ok_or(bad("malformed chunk size"))?;
        if !are_extensions(extensions) {
            return Err(bad("malformed chunk extension"));
        }
        self.extensions = self.extensions.saturating_add(extensions.len());
        if self.extensions > MAX_EXTENSIONS {
            return Err(bad("too many chunk extensions"));
        }
        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
        Ok(line.len().saturating_add(2))
    }

    /// The length of a trailer line or of the line that ends the body, 0 while it isn't whole.
    fn trailer(&mut self, raw: &[u8]) -> Result<usize, Refusal> {
        let max = MAX_TRAILERS.checked_sub(self.trailers).and_then(|left| left.checked_sub(2));
        let max = max.ok_or(TRAILERS_TOO_LARGE)?;
        let Some(line) = line(raw, &mut self.seen, max, TRAILERS_TOO_LARGE)? else {
            return Ok(0);
        };
        let len = line.len().saturating_add(2);
        self.trailers = self.trailers.saturating_add(len);
        if line.is_empty() {
            self.state = State::Done;
            return Ok(len);
        }
        self.fields = self.fields.saturating_add(1);
        if self.fields > MAX_FIELDS {
            return Err(TOO_MANY_FIELDS);
        }
        let (name, _) = field(line)?;
        if !may_trail(name) {
            return Err(bad("field that may not be a trailer"));
        }
        Ok(len)
    }
}

/// RFC 9112 §7.1.1: `*( ";" token [ "=" ( token / quoted-string ) ] )`.
///
/// Blanks around `;` and `=` are bad whitespace that only a sloppy sender writes, and a blank
/// after the size is where readers of chunk lines disagree: refused.
fn are_extensions(mut raw: &[u8]) -> bool {
    while let [b';', extension @ ..] = raw {
        let after = match after_token(extension) {
            Some([b'=', b'"', quoted @ ..]) => after_quoted(quoted),
            Some([b'=', value @ ..]) => after_token(value),
            other => other,
        };
        let Some(after) = after else {
            return false;
        };
        raw = after;
    }
    raw.is_empty()
}

/// What follows a quoted-string (RFC 9110 §5.6.4) whose opening quote was read.
fn after_quoted(mut raw: &[u8]) -> Option<&[u8]> {
    loop {
        raw = match raw {
            [b'"', after @ ..] => return Some(after),
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

/// Whether a field is harmless after the body.
///
/// Trailers are never merged into the head here, but whoever does it further on would let one
/// change framing, routing, identity, or how the body is read, after all of those were decided.
fn may_trail(name: &[u8]) -> bool {
    HeaderName::from_bytes(name).is_ok_and(|name| headers::may_trail(name.as_str()))
}

/// What 64 bits take.
const MAX_SIZE_DIGITS: usize = 16;
/// Hardly anybody sends extensions; the longest known of, a signature of the chunk, has 81 bytes.
const MAX_LINE_EXTENSIONS: usize = 256;
/// All extensions of a body: they cost work and deliver nothing (CVE-2023-39326). hyper gives up
/// at 16 KiB, and must never be the first to.
const MAX_EXTENSIONS: usize = 8 << 10;
/// The trailer section, its last empty line too: checksums and signatures. hyper gives up at
/// 16 KiB unless told otherwise, and must never be the first to.
const MAX_TRAILERS: usize = 8 << 10;

const TRAILERS_TOO_LARGE: Refusal =
    refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "trailer section too large");
