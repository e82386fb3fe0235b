//! HTTP/1.1 to the origin: a connection, and one exchange at a time on it (RFC 9112).
//!
//! Polled in the stream's own task. Buffers exist only while they hold bytes.
//!
//! Invariant: a connection in a doubtful state isn't reused.

mod sending;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use ptth_link::h1::{Decoder, Part, Refusal, ResponseReader};
use ptth_link::limits::INFORMATIONAL_RESPONSES;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::serve::Early;

use super::OriginError;

pub(super) use sending::Sending;

pub(super) trait Io: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send {
    fn socket(&self) -> SockRef<'_>;
}

impl Io for TcpStream {
    fn socket(&self) -> SockRef<'_> {
        self.into()
    }
}

#[cfg(unix)]
impl Io for UnixStream {
    fn socket(&self) -> SockRef<'_> {
        self.into()
    }
}

impl Io for TlsStream<TcpStream> {
    fn socket(&self) -> SockRef<'_> {
        self.get_ref().0.into()
    }
}

/// A connection with its exchange. Dropping it closes the socket.
#[derive(Debug)]
pub(super) struct Connection {
    half: Half,
    /// The task that sends the rest of the request beside the response, which may not wait for it. Ends with it.
    upload: Option<JoinSet<()>>,
    /// Bytes that were read and not yet parsed.
    input: BytesMut,
    reader: ResponseReader,
    /// Bytes of the next read, and of the largest.
    next: usize,
    most: usize,
    /// The last read was short: the origin may wait for an acknowledgement.
    short: bool,
    sending: Sending,
    /// The error that stopped the request.
    unsent: Option<OriginError>,
    body: Decoder,
    keep: bool,
    /// The number of 1xx responses so far.
    informational: usize,
    /// Bytes of the body that were taken since the last `Pending`.
    taken: usize,
}

#[derive(Debug)]
enum Half {
    Both(Box<dyn Io>),
    Reading(ReadHalf<Box<dyn Io>>),
    /// The connection is idle.
    Gone,
}

impl Connection {
    /// Begins an exchange. `most` limits the bytes of one read, which stay in memory while a visitor reads nothing.
    pub(super) fn new(io: Box<dyn Io>, sending: Sending, most: usize) -> Self {
        Self {
            half: Half::Both(io),
            upload: None,
            input: BytesMut::new(),
            reader: ResponseReader::default(),
            next: LEAST,
            most,
            short: false,
            sending,
            unsent: None,
            body: Decoder::Done,
            keep: true,
            informational: 0,
            taken: 0,
        }
    }

    /// The request, if it may be sent again after this connection closed (RFC 9112 §9.3.1): no byte was written, or
    /// it is idempotent and no byte of a response came.
    pub(super) fn again(self) -> Option<Sending> {
        self.sending.again(self.input.is_empty() && self.informational == 0)
    }

