//! Hears the frames of a body as its reader takes them.

use std::fmt;

use bytes::Bytes;
use http_body::Frame;

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
