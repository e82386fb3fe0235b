//! A connection whose first bytes can be looked at before they are read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::quota::ConnectionPermit;

/// Gives its reader first what was looked at.
#[derive(Debug)]
pub struct Rewind<T> {
    io: T,
    seen: BytesMut,
    /// Of a visitor's connection without TLS that wasn't shut down yet.
    reset: Option<Reset<T>>,
}

type Reset<T> = (fn(&T), Arc<ConnectionPermit>);

impl<T> Rewind<T> {
    /// Nothing looked at yet.
    pub fn new(io: T) -> Self {
        Self { io, seen: BytesMut::new(), reset: None }
    }

    /// Has `reset` called where the connection is dropped within a response whose end only its own end tells: TLS would
    /// tell a cut from an end, and without it a TCP reset does.
    pub(super) fn reset_if_cut(&mut self, permit: Arc<ConnectionPermit>, reset: fn(&T)) {
        self.reset = Some((reset, permit));
    }

    /// The connection itself. Reading from it leaves a gap.
    pub fn stream_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// What was looked at and not skipped.
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Forgets the first `count` bytes of that.
    pub fn skip(&mut self, count: usize) {
        self.seen.advance(count.min(self.seen.len()));
    }
}

impl<T> Drop for Rewind<T> {
    fn drop(&mut self) {
        if let Some((reset, permit)) = &self.reset
            && permit.unframed.get().is_some()
        {
            reset(&self.io);
        }
    }
}

impl<T: AsyncRead + Unpin> Rewind<T> {
    /// Waits for more bytes to look at, and says how many came: 0 at the end of the stream, or when `most`
    /// are there. Cancel safe: what came stays.
    pub async fn look(&mut self, most: usize) -> io::Result<usize> {
        let room = most.saturating_sub(self.seen.len());
        self.seen.reserve(room);
        self.io.read_buf(&mut (&mut self.seen).limit(room)).await
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.seen.len().min(buf.remaining());
        buf.put_slice(&self.seen.split_to(count));
        if self.seen.is_empty() {
            self.seen = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        self.reset = None;
        Poll::Ready(Ok(()))
    }
}
