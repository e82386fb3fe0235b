//! Bodies of responses, taken out of their framing (RFC 9112 §6 and §7.1). Pure.
//!
//! Invariant: what was cut off never looks complete.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use httparse::Status;

use super::{H1Error, head};

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes, one at least.
    Length(u64),
    /// Chunks and then trailers; at this point of one.
    Chunked(Chunk),
    /// What comes until the connection ends.
    UntilClose,
    /// Nothing.
    Done,
}

/// ```text
/// Size ──> Data ──> DataEnd ──> Size        Size ──0──> Trailers ──> (done)
/// ```
#[derive(Debug)]
pub(super) enum Chunk {
    Size,
    /// So many bytes are to come, one at least.
    Data(u64),
    /// The end of the line after a chunk.
    DataEnd,
    Trailers,
}

/// What there was.
#[derive(Debug)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Decoder {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// The next part in `input`. `None` if there is none, or none that is whole.
    ///
    /// # Errors
    /// The framing is broken.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, H1Error> {
        match self {
            Self::Length(left) => {
                let data = take(left, input);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(data.map(Part::Data))
            }
            Self::UntilClose => Ok((!input.is_empty()).then(|| Part::Data(input.split().freeze()))),
            Self::Chunked(_) => self.chunk(input),
            Self::Done => Ok(None),
        }
    }

    /// The data of small chunks that are there together is one part.
    fn chunk(&mut self, input: &mut BytesMut) -> Result<Option<Part>, H1Error> {
        let mut merged = BytesMut::new();
        while let Self::Chunked(at) = self {
            match at {
                Chunk::Size => {
                    let Some(size) = size(input)? else { break };
                    *at = if size == 0 { Chunk::Trailers } else { Chunk::Data(size) };
                }
                Chunk::Data(left) => {
                    let is_small = *left < SMALL && merged.len() < MERGED;
                    if !is_small && !merged.is_empty() {
                        break;
                    }
                    let Some(data) = take(left, input) else { break };
                    if *left == 0 {
                        *at = Chunk::DataEnd;
                    }
                    if !is_small {
                        return Ok(Some(Part::Data(data)));
                    }
                    merged.extend_from_slice(&data);
                }
                Chunk::DataEnd => {
                    match &input[..] {
                        [b'\r', b'\n', ..] => drop(input.split_to(2)),
                        [] | [b'\r'] => break,
                        _ => return Err(H1Error::Malformed("a chunk longer than its size")),
                    }
                    *at = Chunk::Size;
                }
                Chunk::Trailers if !merged.is_empty() => break,
                Chunk::Trailers => {
                    let Some((length, fields)) = head::trailers(input)? else {
                        return short(input, MAX_TRAILERS, "trailers without end");
                    };
                    drop(input.split_to(length));
                    *self = Self::Done;
                    return Ok((!fields.is_empty()).then_some(Part::Trailers(fields)));
                }
            }
        }
        Ok((!merged.is_empty()).then(|| Part::Data(merged.freeze())))
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// The body hasn't.
    pub(super) fn end(&mut self) -> Result<(), H1Error> {
        match self {
            Self::UntilClose | Self::Done => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(H1Error::Cut),
        }
    }
}

/// As much of `left` bytes as there is.
fn take(left: &mut u64, input: &mut BytesMut) -> Option<Bytes> {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left = left.saturating_sub(here as u64);
    (here > 0).then(|| input.split_to(here).freeze())
}

/// Takes a chunk's size off `input`, with its extensions, which say nothing.
fn size(input: &mut BytesMut) -> Result<Option<u64>, H1Error> {
    // httparse takes a line without a digit for a zero, and so a cut for an end.
    if input.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(H1Error::Malformed("a chunk without a size"));
    }
    match httparse::parse_chunk_size(input) {
        Ok(Status::Complete((length, size))) => {
            drop(input.split_to(length));
            Ok(Some(size))
        }
        Ok(Status::Partial) => short(input, MAX_SIZE, "a chunk's size without end"),
        Err(_) => Err(H1Error::Malformed("the size of a chunk")),
    }
}

/// More must come, unless there was enough already.
fn short<T>(input: &[u8], most: usize, why: &'static str) -> Result<Option<T>, H1Error> {
    if input.len() < most { Ok(None) } else { Err(H1Error::Malformed(why)) }
}

