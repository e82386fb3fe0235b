//! The socket of an HTTP/1.1 visitor, and its current request.
//!
//! One task runs the connection, the answer, and the request's body, which reads the socket when it is polled.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body as HttpBody, Frame};
use ptth_link::h1::{Decoder, Framing, Outgoing, Part, Refusal, write_response};
use ptth_link::lock::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::public::stall::Stall;

/// What the connection, the answer and the body share.
pub(super) type Wire<IO> = Arc<Mutex<State<IO>>>;

pub(super) struct State<IO> {
    pub(super) io: Stall<IO>,
    pub(super) out: Outgoing,
    /// Read from the socket, and not parsed yet.
    pub(super) input: BytesMut,
    /// The visitor has closed its side.
    pub(super) ended: bool,
    /// The response has begun: no 100 is sent.
    pub(super) answered: bool,
    next_read: usize,
    /// Counts requests, so that the body of an old one reads nothing of the next.
    turn: u64,
    /// The rest of its body. `None`: an upgrade isn't decided, and nothing may be read before (RFC 9931).
    pub(super) body: Option<Decoder>,
    /// The visitor waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    expects: bool,
    /// What is wrong with its body.
    pub(super) refusal: Option<Refusal>,
}

/// Begins a request; `body` is `None` for one that asks for an upgrade.
pub(super) fn begin<IO>(wire: &Wire<IO>, body: Option<Decoder>, expects: bool) -> Incoming<IO> {
    let mut state = wire.lock();
    state.turn += 1;
    (state.body, state.expects, state.answered) = (body, expects, false);
    state.refusal = None;
    Incoming { wire: wire.clone(), turn: state.turn }
}

impl<IO> State<IO> {
    pub(super) fn new(io: Stall<IO>) -> Self {
        Self {
            io,
            out: Outgoing::default(),
            input: BytesMut::new(),
            ended: false,
            answered: false,
            next_read: LEAST,
            turn: 0,
            body: Some(Decoder::Done),
            expects: false,
            refusal: None,
        }
    }

    /// Sends an interim response (RFC 9110 §15.2). Left out: 100, which is sent when the body is polled, 101, which
    /// ends HTTP/1.1, and all while [`INTERIM`] bytes wait for a slow visitor.
    pub(super) fn inform(&mut self, status: StatusCode, fields: &HeaderMap) {
        let excluded = [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS].contains(&status);
        if !excluded && self.out.waiting() < INTERIM {
            let head = write_response((status, false), fields, Framing::None, None);
            self.out.head(head, Framing::None);
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.body.as_ref().is_some_and(Decoder::is_done)
    }

    /// Whether the rest of the request may be so short that it can be read only to be dropped.
    pub(super) fn is_nearly_whole(&self) -> bool {
        match self.body {
            Some(Decoder::Length(left)) => left <= DRAINED as u64 && !self.expects,
            Some(Decoder::Chunked(_)) => !self.expects && self.refusal.is_none(),
            _ => self.is_whole(),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> State<IO> {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        // Most polls find nothing, and most heads are short: no buffer is made for those.
        let mut least = [MaybeUninit::uninit(); LEAST];
        let mut least = ReadBuf::uninit(&mut least);
        let polled = if self.next_read > LEAST {
            self.input.reserve(self.next_read);
            pin!(self.io.read_buf(&mut self.input)).poll(cx)
        } else {
            Pin::new(&mut self.io).poll_read(cx, &mut least).map_ok(|()| least.filled().len())
        };
        self.input.extend_from_slice(least.filled());
        match &polled {
            // An idle connection holds no buffer.
            Poll::Pending if self.input.is_empty() => {
                (self.input, self.next_read) = (BytesMut::new(), LEAST);
            }
            Poll::Ready(Ok(0)) => self.ended = true,
            Poll::Ready(Ok(read)) if *read >= self.next_read => self.next_read = CHUNK,
            _ => {}
        }
        polled
    }

    /// Ready when nothing waits, and all is flushed.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.out.poll_write(&mut self.io, cx))?;
        self.out.poll_flush(&mut self.io, cx)
    }

    /// Ready, with an error, when the visitor has closed its side: HTTP/1.1 has no other sign that it left. Reads
    /// ahead for that.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.input.len() < CHUNK && !self.ended && self.refusal.is_none() {
            if let Err(err) = ready!(self.poll_read(cx)) {
                return Poll::Ready(err);
            }
        }
        if self.ended && self.input.is_empty() {
            return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
        }
        Poll::Pending
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            self.expects &= self.input.is_empty();
            let Some(body) = &mut self.body else { return Poll::Pending };
            match body.next(&mut self.input) {
                Ok(Some(Part::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Part::Trailers(fields))) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(None) if body.is_done() => return Poll::Ready(None),
                Ok(None) if !self.ended && self.refusal.is_none() => {}
                Ok(None) if body.end() => return Poll::Ready(None),
                Ok(None) => {
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                Err(refusal) => {
                    self.refusal = Some(refusal);
                    self.input.clear();
                    return Poll::Ready(Some(Err(refusal.into())));
                }
            }
            if self.expects && !self.answered {
                self.expects = false;
                self.out.head(Bytes::from_static(CONTINUE), Framing::None);
            }
            ready!(self.poll_read(cx))?;
        }
    }

    /// Reads the rest of the request only to drop it. Ready with false if it was too long.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<bool> {
        while !self.is_whole() {
            if !self.is_nearly_whole() || *left == 0 {
                return Poll::Ready(false);
            }
            match ready!(self.poll_body(cx)) {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(1, Bytes::len);
                    *left = left.saturating_sub(length);
                }
                Some(Err(_)) => return Poll::Ready(false),
                None => {}
            }
        }
        Poll::Ready(true)
    }
}

pub(super) struct Incoming<IO> {
    wire: Wire<IO>,
    turn: u64,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> HttpBody for Incoming<IO> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = self.wire.lock();
        if state.turn != self.turn {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        state.poll_body(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.wire.lock();
        state.turn == self.turn && state.is_whole()
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes of interim responses from which on further ones are left out: as much as one TLS record.
const INTERIM: usize = 16 * 1024;
/// Most heads are shorter.
const LEAST: usize = 4 * 1024;
/// One TLS record.
const CHUNK: usize = 16 * 1024;
/// Bytes of an unneeded body: to read as many costs less than another connection.
pub(super) const DRAINED: usize = 64 * 1024;
