//! DATA and FINAL_DATA capsules around the bytes of a TCP connection (draft-ietf-httpbis-connect-tcp §3,
//! RFC 9297 §3.2). Pure.
//!
//! Invariant: no payload is buffered, whatever length a capsule declares.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The head of a capsule with `length` bytes, fewer than 2³⁰: two numbers of four bytes (RFC 9000 §16).
pub(super) fn head(kind: u32, length: usize) -> [u8; HEAD] {
    let [kind, length] = [kind, length as u32].map(|number| u64::from(number | 0b10 << 30));
    (kind << 32 | length).to_be_bytes()
}

#[derive(Debug, Default)]
pub(super) struct Capsules {
    head: BytesMut,
    /// The type of the current capsule, and the number of missing bytes.
    open: Option<(u32, u64)>,
    /// All of FINAL_DATA came; without it, the connection was cut.
    pub(super) ended: bool,
}

impl Capsules {
    /// The next data of `bytes`, if there is any. Fails if data came after the end.
    pub(super) fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Bytes>, &'static str> {
        loop {
            let (kind, left) = match self.open.take() {
                Some(open) => open,
                None => match self.head(bytes) {
                    Some((DATA | FINAL_DATA, _)) if self.ended => {
                        return Err("data after the end");
                    }
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let payload = bytes.split_to(here);
            let left = left - here as u64;
            self.open = (left > 0).then_some((kind, left));
            self.ended |= kind == FINAL_DATA && left == 0;
            if matches!(kind, DATA | FINAL_DATA) && !payload.is_empty() {
                return Ok(Some(payload));
            }
            if left > 0 {
                return Ok(None);
            }
        }
    }

    fn head(&mut self, bytes: &mut Bytes) -> Option<(u32, u64)> {
        loop {
            let mut head = &self.head[..];
            if let Some(kind) = take_number(&mut head)
                && let Some(length) = take_number(&mut head)
            {
                self.head.clear();
                return Some((u32::try_from(kind).unwrap_or(UNKNOWN), length));
            }
            // Of 16 bytes at most, so one at a time costs nothing.
            self.head.put_u8(bytes.try_get_u8().ok()?);
        }
    }
}

/// Reads a number (RFC 9000 §16), if it is all there.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    let first = u64::from(first & 0b0011_1111);
    Some(number.iter().skip(1).fold(first, |number, byte| number << 8 | u64::from(*byte)))
}

pub(super) const DATA: u32 = 0x2028_d7f0;
pub(super) const FINAL_DATA: u32 = 0x2028_d7f1;
/// Stands for all other types.
const UNKNOWN: u32 = u32::MAX;
/// Bytes of a written head.
pub(super) const HEAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn capsule(kind: u32, payload: &[u8]) -> Vec<u8> {
        [&head(kind, payload.len())[..], payload].concat()
    }

    /// What is in `bytes` when they come in pieces of `size`: the data, and whether it ended.
    fn read(bytes: &[u8], size: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let (mut capsules, mut data) = (Capsules::default(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(bytes) = capsules.next(&mut piece)? {
                assert!(!bytes.is_empty());
                data.extend(bytes);
            }
            assert!(piece.is_empty());
        }
        Ok((data, capsules.ended))
    }

    #[test]
    fn capsules_come_apart_however_they_are_cut() {
        let unknown = capsule(0x17, &[9; 300]);
        let bytes = [
            capsule(DATA, b"one "),
            unknown.clone(),
            capsule(DATA, b""),
            capsule(0, b""),
            capsule(DATA, b"two "),
            capsule(FINAL_DATA, b"three"),
            unknown,
        ]
        .concat();
        for size in 1..=bytes.len() {
            assert_eq!(read(&bytes, size), Ok((b"one two three".to_vec(), true)), "{size}");
        }
        assert_eq!(read(&capsule(FINAL_DATA, b""), 1), Ok((Vec::new(), true)));
    }

    #[test]
    fn an_end_that_was_not_announced_is_none() {
        let whole = capsule(FINAL_DATA, b"data");
        for length in 0..whole.len() {
            assert!(!read(&whole[..length], 64).unwrap().1, "{length}");
        }
        assert_eq!(read(&capsule(DATA, b"data"), 64), Ok((b"data".to_vec(), false)));
    }

    #[test]
    fn data_after_the_end_is_refused() {
        for kind in [DATA, FINAL_DATA] {
            let bytes = [capsule(FINAL_DATA, b"a"), capsule(kind, b"")].concat();
            assert!(read(&bytes, 64).is_err());
        }
    }

    /// RFC 9000, appendix A.1.
    #[test]
    fn numbers_are_those_of_quic() {
        let table: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, number) in table {
            assert_eq!(take_number(&mut &bytes[..]), Some(number));
            assert_eq!(take_number(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(head(DATA, 3), [0xa0, 0x28, 0xd7, 0xf0, 0x80, 0, 0, 3]);
    }
}