    /// Sends the request, and takes the head of the final response.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        early: Option<&Early>,
    ) -> Poll<Result<Response<()>, OriginError>> {
        if let (Half::Both(io), false) = (&mut self.half, self.sending.is_over())
            && let Poll::Ready(Err(err)) = self.sending.poll(io, cx)
        {
            if self.sending.is_untouched() || !matches!(err, OriginError::Broken(_)) {
                return Poll::Ready(Err(err));
            }
            // An origin may refuse without reading all: its response is still to be read.
            self.unsent = Some(err);
            self.sending.stop();
        }
        loop {
            let read = self.reader.read(&mut self.input, method);
            let wrong =
                |why| foreign(&self.input).map_or_else(|| malformed(why), OriginError::Foreign);
            let Some(head) = read.map_err(wrong)? else {
                if ready!(self.poll_read(cx))? == 0 {
                    return Poll::Ready(Err(self.unsent.take().unwrap_or_else(cut)));
                }
                continue;
            };
            self.keep &= head.keep_alive;
            let status = head.parts.status;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.informational += 1;
                if self.informational > INFORMATIONAL_RESPONSES {
                    return Poll::Ready(Err(OriginError::Malformed("one 1xx after the other")));
                }
                early.inspect(|early| early.send(status, &head.parts.headers));
                continue;
            }
            self.body = head.body;
            self.detach();
            // The request isn't sent again, since a response has begun.
            self.sending = Sending::default();
            return Poll::Ready(Ok(Response::from_parts(head.parts, ())));
        }
    }

    /// The next frame of the response's body. Yields after [`TURN`] bytes: the runtime counts reads of the socket, and
    /// one read may bring a hundred thousand chunks.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        loop {
            if self.taken >= TURN {
                self.taken = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = self.input.len();
            let part = self.body.next(&mut self.input).map_err(malformed)?;
            self.taken += PART + before.saturating_sub(self.input.len());
            match part {
                Some(Part::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Part::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                None if self.body.is_done() => return Poll::Ready(None),
                None => {}
            }
            let Poll::Ready(read) = self.poll_read(cx) else {
                self.taken = 0;
                return Poll::Pending;
            };
            if read? == 0 && !self.body.end() {
                return Poll::Ready(Some(Err(cut())));
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.body.is_done()
    }

    pub(super) fn is_reusable(&self) -> bool {
        self.keep
            && self.body.is_done()
            && self.input.is_empty()
            && self.sending.is_over()
            && self.unsent.is_none()
            && matches!(self.half, Half::Both(_))
    }

    /// The socket of a connection that is reusable, which it leaves.
    pub(super) fn reusable(&mut self) -> Option<Box<dyn Io>> {
        let half = self.is_reusable().then(|| std::mem::replace(&mut self.half, Half::Gone));
        if let Some(Half::Both(io)) = half { Some(io) } else { None }
    }

    /// The half that writes to an upgraded connection. What comes on the other half is the body.
    pub(super) fn upgraded(&mut self) -> Option<WriteHalf<Box<dyn Io>>> {
        self.body = Decoder::UntilClose;
        self.split()
    }

    fn split(&mut self) -> Option<WriteHalf<Box<dyn Io>>> {
        let Half::Both(io) = std::mem::replace(&mut self.half, Half::Gone) else { return None };
        let (reader, writer) = split(io);
        self.half = Half::Reading(reader);
        Some(writer)
    }

    /// Moves the rest of the request into a task.
    fn detach(&mut self) {
        if self.sending.is_over() {
            return;
        }
        let Some(mut writer) = self.split() else { return };
        let mut sending = std::mem::take(&mut self.sending);
        self.upload.get_or_insert_default().spawn(async move {
            // The response reports errors.
            let _ = std::future::poll_fn(|cx| sending.poll(&mut writer, cx)).await;
        });
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            // Costs a third of growing an empty buffer.
            self.input = BytesMut::with_capacity(self.next);
        }
        self.input.reserve(self.next);
        let read = match &mut self.half {
            Half::Both(io) => pin!(io.read_buf(&mut self.input)).poll(cx),
            Half::Reading(io) => pin!(io.read_buf(&mut self.input)).poll(cx),
            Half::Gone => Poll::Ready(Ok(0)),
        };
        match read {
            Poll::Pending => {
                if std::mem::take(&mut self.short) {
                    self.acknowledge();
                }
                // Thousands of connections may wait for hours.
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
            }
            Poll::Ready(Ok(read)) => {
                self.short = read < LEAST;
                if read >= self.next {
                    self.next = (2 * self.next).min(self.most);
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        read
    }

    /// Has the kernel acknowledge at once. An origin that writes head and body apart, without TCP_NODELAY, sends the
    /// body when the head is acknowledged (RFC 9293 §3.7.4); our kernel would delay that for 40 ms.
    fn acknowledge(&self) {
        #[cfg(target_os = "linux")]
        if let Half::Both(io) = &self.half {
            // It fails on a Unix socket.
            let _ = io.socket().set_tcp_quickack(true);
        }
    }
}

fn malformed(why: Refusal) -> OriginError {
    OriginError::Malformed(why.reason)
}

/// The origin closed the connection before the end of the response.
pub(super) fn cut() -> OriginError {
    let why = "the connection was closed too early";
    io::Error::new(io::ErrorKind::UnexpectedEof, why).into()
}

/// The advice for an origin that speaks another protocol, if `input` is the beginning of that protocol.
fn foreign(input: &[u8]) -> Option<&'static str> {
    match input {
        // A record of an alert or of a handshake (RFC 8446 §5.1).
        [0x15 | 0x16, 0x03, ..] => Some(TLS),
        // SETTINGS, with which a server of HTTP/2 begins (RFC 9113 §3.4).
        [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Some(HTTP2),
        _ => None,
    }
}

pub(super) const TLS: &str = "it speaks TLS: write https:// in front of its address";
pub(super) const NO_TLS: &str = "it speaks no TLS: write http:// in front of its address";
pub(super) const HTTP2: &str =
    "it speaks HTTP/2 alone, and is asked by HTTP/1.1: have it speak that, too";
/// Bytes of the first read: a page with its head.
const LEAST: usize = 4 * 1024;
/// Bytes of a body in one poll, at least: a millisecond of work at most.
const TURN: usize = 256 * 1024;
/// The cost of a part of a body, in bytes of a large part.
const PART: usize = 64;
