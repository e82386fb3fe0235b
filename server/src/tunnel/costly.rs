//! A bound on what one backend can have the gateway do for nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use ptth_link::limits::PING_INTERVAL;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::frames::{ACK, GOAWAY, SETTINGS, Walk};

/// A tunnel's connection under h2. SETTINGS and GOAWAY have h2 look at every stream of the connection (RFC 9113
/// §6.9.2, §6.8), thousands for a frame of fifteen bytes, while everybody on the thread waits: a read fails after
/// [`MOST`] of them in one PING interval.
#[derive(Debug)]
pub(super) struct Costly<IO> {
    io: IO,
    walk: Walk,
    came: u32,
    since: Instant,
}

impl<IO> Costly<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, walk: Walk::default(), came: 0, since: Instant::now() }
    }

    /// Whether it may go on.
    fn came(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(head) = self.walk.next(&mut bytes) {
            let costs = head.kind == GOAWAY || head.kind == SETTINGS && head.flags & ACK == 0;
            if !costs {
                continue;
            }
            if self.since.elapsed() >= PING_INTERVAL {
                (self.came, self.since) = (0, Instant::now());
            }
            self.came += 1;
        }
        self.came <= MOST
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Costly<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.came(buf.filled().get(before..).unwrap_or_default()) {
            return polled;
        }
        Poll::Ready(Err(io::Error::other("SETTINGS or GOAWAY again and again")))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Costly<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// With the 4,096 streams that a backend gets at most they take a hundredth of a core. Our client sends one for each
/// change of its window: ten wider ones in this time, and some narrower ones after each.
const MOST: u32 = 500;
