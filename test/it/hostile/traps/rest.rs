//! Writes, locks, and a PONG that is late.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ptth_client::demo::Demo;
use ptth_server::lab::Identity;
use ptth_test::peer::*;
use ptth_test::{Backend, GatewayBox, H1, Lab, Peer, soon};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::time::{Instant, sleep};

use super::super::until;
use super::stream;

/// Counts the writes that reach a socket.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// 100 requests that come together leave together.
#[tokio::test(start_paused = true)]
async fn trap_9_frames_that_are_ready_together_are_one_write() {
    let mut lab = Lab::default();
    let (near, far) = duplex(256 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    lab.attach(Counting(near, writes.clone()), Identity::default());
    let mut backend = Peer::answering(far, &[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    let pool = lab.pool.clone();
    tokio::select! {
        () = pool.until(|tunnels| tunnels.len() == 1) => {}
        _ = async { while backend.next().await.is_some() {} } => panic!("closed"),
    }
    let mut visitor = lab.h2(&[]).await;
    let before = writes.load(Ordering::Relaxed);
    let long = "x".repeat(400);
    let fields: Vec<_> = get("/").into_iter().chain([("x", long.as_str())]).collect();
    let requests = (0..100).map(|n| headers(stream(n), END_STREAM, &fields));
    visitor.send(requests.collect::<Vec<_>>().concat()).await;
    for _ in 0..100 {
        soon("a request", backend.request()).await.expect("the tunnel lives");
    }
    let writes = writes.load(Ordering::Relaxed) - before;
    assert!(writes <= 10, "{writes} writes");
}

/// Each thread drives tunnels of its own, so that their locks are not fought for.
#[tokio::test]
async fn trap_10_tunnels_are_spread_over_the_threads() {
    let gateway = GatewayBox::start();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = gateway.client_config();
    config.tunnels = threads * 2;
    let _backend = Backend::start(config, Demo);
    gateway.until_tunnels(threads * 2).await;
    let mut shards: Vec<_> = gateway.pool.all().iter().map(|tunnel| tunnel.shard).collect();
    shards.sort_unstable();
    let even: Vec<_> = (0..threads).flat_map(|shard| [shard, shard]).collect();
    assert_eq!(shards, even);
    assert_eq!(H1::get(&gateway, "/").await.status, 200);
}

/// A PONG may queue behind megabytes. Any byte is a sign of life; none is a sign of death.
#[tokio::test(start_paused = true)]
async fn trap_13_a_pong_behind_much_data_is_waited_for() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    visitor.send(headers(1, END_STREAM, &get("/"))).await;
    let at = backend.request().await.unwrap().stream;
    backend.polite = false;
    backend.send(headers(at, 0, &[(":status", "200")])).await;
    for _ in 0..40 {
        sleep(Duration::from_secs(5)).await;
        assert!(backend.send(data(at, 0, b"x")).await);
        assert_eq!(lab.pool.all().len(), 1, "taken for dead");
    }
    let silence = Instant::now();
    until(|| lab.pool.all().is_empty()).await;
    assert!(silence.elapsed() <= Duration::from_secs(25), "{:?}", silence.elapsed());
}
