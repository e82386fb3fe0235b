//! One flush a poll: keeps h2 from turning each DATA frame into a TLS record and a system call.
//!
//! h2 flushes after every frame of 256 bytes or more. Here its writes gather in a buffer and its flush
//! does nothing; the driver of the connection calls [`Driver::poll_flush`] once after each poll of it.
//! Measured on the prototypes: 30 to 40 % of all CPU time.
//!
//! And one read of [`TURN`] bytes a poll: h2 reads as long as bytes come, and keeps each frame until the
//! stream's own task runs. A peer's tiny frames would fill the memory and stop every task on the thread.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::budget::BATCH;
use crate::lock::Mutex;

/// Sees the bytes that pass between h2 and the socket: what h2 doesn't tell of them.
pub trait Watch {
    /// What a read brought; nothing, where it waits.
    ///
    /// # Errors
    /// The read fails with it, and h2 gets nothing of these bytes.
    fn came(&mut self, _cx: &mut Context<'_>, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// What to write now of `bytes`: a part from their beginning, or others in place of as many.
    fn going<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(bytes)
    }

    /// What the socket took.
    fn went(&mut self, _bytes: &[u8]) {}
}

impl Watch for () {}

/// The half that h2 owns. Reads pass through; writes gather.
#[derive(Debug)]
pub struct Cork<T, W = ()>(Arc<Mutex<Corked<T, W>>>);

/// The half that the driver of the connection keeps.
#[derive(Debug)]
pub struct Driver<T, W = ()>(Arc<Mutex<Corked<T, W>>>);

#[derive(Debug)]
struct Corked<T, W> {
    io: T,
    watch: W,
    unsent: BytesMut,
    flushed: bool,
    /// The socket took less than there was.
    full: bool,
    /// A write waits, of which a part may have been taken before.
    waiting: bool,
    received: u64,
    sent: u64,
    /// h2 finds nothing to read.
    paused: bool,
    /// Bytes that were read since the last flush.
    turn: usize,
    /// How much gathers.
    batch: usize,
}

/// Wraps `io` for h2 and for the driver of the connection. Both live in one task, so the lock is never contended.
pub fn cork<T, W>(io: T, watch: W) -> (Cork<T, W>, Driver<T, W>) {
    let shared = Arc::new(Mutex::new(Corked {
        io,
        watch,
        unsent: BytesMut::new(),
        flushed: true,
        full: false,
        waiting: false,
        received: 0,
        sent: 0,
        paused: false,
        turn: 0,
        batch: BATCH,
    }));
    (Cork(shared.clone()), Driver(shared))
}

impl<T: AsyncWrite + Unpin, W: Watch> Driver<T, W> {
    /// Sends what has gathered. Pending while the socket is full; the caller is woken when it isn't.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.0.lock();
        corked.turn = 0;
        corked.poll_flush(cx)
    }

    /// Runs `future`, which works on the other half, and flushes after each poll of it.
    pub async fn flushing<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            // An error of the socket shows in the future's own next read or write.
            let _ = self.poll_flush(cx);
            polled
        })
        .await
    }

    /// Puts a frame of the caller's between two of h2's, to be sent by the next flush. To be called right
    /// after a poll of the connection; false if that left a frame half written, since the socket is full.
    pub fn inject(&self, frame: &[u8]) -> bool {
        let mut corked = self.0.lock();
        if !corked.waiting {
            corked.unsent.extend_from_slice(frame);
            corked.flushed = false;
        }
        !corked.waiting
    }

    /// Has h2 find nothing to read, so that a poll only writes. The caller polls again when it has ended this.
    pub fn pause_reads(&self, paused: bool) {
        self.0.lock().paused = paused;
    }

    /// The other half, once h2 is done with it.
    pub fn io(&self) -> Cork<T, W> {
        Cork(self.0.clone())
    }

    /// Whether all that gathered is sent.
    pub fn is_flushed(&self) -> bool {
        self.0.lock().flushed
    }

    /// Says how many bytes may gather.
    pub fn gather(&self, batch: usize) {
        self.0.lock().batch = batch;
    }

    /// Bytes that came from the peer so far: the proof of life that a busy link can't delay.
    pub fn received(&self) -> u64 {
        self.0.lock().received
    }

    /// The same, and the bytes that the socket took.
    pub(super) fn counts(&self) -> (u64, u64) {
        let corked = self.0.lock();
        (corked.received, corked.sent)
    }
}

impl<T: AsyncWrite + Unpin, W: Watch> Corked<T, W> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed {
            return Poll::Ready(Ok(()));
        }
        let polled = self.poll_send(cx);
        self.full = polled.is_pending();
        self.flushed = matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let part = self.watch.going(&self.unsent);
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &part))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.watch.went(self.unsent.get(..sent).unwrap_or_default());
            self.unsent.advance(sent);
            self.sent += sent as u64;
        }
        // An idle tunnel holds no buffer.
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<T: AsyncRead + Unpin, W: Watch> AsyncRead for Cork<T, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut corked = self.0.lock();
        if corked.paused {
            // No waker: the driver polls again at once.
            return Poll::Pending;
        }
        if corked.turn >= TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let corked = &mut *corked;
        let before = buf.filled().len();
        let polled = Pin::new(&mut corked.io).poll_read(cx, buf);
        let bytes = buf.filled().get(before..).unwrap_or_default();
        let read = bytes.len();
        if let Err(err) = corked.watch.came(cx, bytes) {
            buf.set_filled(before);
            return Poll::Ready(Err(err));
        }
        ready!(polled)?;
        corked.received += read as u64;
        corked.turn += read.max(LEAST_READ);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin, W: Watch> AsyncWrite for Cork<T, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut corked = self.0.lock();
        if corked.full || corked.unsent.len() >= corked.batch {
            corked.waiting = true;
            ready!(corked.poll_flush(cx))?;
        }
        corked.waiting = false;
        let all = corked.unsent.len() + buf.len();
        if all > SMALL.max(corked.unsent.capacity()) {
            // More will follow. Growing step by step would copy it all once more.
            let batch = corked.batch;
            corked.unsent.reserve(batch);
        }
        let taken = buf.len().min(corked.batch.saturating_sub(corked.unsent.len()));
        corked.unsent.extend_from_slice(buf.get(..taken).unwrap_or(buf));
        corked.flushed = false;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.0.lock();
        // A socket that fails here is as closed as it can be, and h2 would report that in place of the
        // GOAWAY for which it closes.
        let _ = ready!(corked.poll_flush(cx));
        let _ = ready!(Pin::new(&mut corked.io).poll_shutdown(cx));
        Poll::Ready(Ok(()))
    }
}

