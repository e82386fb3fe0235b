//! Echoes a WebSocket frame by frame (RFC 6455 §5.2): what comes masked goes back unmasked.
//!
//! Frames of a message go back as they are, so no message is ever held whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use ptth_link::body::{Body, BodyError};

pub(super) struct Echo {
    body: Body,
    raw: BytesMut,
    payload: Option<Payload>,
    ended: bool,
}

/// What is still to come of the frame under way.
struct Payload {
    left: u64,
    mask: [u8; 4],
    closes: bool,
}

impl Echo {
    pub(super) fn new(body: Body) -> Self {
        Self { body, raw: BytesMut::new(), payload: None, ended: false }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let mut out = BytesMut::new();
            while !self.ended && self.step(&mut out) {}
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.raw.extend_from_slice(&data);
                    }
                }
                Some(Err(err)) => return Poll::Ready(Some(Err(err))),
                None => self.ended = true,
            }
        }
    }

    /// Turns what has come into what goes back. False when more must come first.
    fn step(&mut self, out: &mut BytesMut) -> bool {
        let Some(payload) = &mut self.payload else {
            let Some((head, payload, length)) = header(&self.raw) else { return false };
            self.raw.advance(length);
            out.extend_from_slice(&head);
            self.ended = payload.closes && payload.left == 0;
            self.payload = (payload.left > 0).then_some(payload);
            return true;
        };
        let here = self.raw.len().min(usize::try_from(payload.left).unwrap_or(usize::MAX));
        for (byte, mask) in self.raw.split_to(here).iter().zip(payload.mask.iter().cycle()) {
            out.put_u8(byte ^ mask);
        }
        payload.mask.rotate_left(here % 4);
        payload.left -= here as u64;
        if payload.left == 0 {
            self.ended = payload.closes;
            self.payload = None;
        }
        here > 0
    }
}

/// The header of a frame to send back, what follows it, and the length of the header that came.
fn header(raw: &[u8]) -> Option<(Vec<u8>, Payload, usize)> {
    let mut rest = raw;
    let (first, second) = (rest.try_get_u8().ok()?, rest.try_get_u8().ok()?);
    let left = match second & 0x7f {
        126 => rest.try_get_u16().ok()?.into(),
        127 => rest.try_get_u64().ok()?,
        short => short.into(),
    };
    let answer = if first & 0x0f == PING { (first & 0xf0) | PONG } else { first };
    let mut head = vec![answer, second & 0x7f];
    head.extend_from_slice(raw.get(2..raw.len() - rest.len())?);
    let mask = if second & 0x80 != 0 { rest.try_get_u32().ok()?.to_be_bytes() } else { [0; 4] };
    let payload = Payload { left, mask, closes: first & 0x0f == CLOSE };
    Some((head, payload, raw.len() - rest.len()))
}

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `raw` in pieces of `size`.
    fn echo(raw: &[u8], size: usize) -> Vec<u8> {
        let mut echo = Echo::new(Body::empty());
        let mut out = BytesMut::new();
        for piece in raw.chunks(size) {
            echo.raw.extend_from_slice(piece);
            while !echo.ended && echo.step(&mut out) {}
        }
        out.to_vec()
    }

    #[test]
    fn frames_come_back_unmasked_however_they_are_cut() {
        let mut raw = vec![0x81, 0x85, 1, 2, 3, 4];
        raw.extend(b"hello".iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m));
        raw.extend([0x89, 0x80, 9, 9, 9, 9]);
        raw.extend([0x82, 0xfe, 0x01, 0x00, 0, 0, 0, 0]);
        raw.extend([7; 256]);
        raw.extend([0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]);
        let mut expected = b"\x81\x05hello\x8a\x00\x82\x7e\x01\x00".to_vec();
        expected.extend([7; 256]);
        expected.extend([0x88, 0x02, 3, 0xe8]);
        for size in 1..raw.len() {
            assert_eq!(echo(&raw, size), expected, "in pieces of {size}");
        }
    }
}
