//! The end of a connection, where the peer has still to read what was sent last.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::deadline::Deadline;

/// Closes our half, then reads and drops what still comes: closing a socket with unread bytes in it sends a
/// reset, which destroys what the peer hasn't received yet (RFC 1122 §4.2.2.13, RFC 9112 §9.6).
///
/// Ends when the peer closes, is silent for [`PATIENCE`], has sent `most` bytes, or after `longest`.
#[derive(Debug)]
pub struct Linger {
    shut: bool,
    left: usize,
    due: Instant,
    last: Instant,
    deadline: Deadline,
}

impl Linger {
    /// Begins now.
    pub fn new(longest: Duration, most: usize) -> Self {
        let now = Instant::now();
        let due = now + PATIENCE.min(longest);
        Self { shut: false, left: most, due, last: now + longest, deadline: Deadline::default() }
    }

    /// Ready when the socket may be closed.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<()> {
        if self.poll_rest(cx, io).is_ready() {
            Poll::Ready(())
        } else {
            self.deadline.poll_at(cx, self.due)
        }
    }

    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<()> {
        if !self.shut {
            self.shut = ready!(Pin::new(&mut *io).poll_shutdown(cx)).is_ok();
        }
        let mut room = [0; 4096];
        while self.shut && self.left > 0 {
            let mut read = ReadBuf::new(&mut room);
            let polled = ready!(Pin::new(&mut *io).poll_read(cx, &mut read));
            let count = polled.map_or(0, |()| read.filled().len());
            if count == 0 {
                break;
            }
            self.left = self.left.saturating_sub(count);
            self.due = (Instant::now() + PATIENCE).min(self.last);
        }
        Poll::Ready(())
    }
}

/// The same for a socket that the caller owns. Cancel safe.
pub async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin, longest: Duration, most: usize) {
    let mut linger = Linger::new(longest, most);
    poll_fn(|cx| linger.poll(cx, &mut io)).await;
}

/// As long as a round trip of the slowest link, and one lost packet.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// What a peer has under way before it learns that it isn't heard any more: its window, or frames in a loop.
pub const UNDER_WAY: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// The end of our half is seen at once, and what the peer still sends is taken.
    #[tokio::test(start_paused = true)]
    async fn a_peer_reads_the_end_while_it_sends() {
        let (ours, mut peer) = duplex(64);
        let began = Instant::now();
        let talks = async {
            assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
            peer.write_all(&[7; 1000]).await.unwrap();
            drop(peer);
        };
        tokio::join!(linger(ours, PATIENCE * 10, UNDER_WAY), talks);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_left() {
        let (ours, mut peer) = duplex(64);
        let began = Instant::now();
        let floods = async { while peer.write_all(&[7; 64]).await.is_ok() {} };
        tokio::join!(linger(ours, PATIENCE * 10, 1000), floods);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let (ours, _silent) = duplex(64);
        linger(ours, PATIENCE * 10, 1000).await;
        assert_eq!(began.elapsed(), PATIENCE);
        let (ours, mut peer) = duplex(64);
        let trickles = async {
            while peer.write_all(&[7]).await.is_ok() {
                tokio::time::sleep(PATIENCE / 2).await;
            }
        };
        tokio::join!(linger(ours, PATIENCE * 3, 1000), trickles);
        assert!(began.elapsed() <= PATIENCE * 5, "{:?}", began.elapsed());
    }
}
