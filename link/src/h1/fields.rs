//! Lines, and the fields in them (RFC 9112 §2.2 and §5).

use std::mem::take;
use std::ops::Range;

use bytes::{Buf, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Refusal, bad, too_large};

/// The limits of a head or of trailers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// With the empty line at the end.
    pub(super) bytes: usize,
    pub(super) fields: usize,
    pub(super) too_large: Refusal,
}

/// The lines of a head or of trailers, as far as they were read. They stay in the input until the end.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Where the current line begins, and how much of it was searched for its end.
    at: usize,
    seen: usize,
    fields: Vec<(HeaderName, Range<usize>)>,
}

/// Name and value.
type Field<'f, 'a> = (&'f HeaderName, &'a [u8]);

impl Section {
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing of the current line has come.
    pub(super) fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// The next line of `raw`, without its end; `None` while that hasn't come.
    ///
    /// Longer than `most` bytes it is refused as `too_long`. Control bytes are searched for here only: a line, and so
    /// each part of it, has none but HTAB.
    pub(super) fn line<'a>(
        &mut self,
        raw: &'a [u8],
        bare_lf: bool,
        most: usize,
        too_long: Refusal,
    ) -> Result<Option<&'a [u8]>, Refusal> {
        let raw = raw.get(self.at..).unwrap_or_default();
        let fresh = raw.get(self.seen..).unwrap_or_default();
        let (line, rest) = raw.split_at_checked(self.seen + clean(fresh)).unwrap_or((raw, &[]));
        if line.len() > most {
            return Err(too_long);
        }
        let end = match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] if bare_lf => 1,
            [] | [b'\r'] => {
                self.seen = line.len();
                return Ok(None);
            }
            // RFC 9112 §2.2 lets a recipient take a bare LF for a line's end and a bare CR for a
            // blank. Recipients that don't would see another message.
            [b'\r' | b'\n', ..] => return Err(bad("bare CR or LF")),
            _ => return Err(bad("control byte in a line")),
        };
        self.at = self.at.saturating_add(line.len()).saturating_add(end);
        self.seen = 0;
        Ok(Some(line))
    }

    /// The next field (RFC 9112 §5), or `Some(None)` for the empty line at the end; `None` while neither is whole.
    pub(super) fn field<'f, 'a>(
        &'f mut self,
        raw: &'a [u8],
        bare_lf: bool,
        limits: &Limits,
    ) -> Result<Option<Option<Field<'f, 'a>>>, Refusal> {
        let begin = self.at;
        let left = limits.bytes.checked_sub(begin).and_then(|left| left.checked_sub(2));
        let left = left.ok_or(limits.too_large)?;
        let Some(line) = self.line(raw, bare_lf, left, limits.too_large)? else { return Ok(None) };
        match line {
            [] => return Ok(Some(None)),
            _ if self.fields.len() >= limits.fields => return Err(too_large("too many fields")),
            [b' ' | b'\t', ..] => {
                return Err(bad("folded field line, or a blank before a field name"));
            }
            _ => {}
        }
        let colon = line.iter().position(|b| *b == b':');
        let Some((name, [_, value @ ..])) = colon.and_then(|at| line.split_at_checked(at)) else {
            return Err(bad("field line without a colon"));
        };
        // A token (RFC 9110 §5.6.2): a blank before the colon ends here too.
        let name = HeaderName::from_bytes(name);
        let name = name.map_err(|_| bad("field name is not a token"))?;
        // Of the bytes that this trims only SP and HTAB, the OWS, get past `line`.
        let trimmed = value.trim_ascii_start();
        let from = begin.saturating_add(line.len()).saturating_sub(trimmed.len());
        let value = trimmed.trim_ascii_end();
        self.fields.push((name, from..from.saturating_add(value.len())));
        Ok(Some(self.fields.last().map(|(name, _)| (name, value))))
    }

    /// Takes the lines off the input. The values of the fields aren't copied.
    pub(super) fn end(&mut self, input: &mut BytesMut) -> Result<HeaderMap, Refusal> {
        let Self { at, fields, .. } = take(self);
        let lines = input.split_to(at.min(input.len())).freeze();
        let mut map = HeaderMap::with_capacity(fields.len());
        for (name, value) in fields {
            let value = lines.get(value).map(|value| lines.slice_ref(value)).unwrap_or_default();
            let value = HeaderValue::from_maybe_shared(value);
            map.append(name, value.map_err(|_| bad("malformed field value"))?);
        }
        Ok(map)
    }

    /// Drops the lines that were read.
    pub(super) fn skip(&mut self, input: &mut BytesMut) {
        input.advance(take(self).at.min(input.len()));
    }
}

/// How many bytes come before the first control byte that isn't HTAB.
fn clean(bytes: &[u8]) -> usize {
    let is_control = |b: &u8| b.is_ascii_control() && *b != b'\t';
    // No branch for each byte, so that the compiler compares many at once.
    let is_clean = |block: &&[u8; 16]| !block.iter().fold(false, |any, b| any | is_control(b));
    let clean = 16 * bytes.as_chunks().0.iter().take_while(is_clean).count();
    let rest = bytes.get(clean..).unwrap_or_default();
    clean + rest.iter().position(is_control).unwrap_or(rest.len())
}
