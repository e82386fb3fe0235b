//! Bodies, taken out of their framing (RFC 9112 §6 and §7).
//!
//! Invariant: what was cut off never looks complete.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::chunked::Chunks;
use super::{Refusal, Rules};

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
