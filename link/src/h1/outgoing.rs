//! Messages to a socket: heads, and bodies in their framing (RFC 9112 §6 and §7).
//!
//! Invariant: a body that broke off never gets its end.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use tokio::io::AsyncWrite;

/// The framing of a body that is sent, and the length of its rest.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// No body, and no field about it.
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// The body isn't as long as its head says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutgoingError;

/// The bytes that wait for the socket, and the framing of the current body.
#[derive(Debug, Default)]
pub struct Outgoing {
    queue: VecDeque<Bytes>,
    len: usize,
    framing: Framing,
    unflushed: bool,
    /// Something was ever written.
    touched: bool,
}

impl Outgoing {
    pub fn waiting(&self) -> usize {
        self.len
    }

    pub fn is_flushed(&self) -> bool {
        self.len == 0 && !self.unflushed
    }

    /// The first piece that waits, if nothing was ever written: a head.
    pub fn untouched(&self) -> Option<&Bytes> {
        self.queue.front().filter(|_| !self.touched)
    }

    /// Adds a head, and the framing of its body.
    pub fn head(&mut self, head: Bytes, framing: Framing) {
        self.framing = framing;
        self.push(head);
    }

    /// Adds data of the body, which may be empty.
    pub fn data(&mut self, data: Bytes) -> Result<(), OutgoingError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::None => return Err(OutgoingError),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(OutgoingError)?;
                self.push(data);
            }
            Framing::Chunked => {
                self.push(format!("{:x}\r\n", data.len()).into());
                self.push(data);
                self.push(Bytes::from_static(b"\r\n"));
            }
            Framing::UntilClose => self.push(data),
        }
        Ok(())
    }

    /// Adds the end of the body.
    pub fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), OutgoingError> {
        match std::mem::take(&mut self.framing) {
            Framing::Length(1..) => return Err(OutgoingError),
            Framing::Chunked => {
                let mut last = BytesMut::from("0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    write_field(&mut last, name, value.as_bytes());
                }
                last.extend_from_slice(b"\r\n");
                self.push(last.freeze());
            }
            Framing::None | Framing::Length(0) | Framing::UntilClose => {}
        }
        Ok(())
    }

    /// Whether the body is as long as its head says, and needs no end.
    pub fn is_whole(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }

    fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Ready when nothing waits.
    pub fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let waiting = slices.iter_mut().zip(&self.queue);
            let count = waiting.map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count();
            let slices = slices.get(..count).unwrap_or_default();
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
        }
        Poll::Ready(Ok(()))
    }

    pub fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut written: usize) {
        (self.unflushed, self.touched) = (true, true);
        self.len = self.len.saturating_sub(written);
        while let Some(first) = self.queue.front_mut() {
            let part = written.min(first.len());
            first.advance(part);
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
    }
}

/// Writes a request's head. Among the fields, `Host` and those that frame the body don't count.
pub fn write_request(
    method: &Method,
    target: &str,
    host: &HeaderValue,
    fields: &HeaderMap,
    framing: Framing,
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD);
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_field(&mut out, &HOST, host.as_bytes());
    let framed = |name: &HeaderName| [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name);
    for (name, value) in fields.iter().filter(|(name, _)| !framed(name)) {
        write_field(&mut out, name, value.as_bytes());
    }
    write_framing(&mut out, framing);
    out.freeze()
}

/// Writes a response's head: its fields, the framing, and `Connection` where that isn't the default. A length among the
/// fields stays where there is no framing (RFC 9110 §9.3.2).
pub fn write_response(
    (status, http10): (StatusCode, bool),
    fields: &HeaderMap,
    framing: Framing,
    connection: Option<&'static str>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD);
    let version = if http10 { "HTTP/1.0 " } else { "HTTP/1.1 " };
    let reason = status.canonical_reason().unwrap_or_default();
    for part in [version, status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let framed = framing != Framing::None;
    for (name, value) in fields.iter().filter(|(name, _)| !(framed && *name == CONTENT_LENGTH)) {
        write_field(&mut out, name, value.as_bytes());
    }
    if let Some(option) = connection {
        write_field(&mut out, &CONNECTION, option.as_bytes());
    }
    write_framing(&mut out, framing);
    out.freeze()
}

fn write_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => write_field(out, &CONTENT_LENGTH, length.to_string().as_bytes()),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Most heads are shorter.
const HEAD: usize = 512;
/// Pieces of one write; bodies come in pieces of 16 KiB.
const BATCH: usize = 12;