/// A chunk below this is copied behind those before it.
const SMALL: u64 = 4 * 1024;
/// One DATA frame of the default size (RFC 9113 §6.5.2).
const MERGED: usize = 16 * 1024 - SMALL as usize;
/// The line of a chunk's size, with its extensions.
const MAX_SIZE: usize = 4096;
/// The trailers together; checksums and signatures.
const MAX_TRAILERS: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, the trailers and whether it ended, in pieces of `size`.
    fn read(
        mut decoder: Decoder,
        bytes: &[u8],
        size: usize,
    ) -> Result<(String, usize, bool), H1Error> {
        let (mut data, mut trailers, mut input) = (Vec::new(), 0, BytesMut::new());
        for piece in bytes.chunks(size) {
            input.extend_from_slice(piece);
            while let Some(part) = decoder.next(&mut input)? {
                match part {
                    Part::Data(bytes) => data.extend_from_slice(&bytes),
                    Part::Trailers(fields) => trailers += fields.len(),
                }
            }
        }
        Ok((String::from_utf8(data).unwrap(), trailers, decoder.is_done()))
    }

    #[test]
    fn chunks_come_apart_however_they_are_cut() {
        let table: [(&[u8], &str, usize); 4] = [
            (b"0\r\n\r\n", "", 0),
            (b"5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            (b"5;a=b\r\nhello\r\n00a \r\n, you ther\r\n0\r\n\r\n", "hello, you ther", 0),
            (b"1\r\nx\r\n0\r\nChecksum: 1\r\nMore: 2\r\n\r\n", "x", 2),
        ];
        for (bytes, data, trailers) in table {
            for size in 1..=bytes.len() {
                let got = read(Decoder::chunked(), bytes, size).unwrap();
                assert_eq!(got, (data.to_owned(), trailers, true), "{size}");
            }
            for length in 0..bytes.len() {
                assert!(!read(Decoder::chunked(), &bytes[..length], 64).unwrap().2, "{length}");
            }
        }
    }

    /// E2
    #[test]
    fn small_chunks_that_are_there_together_are_one_part() {
        let large = format!("{:x}\r\n{}\r\n", SMALL, "y".repeat(SMALL as usize));
        let wire = format!("{}{large}1\r\nz\r\n0\r\n\r\n", "1\r\nx\r\n".repeat(30_000));
        let mut input = BytesMut::from(wire.as_str());
        let (mut decoder, mut lengths) = (Decoder::chunked(), Vec::new());
        while let Some(Part::Data(data)) = decoder.next(&mut input).unwrap() {
            lengths.push(data.len());
        }
        assert!(decoder.is_done());
        let rest = 30_000 - 2 * MERGED;
        assert_eq!(lengths, [MERGED, MERGED, rest, SMALL as usize, 1]);
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        let long = format!("1;{}", "x".repeat(MAX_SIZE));
        let endless = format!("0\r\nx: {}", "x".repeat(MAX_TRAILERS));
        let table = [
            "\r\n",
            "-1\r\n",
            "+1\r\nx",
            "zz\r\n",
            "0x1\r\n",
            ";a\r\n",
            "1\nx\n",
            "1\r\nxy",
            "1\r\nx\n",
            "11111111111111111\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
            &long,
            &endless,
        ];
        for bytes in table {
            for size in [1, 64, 65_536] {
                let refused = read(Decoder::chunked(), bytes.as_bytes(), size);
                assert!(refused.is_err(), "{bytes:?} in pieces of {size}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_length_takes_no_more_than_its_own() {
        let mut input = BytesMut::from("helloHTTP/1.1");
        let mut decoder = Decoder::Length(5);
        assert!(matches!(decoder.next(&mut input), Ok(Some(Part::Data(data))) if data == "hello"));
        assert!(decoder.is_done() && input == "HTTP/1.1");
        assert!(matches!(decoder.next(&mut input), Ok(None)));
    }

    #[test]
    fn only_a_body_until_close_may_end_with_the_connection() {
        for (mut decoder, fine) in [
            (Decoder::Length(1), false),
            (Decoder::chunked(), false),
            (Decoder::Chunked(Chunk::Trailers), false),
            (Decoder::UntilClose, true),
            (Decoder::Done, true),
        ] {
            assert_eq!(decoder.end().is_ok(), fine, "{decoder:?}");
        }
    }
}
