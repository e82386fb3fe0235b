//! The frames that pass on a visitor's connection, and what h2 doesn't tell of them.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use ptth_link::deadline::Deadline;
use ptth_link::h2::cork::Watch;
use ptth_link::h2::frames::{
    ACK, CONTINUATION, END_HEADERS, GOAWAY, HEADERS, RESET, RST_STREAM, SETTINGS, Walk,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::abuse::Abuse;

/// Watches the frames between h2 and the socket.
///
/// A read fails when a field block takes longer than [`BLOCK`], or when too many others of the process are unfinished:
/// h2 holds what it has decoded of one. RST_STREAM begins a write, and so a TLS record,
/// of its own: curl before 8 loses a response whose end it reads together with the reset that follows (RFC 9113
/// §8.1), and it waits for ever, busily, when the reset comes later. The resets of streams that the visitor
/// opened after it had acknowledged our SETTINGS are counted in its [`Abuse`]. And GOAWAY says FRAME_SIZE_ERROR
/// for a frame whose size is wrong (RFC 9113 §4.2), where h2 says PROTOCOL_ERROR.
#[derive(Debug)]
pub(super) struct Frames {
    abuse: Arc<Abuse>,
    came: Walk,
    went: Walk,
    block: Deadline,
    /// The permits of connections in the middle of a field block, and ours while this one is.
    places: &'static Semaphore,
    unfinished: Option<SemaphorePermit<'static>>,
    acknowledged: bool,
    /// The last stream that was opened without knowing our SETTINGS (RFC 9113 §5.1.2).
    eager: u32,
    /// A frame came whose size is wrong.
    missized: bool,
}

impl Frames {
    /// `places`: for heads that go on in another frame, of the process.
    pub(super) fn new(abuse: Arc<Abuse>, places: &'static Semaphore) -> Self {
        Self {
            places,
            unfinished: None,
            abuse,
            came: Walk::after(PREFACE),
            went: Walk::default(),
            block: Deadline::default(),
            acknowledged: false,
            eager: 0,
            missized: false,
        }
    }
}

impl Watch for Frames {
    fn came(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while let Some(head) = self.came.next(&mut rest) {
            self.missized |= head.is_missized();
            match head.kind {
                HEADERS | CONTINUATION if head.flags & END_HEADERS != 0 => self.unfinished = None,
                HEADERS | CONTINUATION if self.unfinished.is_none() => {
                    let place = self.places.try_acquire();
                    self.unfinished = Some(place.map_err(|_| io::ErrorKind::OutOfMemory)?);
                }
                SETTINGS if head.flags & ACK != 0 => self.acknowledged = true,
                _ => {}
            }
            if head.kind == HEADERS {
                self.block.clear();
                if !self.acknowledged {
                    self.eager = self.eager.max(head.stream);
                }
            }
        }
        if !self.came.in_block() {
            self.block.clear();
        } else if self.block.poll_after(cx, BLOCK).is_ready() && bytes.is_empty() {
            // What came just now would have been handed out first.
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Ends before an RST_STREAM that doesn't begin it, and with the code of a GOAWAY that is to have another one.
    fn going<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let (mut walk, mut rest) = (self.went, bytes);
        while let Some(head) = walk.next(&mut rest) {
            let passed = bytes.len() - rest.len();
            let part = |end| bytes.get(..end).unwrap_or(bytes);
            if head.kind == RST_STREAM && passed > RESET {
                return Cow::Borrowed(part(passed - RESET));
            }
            let code = rest.get(LAST_STREAM..CODE_END);
            if head.kind == GOAWAY && self.missized && code == Some(&PROTOCOL_ERROR) {
                return Cow::Owned([part(passed + LAST_STREAM), &FRAME_SIZE_ERROR].concat());
            }
        }
        Cow::Borrowed(bytes)
    }

    fn went(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.went.next(&mut bytes) {
            let ours = matches!(head.code, NO_ERROR | INTERNAL_ERROR | CANCEL);
            if head.kind == RST_STREAM && !ours && head.stream > self.eager {
                self.abuse.provoked();
            }
        }
    }
}

/// Heads of the process that go on in another frame, at a time: browsers' hardly ever do, and h2 may hold 700 KB
/// of one, of the shortest fields that there are, each with its place in a map.
pub(super) static UNFINISHED: Semaphore = Semaphore::const_new(128);
/// From the first byte of a head to its last, as over HTTP/1.1. Nothing else of the connection passes meanwhile.
const BLOCK: Duration = Duration::from_secs(10);
/// Bytes of what a visitor sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// What GOAWAY says before its code, and where that ends.
const LAST_STREAM: usize = 4;
const CODE_END: usize = 8;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
const FRAME_SIZE_ERROR: [u8; 4] = [0, 0, 0, 6];
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;

#[cfg(test)]
mod tests {
    use ptth_link::h2::cork::cork;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// What keeps coming doesn't prolong it, another head does.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_has_ten_seconds() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut frames, _driver) = cork(near, Frames::new(Arc::default(), &UNFINISHED));
        let begun = Instant::now();
        let drip = async {
            far.write_all(&[0; PREFACE]).await.unwrap();
            for kind in std::iter::once(HEADERS).chain([CONTINUATION; 8]) {
                far.write_all(&frame(kind, 0, 1, b"x")).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
            // In one piece, so that the connection is never seen between the two.
            let end = frame(CONTINUATION, END_HEADERS, 1, b"x");
            far.write_all(&[end, frame(HEADERS, 0, 3, b"x")].concat()).await.unwrap();
            for _ in 0..30 {
                sleep(Duration::from_secs(1)).await;
                far.write_all(&frame(CONTINUATION, 0, 3, b"x")).await.unwrap();
            }
        };
        let mut read = Vec::new();
        let err = tokio::select! {
            () = drip => panic!("what keeps coming prolongs it"),
            ended = frames.read_to_end(&mut read) => ended.unwrap_err(),
        };
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 19);
    }

    /// H2 holds what it has of a head, and strangers needn't ever end one.
    #[tokio::test]
    async fn few_heads_at_a_time_go_on_in_another_frame() {
        let places: &'static Semaphore = Box::leak(Box::new(Semaphore::new(2)));
        let begin = [&[0; PREFACE][..], &frame(HEADERS, 0, 1, b"x")].concat();
        let more = frame(CONTINUATION, 0, 1, b"x");
        let (mut far_ends, mut open, mut drivers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(&[&begin[..], &more, &more].concat()).await.unwrap();
            let (mut frames, driver) = cork(near, Frames::new(Arc::default(), places));
            frames.read_exact(&mut vec![0; begin.len() + 2 * more.len()]).await.unwrap();
            far_ends.push(far);
            open.push(frames);
            drivers.push(driver);
        }
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(&begin).await.unwrap();
        let (mut third, _driver) = cork(near, Frames::new(Arc::default(), places));
        let err = third.read(&mut [0; 1024]).await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::OutOfMemory);
        // Who ends his makes room for the next.
        let end = frame(CONTINUATION, END_HEADERS, 1, b"x");
        far_ends[0].write_all(&end).await.unwrap();
        open[0].read_exact(&mut vec![0; end.len()]).await.unwrap();
        assert_eq!(places.available_permits(), 1);
        open.clear();
        drivers.clear();
        assert_eq!(places.available_permits(), 2);
    }

    #[test]
    fn a_write_ends_before_a_reset() {
        let frames = Frames::new(Arc::default(), &UNFINISHED);
        let (data, reset) = (frame(0, 1, 1, b"end"), frame(RST_STREAM, 0, 1, &[0; 4]));
        let before_reset = |bytes: &[u8]| frames.going(bytes).len();
        assert_eq!(before_reset(&[&data[..], &reset, &data].concat()), data.len());
        assert_eq!(before_reset(&[&reset[..], &data].concat()), RESET + data.len());
        assert_eq!(before_reset(&[&reset[..], &reset].concat()), RESET);
        assert_eq!(before_reset(&data), data.len());
    }
}
