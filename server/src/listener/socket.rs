//! A TCP connection that can change its thread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::quota::ConnectionPermit;

/// A TCP connection that can change the thread whose reactor it waits on.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    /// Of a visitor's connection without TLS, which would tell a cut from an end: where only its end tells that a
    /// response is whole, a TCP reset says that this one isn't.
    plain: Option<Arc<ConnectionPermit>>,
    /// It was shut down in order.
    ended: bool,
}

#[derive(Debug)]
enum State {
    /// It waits on this thread.
    Here(TcpStream),
    /// It is between two threads.
    Moving(Option<std::net::TcpStream>),
}

impl Socket {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { state: State::Here(socket), plain: None, ended: false }
    }

    /// Has a response that is cut end in a reset.
    pub(super) fn set_plain(&mut self, permit: Arc<ConnectionPermit>) {
        self.plain = Some(permit);
    }

    /// The connection, while it waits on this thread.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match &self.state {
            State::Here(socket) => Some(socket),
            State::Moving(_) => None,
        }
    }

    /// Takes it off this thread's reactor.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        if let State::Here(socket) = std::mem::replace(&mut self.state, State::Moving(None)) {
            self.state = State::Moving(Some(socket.into_std()?));
        }
        Ok(())
    }

    /// Puts it on this thread's reactor. No-op if it never left.
    pub(super) fn arrive(&mut self) -> io::Result<()> {
        if let State::Moving(socket) = &mut self.state {
            let socket = socket.take().ok_or(io::ErrorKind::NotConnected)?;
            self.state = State::Here(TcpStream::from_std(socket)?);
        }
        Ok(())
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.state {
            State::Here(socket) => Ok(Pin::new(socket)),
            State::Moving(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let cut = self
            .plain
            .as_ref()
            .is_some_and(|permit| permit.unframed.get().is_some() && !self.ended);
        if let Some(socket) = self.tcp().filter(|_| cut) {
            // Fails only where the connection is gone already.
            let _ = socket.set_zero_linger();
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
        ready!(self.here()?.poll_shutdown(cx))?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
