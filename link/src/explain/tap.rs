//! Takes the frames of one connection out of its bytes, on the way to the thread that explains them.
//!
//! Invariant: the connection never waits. A frame without room in the queue is dropped and counted.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::task::Context;
use std::time::Instant;

use super::{Inner, Item, Opening, What};
use crate::h2::cork::Watch;
use crate::h2::frames::{CONTINUATION, DATA, HEADERS, Head, Walk};

/// What watches one connection.
#[derive(Debug)]
pub struct Tap {
    inner: Arc<Inner>,
    id: u64,
    /// Until it is told.
    opening: Option<Box<(What, Opening)>>,
    lost: u64,
    ours: Direction,
    theirs: Direction,
    /// This side is the one that asks.
    asks: bool,
}

/// A frame that has passed, the preface, or the end of the connection.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) id: u64,
    pub(super) at: Instant,
    /// With the first frame that is told.
    pub(super) opening: Option<Box<(What, Opening)>>,
    /// Frames that were dropped before it.
    pub(super) lost: u64,
    /// It comes from the side that asks.
    pub(super) asker: bool,
    /// `None`: the connection's end.
    pub(super) frame: Option<Frame>,
}

#[derive(Debug, Default)]
pub(super) struct Frame {
    /// `None`: the preface.
    pub(super) head: Option<Head>,
    /// Its beginning.
    pub(super) payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Direction {
    walk: Walk,
    frame: Option<Frame>,
}

impl Direction {
    fn of(asks: bool) -> Self {
        match asks {
            true => Self { walk: Walk::after(PREFACE), frame: Some(Frame::default()) },
            false => Self::default(),
        }
    }

    /// The frame whose last byte this is.
    fn pass(&mut self, bytes: &mut &[u8], bodies: bool) -> Option<Frame> {
        let part = self.walk.payload(bytes);
        let frame = self.frame.as_mut()?;
        let room = kept(frame.head.as_ref(), bodies).saturating_sub(frame.payload.len());
        frame.payload.extend_from_slice(part.get(..room).unwrap_or(part));
        if self.walk.has_passed() { self.frame.take() } else { None }
    }
}

impl Tap {
    pub(super) fn new(inner: Arc<Inner>, id: u64, opening: (What, Opening)) -> Self {
        let asks = opening.0 == What::Tunnel && !opening.1.dialled;
        let (ours, theirs) = (Direction::of(asks), Direction::of(!asks));
        Self { inner, id, opening: Some(Box::new(opening)), lost: 0, ours, theirs, asks }
    }

    pub(super) fn see(&mut self, ours: bool, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let at = Instant::now();
        let bodies = self.inner.bodies;
        loop {
            let direction = if ours { &mut self.ours } else { &mut self.theirs };
            let passed = direction.pass(&mut bytes, bodies);
            let head = direction.walk.next(&mut bytes);
            if head.is_some() {
                direction.frame = Some(Frame { head, payload: Vec::new() });
            }
            if passed.is_some() {
                self.tell(at, ours == self.asks, passed);
            }
            if head.is_none() {
                return;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.theirs.frame.as_ref().map_or(0, |frame| frame.payload.capacity())
    }

    fn tell(&mut self, at: Instant, asker: bool, frame: Option<Frame>) {
        let (id, opening, lost) = (self.id, self.opening.take(), self.lost);
        let seen = Seen { id, at, opening, lost, asker, frame };
        match self.inner.queue.try_send(Item::Seen(seen)) {
            Err(TrySendError::Full(Item::Seen(seen))) => {
                (self.opening, self.lost) = (seen.opening, lost + 1);
            }
            _ => self.lost = 0,
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.tell(Instant::now(), self.asks, None);
    }
}

/// Off it costs one look at an `Option` for each read and write of the socket.
impl Watch for Option<Tap> {
    fn came(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        if let Some(tap) = self {
            tap.see(false, bytes);
        }
        Ok(())
    }

    fn went(&mut self, bytes: &[u8]) {
        if let Some(tap) = self {
            tap.see(true, bytes);
        }
    }
}

/// Beside what else watches the connection.
impl<W: Watch> Watch for (W, Option<Tap>) {
    fn came(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        self.1.came(cx, bytes)?;
        self.0.came(cx, bytes)
    }

    fn going<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.0.going(bytes)
    }

    fn went(&mut self, bytes: &[u8]) {
        self.1.went(bytes);
        self.0.went(bytes);
    }
}

/// How much of a frame's payload is looked at.
fn kept(head: Option<&Head>, bodies: bool) -> usize {
    match head.map(|head| head.kind) {
        Some(HEADERS | CONTINUATION) => MOST_FIELDS,
        // The length of its padding.
        Some(DATA) if !bodies => 1,
        _ => MOST_OTHER,
    }
}

/// Bytes that the side that asks sends before its first frame (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// The largest frame that either program takes (RFC 9113 §6.5.2).
const MOST_FIELDS: usize = 16 * 1024;
/// SETTINGS have six bytes for each, GOAWAY a text.
const MOST_OTHER: usize = 512;
