//! A TCP connection that can change its thread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::rewind::Rewind;
use crate::quota::ConnectionPermit;

/// A TCP connection that can change the thread whose reactor it waits on.
#[derive(Debug)]
pub(super) enum Socket {
    /// It waits on this thread.
    Here(TcpStream),
    /// It is between two threads.
    Moving(Option<std::net::TcpStream>),
}

impl Socket {
    /// Takes it off this thread's reactor.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        if let Self::Here(socket) = std::mem::replace(self, Self::Moving(None)) {
            *self = Self::Moving(Some(socket.into_std()?));
        }
        Ok(())
    }

    /// Puts it on this thread's reactor. No-op if it never left.
    pub(super) fn arrive(&mut self) -> io::Result<()> {
        if let Self::Moving(socket) = self {
            let socket = socket.take().ok_or(io::ErrorKind::NotConnected)?;
            *self = Self::Here(TcpStream::from_std(socket)?);
        }
        Ok(())
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Here(socket) => Ok(Pin::new(socket)),
            Self::Moving(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}

/// A visitor's connection without TLS, which would tell a cut from an end: where only its end tells that a response
/// is whole, a TCP reset says that this one isn't.
#[derive(Debug)]
pub(super) struct Severed {
    io: Rewind<Socket>,
    permit: Arc<ConnectionPermit>,
    /// It was shut down in order.
    ended: bool,
}

impl Severed {
    pub(super) fn new(io: Rewind<Socket>, permit: Arc<ConnectionPermit>) -> Self {
        Self { io, permit, ended: false }
    }
}

impl Drop for Severed {
    fn drop(&mut self) {
        if let Socket::Here(socket) = self.io.stream()
            && self.permit.unframed.get().is_some()
            && !self.ended
        {
            // Fails only where the connection is gone already.
            let _ = socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Severed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severed {
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
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
