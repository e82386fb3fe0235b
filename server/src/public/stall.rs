//! A visitor that reads nothing of what waits for it, or too little, loses the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ptth_link::budget::{Budget, Full};
use ptth_link::deadline::Reading;
use ptth_link::limits::SLOWEST_RATE;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Fails a write that made no progress for [`READING`], or too little. Reads pass through.
pub(super) struct Stall<T> {
    io: T,
    reading: Reading,
    /// While the socket is full: counted until it is dropped.
    full: Option<Full>,
    lifted: bool,
    outlet: Arc<Outlet>,
}

/// The socket, as seen by a writer above the codec.
pub(super) struct Outlet {
    budget: Arc<Budget>,
    /// Bytes that were handed out and not written.
    ahead: AtomicUsize,
    written: Notify,
}

impl Outlet {
    /// Waits while much waits for the socket: h2 would take any number of heads.
    pub(super) async fn room(&self) {
        loop {
            let written = self.written.notified();
            if self.has_room() {
                return;
            }
            written.await;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) < self.budget.batch()
    }

    /// Counts bytes that are on their way to the socket.
    pub(super) fn hand(&self, bytes: usize) {
        self.ahead.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Nothing waits: all is written, or a response begins.
    pub(super) fn clear(&self) {
        if self.ahead.swap(0, Ordering::Relaxed) > 0 {
            self.written.notify_waiters();
        }
    }

    /// Heads and the framing of chunks are written, too, and weren't handed.
    fn wrote(&self, bytes: usize) {
        let ahead = self.ahead.load(Ordering::Relaxed);
        if bytes > 0 && ahead > 0 {
            self.ahead.store(ahead.saturating_sub(bytes), Ordering::Relaxed);
            self.written.notify_waiters();
        }
    }
}

impl<T> Stall<T> {
    pub(super) fn new(io: T, budget: Arc<Budget>) -> Self {
        let outlet = Outlet { budget, ahead: AtomicUsize::new(0), written: Notify::new() };
        let reading = Reading::new(READING, SLOWEST_RATE);
        Self { io, reading, full: None, lifted: false, outlet: Arc::new(outlet) }
    }

    pub(super) fn outlet(&self) -> Arc<Outlet> {
        self.outlet.clone()
    }

    /// Lifts the limit, for an upgraded connection: its peer may sleep as long as its kernel answers.
    pub(super) fn lift(&mut self) {
        self.lifted = true;
    }

    pub(super) fn into_inner(self) -> T {
        self.io
    }

    /// Judges a write, of how many bytes it may be, or a flush, of none.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &polled {
            self.full = None;
            let taken = *result.as_ref().unwrap_or(&0);
            self.reading.took(taken);
            self.outlet.wrote(taken);
            return polled;
        }
        self.full.get_or_insert_with(|| self.outlet.budget.full());
        if self.lifted {
            return polled;
        }
        ready!(self.reading.poll_wait(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> Stall<T> {
    /// How many bytes to write now. Where many sockets are full, none until the kernel has taken what was
    /// encrypted before.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.outlet.budget.is_calm() {
            let drained = Pin::new(&mut self.io).poll_flush(cx);
            ready!(self.watch(cx, drained.map_ok(|()| 0)))?;
        }
        Poll::Ready(Ok(self.outlet.budget.batch()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx))?;
        let polled = Pin::new(&mut self.io).poll_write(cx, buf.get(..room).unwrap_or(buf));
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = ready!(self.poll_room(cx))?;
        let fit = |buf: &&io::IoSlice<'_>| {
            let fits = room > 0;
            room = room.saturating_sub(buf.len());
            fits
        };
        let bufs = bufs.get(..bufs.iter().take_while(fit).count()).unwrap_or(bufs);
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, polled.map_ok(|()| 0)).map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, polled.map_ok(|()| 0)).map_ok(drop)
    }
}

/// A visitor must take something within this time, which is longer than any pause of a network that still works. When
/// many sockets are full, TLS output that is buffered already is waited for first: 16 KiB, or 64 KiB if the shortage has
/// just begun. A kernel reports a socket as writable after about a third of its buffer has drained, which is as much.
pub(super) const READING: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use ptth_link::limits::BODY_BUDGET;
    use tokio::io::{AsyncWriteExt, BufWriter};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_stops_is_dropped_after_a_minute() {
        let (near, _far) = tokio::io::duplex(64);
        let mut stall = Stall::new(near, Budget::new(BODY_BUDGET));
        let start = Instant::now();
        let err = stall.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_may_pause() {
        let (near, _far) = tokio::io::duplex(64);
        let mut stall = Stall::new(near, Budget::new(BODY_BUDGET));
        stall.lift();
        let write = tokio::time::timeout(READING * 10, stall.write_all(&[0; 1000]));
        assert!(write.await.is_err(), "it still waits");
    }

    /// TLS encrypts ahead of its socket, as much as a `BufWriter` keeps here.
    #[tokio::test]
    async fn little_is_written_where_many_sockets_are_full() {
        let budget = Budget::new(BODY_BUDGET);
        let mut cx = Context::from_waker(Waker::noop());
        let mut stalled = Vec::new();
        let mut written = Vec::new();
        while written.last() != Some(&(8 * 1024)) {
            let (near, far) = tokio::io::duplex(64);
            let mut stall = Stall::new(BufWriter::with_capacity(1 << 20, near), budget.clone());
            let mut sum = 0;
            for _ in 0..10 {
                let bufs = [io::IoSlice::new(&[0; 8 * 1024]); 8];
                if let Poll::Ready(n) = Pin::new(&mut stall).poll_write_vectored(&mut cx, &bufs) {
                    sum += n.unwrap();
                }
            }
            assert!(Pin::new(&mut stall).poll_flush(&mut cx).is_pending());
            written.push(sum);
            stalled.push((stall, far));
        }
        let of = |bytes| written.iter().filter(|sum| **sum == bytes).count();
        assert_eq!((of(640 * 1024), of(16 * 1024), of(8 * 1024)), (32, 224, 1));
        drop(stalled);
        assert!(budget.is_calm());
    }

    /// What is handed out ahead follows the number of full sockets, and goes on when they take it.
    #[tokio::test]
    async fn no_more_is_handed_out_than_may_wait() {
        let budget = Budget::new(BODY_BUDGET);
        let (near, _far) = tokio::io::duplex(1 << 20);
        let mut stall = Stall::new(near, budget.clone());
        let outlet = stall.outlet();
        let hand = || {
            let mut handed = 0;
            while outlet.has_room() {
                outlet.hand(1024);
                handed += 1024;
            }
            handed
        };
        assert_eq!(hand(), 64 * 1024);
        let full: Vec<_> = (0..100).map(|_| budget.full()).collect();
        stall.write_all(&[0; 48 * 1024]).await.unwrap();
        assert_eq!(hand(), 0);
        stall.write_all(&[0; 2 * 1024]).await.unwrap();
        assert_eq!(hand(), 2 * 1024);
        // With a head, which wasn't handed.
        stall.write_all(&[0; 17 * 1024]).await.unwrap();
        assert_eq!(hand(), 16 * 1024);
        // The write wakes the waiting writer.
        let ((), written) = tokio::join!(outlet.room(), stall.write_all(&[0; 1024]));
        written.unwrap();
        drop(full);
    }
}
