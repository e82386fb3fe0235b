//! What hyper writes to a visitor over HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use ptth_link::body::{Body, BodyError};
use ptth_link::headers;

use crate::public::guard::Exchange;
use crate::public::stall::Outlet;
use crate::quota::Permit;

/// What hyper writes: a tunnel's body, or a page of ours.
pub(in crate::public) struct Reply {
    pub(super) content: Content,
    /// Until this is dropped, the exchange is under way.
    #[allow(dead_code, reason = "held for its drop")]
    pub(super) exchange: (Exchange, Option<Permit>),
}

impl Reply {
    /// A page of ours.
    pub(in crate::public) fn page(text: String, exchange: (Exchange, Option<Permit>)) -> Self {
        Self { content: Content::Page(Some(text.into())), exchange }
    }
}

pub(super) enum Content {
    Tunnel(Body, Outlet),
    Page(Option<Bytes>),
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Tunnel(body, outlet) => {
                ready!(outlet.poll_room(cx));
                Pin::new(body).poll_frame(cx).map_ok(|mut frame| {
                    outlet.hand(frame.data_ref().map_or(0, Bytes::len));
                    if let Some(trailers) = frame.trailers_mut() {
                        headers::trailers(trailers);
                    }
                    frame
                })
            }
            Content::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Tunnel(body, _) => body.is_end_stream(),
            Content::Page(page) => page.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Tunnel(body, _) => body.size_hint(),
            Content::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}
