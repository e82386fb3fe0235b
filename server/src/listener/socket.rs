//! A TCP connection that can change its thread.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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
