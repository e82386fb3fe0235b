//! Lines, and the fields in them (RFC 9112 §2.2 and §5).

use std::mem::take;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Refusal, bad};

/// The lines of a section, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Where the line under way begins, and how much of it was searched for its end.
    at: usize,
    seen: usize,
}

impl Lines {
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether nothing of the line under way has come.
    pub(super) fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// The next line of `raw`, without its end; `None` while that hasn't come.
    ///
    /// Longer than `max` bytes it is refused as `too_long`. Only here are control bytes found, so whatever
    /// is made of a line has none but HTAB.
    pub(super) fn next<'a>(
        &mut self,
        raw: &'a [u8],
        bare_lf: bool,
        max: Option<usize>,
        too_long: Refusal,
    ) -> Result<Option<&'a [u8]>, Refusal> {
        let max = max.ok_or(too_long)?;
        let raw = raw.get(self.at..).unwrap_or_default();
        let fresh = raw.get(self.seen..).unwrap_or_default();
        let (line, rest) = raw.split_at_checked(self.seen + clean(fresh)).unwrap_or((raw, &[]));
        if line.len() > max {
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

    /// Takes off the lines that were read.
    pub(super) fn split(&mut self, input: &mut BytesMut) -> Bytes {
        input.split_to(take(self).at.min(input.len())).freeze()
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

/// Fields that were read, of lines that are still in the input.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<(HeaderName, Range<usize>)>);

impl Found {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads a field line (RFC 9112 §5), which begins at `begin` in the section.
    pub(super) fn add<'a>(
        &mut self,
        line: &'a [u8],
        begin: usize,
    ) -> Result<(&HeaderName, &'a [u8]), Refusal> {
        if let [b' ' | b'\t', ..] = line {
            return Err(bad("folded field line, or a blank before a field name"));
        }
        let colon = line.iter().position(|b| *b == b':');
        let Some((name, [_, value @ ..])) = colon.and_then(|at| line.split_at_checked(at)) else {
            return Err(bad("field line without a colon"));
        };
        // A token (RFC 9110 §5.6.2): a blank before the colon ends here too.
        let name = HeaderName::from_bytes(name);
        let name = name.map_err(|_| bad("field name is not a token"))?;
        // Of what this trims only SP and HTAB, the OWS, get past `Lines`.
        let trimmed = value.trim_ascii_start();
        let from = begin.saturating_add(line.len()).saturating_sub(trimmed.len());
        let value = trimmed.trim_ascii_end();
        self.0.push((name, from..from.saturating_add(value.len())));
        let (name, _) = self.0.last().ok_or(bad("no field"))?;
        Ok((name, value))
    }

    /// The fields, whose lines are in `lines`. The values aren't copied.
    pub(super) fn into_map(self, lines: &Bytes) -> Result<HeaderMap, Refusal> {
        let mut fields = HeaderMap::with_capacity(self.0.len());
        for (name, value) in self.0 {
            let value = lines.get(value).map(|value| lines.slice_ref(value)).unwrap_or_default();
            let value = HeaderValue::from_maybe_shared(value);
            fields.append(name, value.map_err(|_| bad("malformed field value"))?);
        }
        Ok(fields)
    }
}
