//! A response to a visitor over HTTP/1.1: its framing, and its `Connection`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONNECTION, TE};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as HttpBody;
use ptth_link::h1::{Framing, Head, Outgoing, OutgoingError, write_response};
use ptth_link::headers::{self, says};

use crate::public::{Answer, declared_length};

/// A response, and the properties of its request that decide about it.
pub(super) struct Reply {
    http10: bool,
    pub(super) keep_alive: bool,
    /// It has no body (RFC 9110 §9.3.2).
    is_head: bool,
    /// The visitor takes trailers (RFC 9110 §6.5.1).
    trailers: bool,
    /// Until all of it is in the output.
    pub(super) body: Option<Answer>,
}

impl Reply {
    pub(super) fn to(parts: &Parts, head: &Head) -> Self {
        Self {
            http10: head.http10,
            keep_alive: head.keep_alive,
            is_head: parts.method == Method::HEAD,
            trailers: says(&parts.headers, TE, "trailers"),
            body: None,
        }
    }

    /// Sends the head, and returns the framing. `last`: the connection ends with it. `upgraded`: another protocol
    /// follows.
    pub(super) fn begin(
        &mut self,
        out: &mut Outgoing,
        response: Response<Answer>,
        last: bool,
        upgraded: bool,
    ) -> Framing {
        let (parts, body) = response.into_parts();
        let fields = &parts.headers;
        let status = parts.status;
        let bodiless =
            self.is_head || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        let framing = match declared_length(fields) {
            _ if upgraded => Framing::UntilClose,
            _ if bodiless => Framing::None,
            Some(length) => Framing::Length(length),
            None if body.is_end_stream() => Framing::Length(0),
            None if self.http10 => Framing::UntilClose,
            None => Framing::Chunked,
        };
        let closes = says(fields, CONNECTION, "close") || last || framing == Framing::UntilClose;
        self.keep_alive &= !closes;
        let connection = match (self.keep_alive, self.http10) {
            _ if fields.contains_key(CONNECTION) => None,
            (true, true) => Some("keep-alive"),
            (false, false) => Some("close"),
            _ => None,
        };
        out.head(write_response((status, self.http10), fields, framing, connection), framing);
        self.body = Some(body).filter(|_| !bodiless);
        framing
    }

    /// Moves the body to the output while it has room. True if the room ended first.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        room: usize,
    ) -> io::Result<bool> {
        while let Some(body) = &mut self.body {
            if out.waiting() >= room {
                return Ok(true);
            }
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(frame) => frame.transpose().map_err(io::Error::other)?,
            };
            let mut trailers = None;
            match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    out.data(data).map_err(wrong_length)?;
                    if !body.is_end_stream() {
                        continue;
                    }
                }
                Some(Err(frame)) => trailers = frame.into_trailers().ok(),
                None => {}
            }
            let trailers = trailers.filter(|_| self.trailers).map(|mut fields: HeaderMap| {
                headers::trailers(&mut fields);
                fields
            });
            out.end(trailers.as_ref()).map_err(wrong_length)?;
            self.body = None;
        }
        Ok(false)
    }
}

fn wrong_length(_: OutgoingError) -> io::Error {
    io::Error::other("the response isn't as long as it said")
}
