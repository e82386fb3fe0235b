//! Bodies, taken out of their framing (RFC 9112 §6 and §7).
//!
//! Invariant: what was cut off never looks complete.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::fields::Section;
use super::{MAX_SIZE_DIGITS, Refusal, Rules, bad, length};
use crate::headers;

/// The rest of a body.
#[derive(Debug)]
pub enum Decoder {
    /// The bytes that are missing, one at least.
    Length(u64),
    /// Chunks and then trailers. Boxed: it is larger than the others, and few bodies have it.
    Chunked(Box<Chunks>),
    UntilClose,
    Done,
}

#[derive(Debug)]
pub enum Part {
    /// Never empty.
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Decoder {
    pub(super) fn length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    pub(super) fn chunked(rules: &'static Rules) -> Self {
        Self::Chunked(Box::new(Chunks::new(rules)))
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next part off the front of `input`. `None` if there is none, or none that is whole. The data of
    /// small chunks that are there together is one part. After an error nothing more of `input` may be read.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, Refusal> {
        let (part, is_done) = match self {
            Self::Length(left) => (take(left, input).map(Part::Data), *left == 0),
            Self::Chunked(chunks) => (chunks.next(input)?, chunks.is_done()),
            Self::UntilClose => {
                ((!input.is_empty()).then(|| Part::Data(input.split().freeze())), false)
            }
            Self::Done => (None, true),
        };
        if is_done {
            *self = Self::Done;
        }
        Ok(part)
    }

    /// Says that nothing more comes. False if that cuts the body short.
    pub fn end(&mut self) -> bool {
        if let Self::UntilClose = self {
            *self = Self::Done;
        }
        self.is_done()
    }
}

/// As much of `left` bytes as there is.
pub(super) fn take(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left = left.saturating_sub(here as u64);
    (here > 0).then(|| input.split_to(here).freeze())
}

/// A chunked body and its trailers (RFC 9112 §7.1).
#[derive(Debug)]
pub struct Chunks {
    rules: &'static Rules,
    state: State,
    /// The current chunk line, or the trailers.
    lines: Section,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

/// ```text
/// Size ──> Data ──> DataEnd ──> Size        Size ──0──> Trailers ──empty line──> Done
/// ```
#[derive(Debug)]
enum State {
    Size,
    /// The bytes that are missing of the chunk, at least one.
    Data(u64),
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
    Done,
}

impl Chunks {
    pub(super) fn new(rules: &'static Rules) -> Self {
        Self { rules, state: State::Size, lines: Section::default(), extensions: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// As [`super::Decoder::next`].
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, Refusal> {
        let mut merged = BytesMut::new();
        loop {
            match &mut self.state {
                State::Size => {
                    let Some(size) = self.size(input)? else { break };
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    let is_small = *left < SMALL && merged.len() < MERGED;
                    if !is_small && !merged.is_empty() {
                        break;
                    }
                    let Some(data) = take(left, input) else { break };
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    if !is_small {
                        return Ok(Some(Part::Data(data)));
                    }
                    merged.extend_from_slice(&data);
                }
                State::DataEnd => {
                    match &input[..] {
                        [b'\r', b'\n', ..] => input.advance(2),
                        [] | [b'\r'] => break,
                        _ => return Err(bad("chunk longer than its size")),
                    }
                    self.state = State::Size;
                }
                State::Trailers if !merged.is_empty() => break,
                State::Trailers => return Ok(self.trailers(input)?.map(Part::Trailers)),
                State::Done => break,
            }
        }
        Ok((!merged.is_empty()).then(|| Part::Data(merged.freeze())))
    }

    /// Takes off a `chunk-size [ chunk-ext ] CRLF`.
    fn size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, Refusal> {
        let too_long = bad("chunk line too long");
        // Never with a bare LF: a chunk's line says where the next one begins.
        let line = self.lines.line(input, false, self.rules.chunk_line, too_long)?;
        let Some(line) = line else { return Ok(None) };
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (digits, extensions) = line.split_at_checked(digits).unwrap_or((line, &[]));
        let size = length(digits, MAX_SIZE_DIGITS, 16).ok_or(bad("malformed chunk size"))?;
        let loose = self.rules.loose && matches!(extensions.trim_ascii_start(), [] | [b';', ..]);
        if !loose && !are_extensions(extensions) {
            return Err(bad("malformed chunk size or extension"));
        }
        self.extensions = self.extensions.saturating_add(extensions.len());
        if self.extensions > self.rules.extensions {
            return Err(bad("too many chunk extensions"));
        }
        self.lines.skip(input);
        Ok(Some(size))
    }

    /// Takes off the trailers, when they are whole. `None` before, or if there are none.
    fn trailers(&mut self, input: &mut BytesMut) -> Result<Option<HeaderMap>, Refusal> {
        let rules = self.rules;
        loop {
            let field = self.lines.field(input, rules.loose, &rules.trailers)?;
            let Some(field) = field else { return Ok(None) };
            let Some((name, _)) = field else { break };
            // Trailers are never merged into the head here. A later hop may merge them, and one of them could change
            // framing, routing, identity, or how the body is read, after those were decided.
            if !rules.loose && !headers::may_trail(name.as_str()) {
                return Err(bad("field that may not be a trailer"));
            }
        }
        self.state = State::Done;
        let fields = self.lines.end(input)?;
        Ok((!fields.is_empty()).then_some(fields))
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

/// What follows the token that `raw` begins with (RFC 9110 §5.6.2); `None` without one.
fn after_token(raw: &[u8]) -> Option<&[u8]> {
    let is_tchar = |b: &&u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let len = raw.iter().take_while(is_tchar).count();
    if len == 0 { None } else { raw.get(len..) }
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

/// Smaller chunks are copied into one buffer: a slice of the read buffer would keep all of that buffer alive.
pub(super) const SMALL: u64 = 4 * 1024;
/// One DATA frame of the default size (RFC 9113 §6.5.2).
pub(super) const MERGED: usize = 16 * 1024 - SMALL as usize;
