//! What a body may have beside its bytes: what hears its frames as its reader takes them, and a bandwidth that it keeps
//! to; and a body that was never on a stream.

use std::fmt;

use bytes::Bytes;
use http_body::Frame;

use super::{Body, Shared};
use crate::bandwidth::Turns;
use crate::budget::Budget;

/// What hears them. It must not wait.
pub struct Tap(Box<Hear>);

type Hear = dyn FnMut(&Frame<Bytes>) + Send;

impl Tap {
    /// Calls `hear` with each frame, in order.
    pub fn new(hear: impl FnMut(&Frame<Bytes>) + Send + 'static) -> Self {
        Self(Box::new(hear))
    }

    pub(super) fn hear(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        (self.0)(&frame);
        frame
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

pub(super) fn heard(tap: &mut Option<Tap>, frame: Frame<Bytes>) -> Frame<Bytes> {
    match tap {
        Some(tap) => tap.hear(frame),
        None => frame,
    }
}

impl Body {
    /// A body that is here as a whole.
    pub fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        let length = bytes.len();
        // Large enough that it always fits: nothing else has a part of it.
        let shared = Shared::new(None, Budget::new(1 << 40));
        let _ = shared.lock().push(bytes);
        shared.lock().finish(Ok(()));
        Self::of(shared, Some(length as u64))
    }

    /// Has each frame heard when it is read.
    #[must_use]
    pub fn with_tap(mut self, tap: Option<Tap>) -> Self {
        self.tap = tap;
        self
    }

    /// Moves it no faster than these turns come.
    #[must_use]
    pub fn with_turns(mut self, turns: Option<Turns>) -> Self {
        self.turns = turns.filter(|_| self.shared.is_some()).map(Box::new);
        self
    }
}
