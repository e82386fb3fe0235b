//! The body of a request on its way to the origin.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use ptth_link::body::{Body, BodyError};

/// A body that shows whether hyper is done with it.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Body,
    /// None for a body without a byte, as most requests have.
    open: Option<Arc<()>>,
}

/// Looks after an [`Upload`].
pub(super) struct Watch(Weak<()>);

impl Upload {
    pub(crate) fn new(body: Body) -> Self {
        let open = (!body.is_end_stream()).then(Arc::default);
        Self { body, open }
    }

    pub(crate) fn into_body(self) -> Body {
        self.body
    }

    pub(super) fn watch(&self) -> Watch {
        Watch(self.open.as_ref().map_or_else(Weak::new, Arc::downgrade))
    }
}

impl Watch {
    /// Whether there may be more of it to send.
    pub(super) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