/// What one poll reads, and a read more at most. Frames of a byte: 6,500 of them, which cost h2 5 ms.
pub const TURN: usize = BATCH;
/// What a read counts for at least, since TLS gives one record a read: 1,024 reads a poll.
const LEAST_READ: usize = 64;
/// A head or two.
const SMALL: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts the writes that reach the socket.
    #[derive(Default)]
    struct Socket {
        writes: usize,
        bytes: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes += 1;
            self.bytes += buf.len();
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn many_flushed_frames_are_one_write() {
        let (mut cork, driver) = cork(Socket::default(), ());
        for _ in 0..100 {
            cork.write_all(&[0; 300]).await.unwrap();
            cork.flush().await.unwrap();
        }
        assert_eq!(driver.0.lock().io.writes, 0);
        poll_fn(|cx| driver.poll_flush(cx)).await.unwrap();
        assert_eq!(driver.0.lock().io.writes, 1);
        assert_eq!(driver.0.lock().io.bytes, 30_000);
    }

    #[tokio::test]
    async fn what_gathers_is_bounded_and_arrives_in_order() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut cork, driver) = cork(near, ());
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let writer = async {
            cork.write_all(&sent).await.unwrap();
            poll_fn(|cx| driver.poll_flush(cx)).await.unwrap();
            cork.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let reader = async { far.read_to_end(&mut got).await.unwrap() };
        tokio::join!(writer, reader);
        assert_eq!(got, sent);
        far.write_all(b"abc").await.unwrap();
        cork.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(driver.received(), 3);
    }

    #[tokio::test]
    async fn one_poll_reads_no_more_than_a_turn() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut cork, driver) = cork(near, ());
        far.write_all(&vec![0; 4 * TURN]).await.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..4 {
            let (mut taken, mut room) = (0, vec![0; 8 * 1024]);
            loop {
                let mut buf = ReadBuf::new(&mut room);
                if Pin::new(&mut cork).poll_read(&mut cx, &mut buf).is_pending() {
                    break;
                }
                taken += buf.filled().len();
            }
            assert_eq!(taken, TURN);
            assert!(driver.poll_flush(&mut cx).is_ready());
        }
        assert_eq!(driver.received(), 4 * TURN as u64);
    }

    #[tokio::test]
    async fn a_full_socket_stops_the_writer() {
        let (near, _far) = tokio::io::duplex(64);
        let (mut cork, driver) = cork(near, ());
        let mut taken = 0;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(n) = Pin::new(&mut cork).poll_write(&mut cx, &[0; 1000]) {
            taken += n.unwrap();
            assert!(taken <= 2 * BATCH, "the buffer has no bound");
        }
        assert!(taken >= BATCH, "{taken}");
        assert!(!driver.inject(&[0; 17]), "between two halves of a frame");
    }

    /// Nothing may be put between two halves of a frame, though the socket has room again.
    #[tokio::test]
    async fn nothing_is_injected_while_a_write_waits() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let (mut cork, driver) = cork(near, ());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for part in [BATCH, BATCH] {
            assert_eq!(cork.write(&vec![0; 70 * 1024]).await.unwrap(), part);
        }
        assert!(Pin::new(&mut cork).poll_write(&mut cx, &[0; 6 * 1024]).is_pending());
        far.read_exact(&mut vec![0; BATCH]).await.unwrap();
        assert!(driver.poll_flush(&mut cx).is_ready());
        assert!(!driver.inject(&[0; 17]));
        assert!(Pin::new(&mut cork).poll_write(&mut cx, &[0; 6 * 1024]).is_ready());
        assert!(driver.inject(&[0; 17]));
    }

    #[tokio::test]
    async fn nothing_is_taken_while_the_socket_is_full() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut cork, driver) = cork(near, ());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        cork.write_all(&[0; 100]).await.unwrap();
        assert!(driver.poll_flush(&mut cx).is_pending());
        assert!(Pin::new(&mut cork).poll_write(&mut cx, &[0; 100]).is_pending());
        far.read_exact(&mut [0; 64]).await.unwrap();
        assert!(Pin::new(&mut cork).poll_write(&mut cx, &[0; 100]).is_ready());
    }

    #[tokio::test]
    async fn as_much_gathers_as_was_said() {
        let (mut cork, driver) = cork(Socket::default(), ());
        driver.gather(1000);
        assert_eq!(cork.write(&[0; 2000]).await.unwrap(), 1000);
        assert_eq!(driver.0.lock().io.writes, 0);
        assert_eq!(cork.write(&[0; 2000]).await.unwrap(), 1000);
        assert_eq!(driver.0.lock().io.writes, 1);
    }
}
