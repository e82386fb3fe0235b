//! A tunnel inside one HTTP/2 stream: the stream's two directions as a byte stream (RFC 8441 §4).
//!
//! The owner of the outer connection drives it elsewhere. Credit goes back as the bytes are read: the
//! tunnel's own windows, inside, limit the sender.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The byte stream. Dropped before both directions have ended, it resets the HTTP/2 stream.
#[derive(Debug)]
pub struct Nested<K> {
    send: SendStream<Bytes>,
    recv: RecvStream,
    unread: Bytes,
    ended: bool,
    _kept: K,
}

impl<K> Nested<K> {
    /// `kept` is dropped with the stream, and keeps the outer connection up until then.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream, kept: K) -> Self {
        Self { send, recv, unread: Bytes::new(), ended: false, _kept: kept }
    }

    /// Waits for bytes. False at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.is_empty() {
            let Some(data) = ready!(self.recv.poll_data(cx)) else { return Poll::Ready(Ok(false)) };
            let data = data.map_err(failure)?;
            // The library holds at most one window of unread bytes.
            self.recv.flow_control().release_capacity(data.len()).map_err(failure)?;
            self.unread = data;
        }
        Poll::Ready(Ok(true))
    }
}

impl<K: Unpin> AsyncRead for Nested<K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_fill(cx))? {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(taken));
        }
        Poll::Ready(Ok(()))
    }
}

impl<K: Unpin> AsyncWrite for Nested<K> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(CHUNK));
        while self.send.capacity() == 0 {
            let granted = ready!(self.send.poll_capacity(cx)).ok_or(io::ErrorKind::BrokenPipe)?;
            granted.map_err(failure)?;
        }
        let chunk = buf.get(..self.send.capacity().min(CHUNK)).unwrap_or(buf);
        self.send.send_data(Bytes::copy_from_slice(chunk), false).map_err(failure)?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The outer connection's driver flushes.
        Poll::Ready(Ok(()))
    }

    /// Ends this direction, and waits until the peer has ended its own: then all has arrived.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            // An error means that the stream was reset, which the read below returns, too.
            let _ = self.send.send_data(Bytes::new(), true);
        }
        while ready!(self.poll_fill(cx))? {
            self.unread.clear();
        }
        Poll::Ready(Ok(()))
    }
}

/// The socket's own error where it is one: a refusal by TLS is recognised by it.
fn failure(err: h2::Error) -> io::Error {
    if err.is_io() {
        return err.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::other(err)
}

/// Requested from the window at once: one write of a tunnel.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinSet;

    use super::*;

    /// Both ends of a stream of one HTTP/2 connection.
    async fn pair(driving: &mut JoinSet<()>) -> (Nested<()>, Nested<()>) {
        let (near, far): (DuplexStream, DuplexStream) = duplex(64);
        let server = async {
            let mut connection = h2::server::handshake(far).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(http::Response::new(()), false).unwrap();
            (Nested::new(send, request.into_body(), ()), connection)
        };
        let client = async {
            let (mut sender, connection) = h2::client::handshake(near).await.unwrap();
            driving.spawn(async move { drop(connection.await) });
            let request = http::Request::post("https://x/").body(()).unwrap();
            let (response, send) = sender.send_request(request, false).unwrap();
            (send, response)
        };
        let ((there, mut connection), (send, response)) = tokio::join!(server, client);
        driving.spawn(async move { while connection.accept().await.is_some() {} });
        let recv = response.await.unwrap().into_body();
        (Nested::new(send, recv, ()), there)
    }

    #[tokio::test]
    async fn more_than_any_window_crosses_both_ways_and_in_order() {
        let mut driving = JoinSet::new();
        let (near, far) = pair(&mut driving).await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
        let both = [near, far].map(|end| {
            let sent = sent.clone();
            async move {
                let (mut read, mut write) = tokio::io::split(end);
                let writing = async { write.write_all(&sent).await.unwrap() };
                let mut got = vec![0; sent.len()];
                let reading = async { read.read_exact(&mut got).await.map(drop).unwrap() };
                tokio::join!(writing, reading);
                assert!(got == sent);
            }
        });
        let [near, far] = both;
        tokio::join!(near, far);
    }

    #[tokio::test]
    async fn a_shutdown_waits_until_the_peer_has_all() {
        let mut driving = JoinSet::new();
        let (mut near, mut far) = pair(&mut driving).await;
        near.write_all(b"last words").await.unwrap();
        let mut heard = String::new();
        let far = async {
            far.read_to_string(&mut heard).await.unwrap();
            far.write_all(b"unread").await.unwrap();
            far.shutdown().await.unwrap();
        };
        let (ended, ()) = tokio::join!(near.shutdown(), far);
        ended.unwrap();
        assert_eq!(heard, "last words");
    }

    #[tokio::test]
    async fn a_peer_who_reads_nothing_stops_the_writer() {
        let mut driving = JoinSet::new();
        let (mut near, _far) = pair(&mut driving).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut taken = 0;
        for _ in 0..1000 {
            match Pin::new(&mut near).poll_write(&mut cx, &[0; 1000]) {
                Poll::Ready(n) => taken += n.unwrap(),
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        assert!((60_000..200_000).contains(&taken), "a window, about: {taken}");
    }

    #[tokio::test]
    async fn a_reset_is_an_error_and_no_end() {
        let mut driving = JoinSet::new();
        let (mut near, far) = pair(&mut driving).await;
        drop(far);
        assert!(near.read(&mut [0]).await.is_err());
    }
}
