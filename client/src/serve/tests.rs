//! Gateways that end a tunnel in the midst of talk.

use std::io;
use std::task::Context;

use ptth_link::h2::goaway::{Why, refusal};
use ptth_link::shutdown::channel;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::Instant;

use super::*;
use crate::demo::Demo;

/// A socket whose peer has closed it: it takes nothing, and what came before can be read.
struct Closed(DuplexStream);

impl AsyncRead for Closed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Closed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn answering() -> Answering {
    Answering { ours: true, ..Answering::new(Journal::default()) }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_though_the_socket_is_closed_already() {
    let (mut gateway, near) = duplex(4096);
    let (_trigger, drain) = channel();
    let (up, _) = oneshot::channel();
    let bytes = refusal(Why::Taken, "taken");
    let (preface, goaway) = bytes.split_at(24 + 9);
    let say = async {
        gateway.write_all(preface).await.unwrap();
        // A moment later, when the write has failed already.
        sleep(LAST_WORDS / 2).await;
        gateway.write_all(goaway).await.unwrap();
        gateway
    };
    let (ended, _gateway) = tokio::join!(answer(Closed(near), Demo, answering(), drain, up), say);
    assert_eq!(ended.to_string(), "the gateway ended it: taken (\"taken\")");
    assert!(matches!(ended, Ended::Told(Why::Taken, _)));
}

#[tokio::test(start_paused = true)]
async fn a_closed_socket_that_says_nothing_ends_the_tunnel_soon() {
    let (mut gateway, near) = duplex(4096);
    let (_trigger, drain) = channel();
    let (up, _) = oneshot::channel();
    gateway.write_all(&refusal(Why::Taken, "taken")[..24 + 9]).await.unwrap();
    let begun = Instant::now();
    let ended = answer(Closed(near), Demo, answering(), drain, up).await;
    assert!(matches!(ended, Ended::Connection(engine::Ended::Socket(_))), "{ended}");
    assert_eq!(begun.elapsed().as_secs(), LAST_WORDS.as_secs());
}
