//! The frames that pass on an HTTP/2 connection, seen from outside (RFC 9113 §4.1): what h2 doesn't tell of them.

/// The head of a frame (RFC 9113 §4.1), and the code if it is RST_STREAM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Bytes of its payload.
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Of RST_STREAM alone.
    pub code: u32,
}

impl Head {
    /// Whether a frame of its type can't have its size (RFC 9113 §6).
    pub fn is_missized(&self) -> bool {
        match self.kind {
            PRIORITY => self.length != 5,
            RST_STREAM | WINDOW_UPDATE => self.length != 4,
            SETTINGS if self.flags & ACK != 0 => self.length != 0,
            SETTINGS => !self.length.is_multiple_of(6),
            PING => self.length != 8,
            GOAWAY => self.length < 8,
            _ => false,
        }
    }
}

/// Goes from frame to frame; the work doesn't grow with what they carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    head: [u8; RESET],
    have: usize,
    /// Bytes of the payload that are still to pass.
    left: usize,
    kind: u8,
    flags: u8,
}

impl Walk {
    /// One that begins after `bytes` that are no frame: the preface.
    pub fn after(bytes: usize) -> Self {
        Self { left: bytes, ..Self::default() }
    }

    /// Takes what there is of the payload that passes.
    pub fn payload<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let (passed, rest) = bytes.split_at(self.left.min(bytes.len()));
        self.left -= passed.len();
        *bytes = rest;
        passed
    }

    /// Whether the payload has passed.
    pub fn has_passed(&self) -> bool {
        self.left == 0
    }

    /// Takes bytes up to the end of the next head. `None` when none are left.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        self.payload(bytes);
        if self.have == 0
            && let Some((head, rest)) = bytes.split_first_chunk::<HEAD>()
            && head.get(KIND) != Some(&RST_STREAM)
        {
            // As it mostly is.
            *bytes = rest;
            let [a, b, c, kind, flags, s, t, u, v] = *head;
            return Some(self.found([a, b, c, kind, flags, s, t, u, v, 0, 0, 0, 0], HEAD));
        }
        loop {
            let (byte, rest) = bytes.split_first()?;
            *self.head.get_mut(self.have)? = *byte;
            (*bytes, self.have) = (rest, self.have + 1);
            let [a, b, c, kind, ..] = self.head;
            let is_reset = kind == RST_STREAM && [a, b, c] == [0, 0, 4];
            if self.have == RESET || self.have == HEAD && !is_reset {
                return Some(self.found(self.head, self.have));
            }
        }
    }

    /// A head, of which `have` bytes are gone by.
    fn found(&mut self, head: [u8; RESET], have: usize) -> Head {
        let [a, b, c, kind, flags, s, t, u, v, code @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.left = (length as usize).saturating_sub(have - HEAD);
        (self.have, self.kind, self.flags) = (0, kind, flags);
        let stream = u32::from_be_bytes([s, t, u, v]) & (u32::MAX >> 1);
        Head { length, kind, flags, stream, code: u32::from_be_bytes(code) }
    }

    /// Whether a field block has begun and isn't complete.
    pub fn in_block(&self) -> bool {
        let complete = self.left == 0 && self.flags & END_HEADERS != 0;
        matches!(self.kind, HEADERS | CONTINUATION) && !complete
    }
}

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Where its type is.
const KIND: usize = 3;
/// Bytes of RST_STREAM.
pub const RESET: usize = 13;
// The types of RFC 9113 §6, and two flags.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// However the bytes are cut.
    #[test]
    fn a_walk_finds_every_head_and_every_open_block() {
        let bytes = [
            frame(SETTINGS, 0, 0, &[7; 6]),
            frame(HEADERS, 0, 1, &[7; 5]),
            frame(CONTINUATION, END_HEADERS, 1, &[7; 3]),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            frame(0, 0, 5, &[]),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let (mut walk, mut found, mut at) = (Walk::default(), Vec::new(), 0);
            for mut piece in bytes.chunks(size) {
                at += piece.len();
                while let Some(head) = walk.next(&mut piece) {
                    found.push((head.kind, head.stream));
                }
                assert_eq!(walk.in_block(), (24..41).contains(&at), "{size}: at {at}");
            }
            assert_eq!(found, [(4, 0), (1, 1), (9, 1), (3, 3), (0, 5)], "{size}");
        }
    }
}
