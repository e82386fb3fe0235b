//! A network between two programs: it delays, is narrow, goes silent, and is cut, as a test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What the network does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weather {
    /// Carries bytes.
    Fair,
    /// Carries nothing, and says nothing: no FIN, no RST.
    Silent,
    /// Resets every connection.
    Cut,
}

/// How long and how wide a network is, each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Road {
    /// Each byte is under way for so long.
    pub delay: Duration,
    /// Bytes a second, for all that goes one way on one connection.
    pub rate: Option<u32>,
}

/// A port that leads to another one.
#[derive(Debug)]
pub struct Wire {
    /// Where it begins.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    #[allow(dead_code, reason = "held for its drop")]
    carrying: JoinSet<()>,
}

impl Wire {
    /// A wire to `target`, on which each byte is under way for `delay` (one way).
    pub async fn to(target: SocketAddr, delay: Duration) -> Self {
        Self::along(target, Road { delay, rate: None }).await
    }

    /// A wire to `target` of that length and width.
    pub async fn along(target: SocketAddr, road: Road) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (weather, seen) = watch::channel(Weather::Fair);
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                if *seen.borrow() == Weather::Cut {
                    continue;
                }
                let seen = seen.clone();
                connections.spawn(async move {
                    if let Ok(far) = TcpStream::connect(target).await {
                        for socket in [&near, &far] {
                            let _ = socket.set_nodelay(true);
                        }
                        carry(near, far, road, seen).await;
                    }
                });
            }
        });
        Self { address, weather, carrying }
    }

    /// Changes the weather for what is under way and for what comes.
    pub fn set(&self, weather: Weather) {
        let _ = self.weather.send(weather);
    }
}

/// Carries bytes both ways until both sides have ended, or the weather cuts them off.
pub async fn carry<N, F>(near: N, far: F, road: Road, mut weather: watch::Receiver<Weather>)
where
    N: AsyncRead + AsyncWrite + Send + 'static,
    F: AsyncRead + AsyncWrite + Send + 'static,
{
    let (near_read, near_write) = split(near);
    let (far_read, far_write) = split(far);
    let mut both = JoinSet::new();
    both.spawn(one_way(near_read, far_write, road, weather.clone()));
    both.spawn(one_way(far_read, near_write, road, weather.clone()));
    tokio::select! {
        // Dropping sockets with unread bytes in them resets the connection.
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
        () = async { while both.join_next().await.is_some() {} } => {}
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    road: Road,
    mut weather: watch::Receiver<Weather>,
) {
    // What is under way is bounded, as in a network: 64 MiB is 100 ms at 5 Gbit/s.
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut lane = Lane::new(road);
        loop {
            let mut chunk = vec![0; CHUNK];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            let due = lane.enter(chunk.len()).await;
            if sender.send((due, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            if weather.wait_for(|weather| *weather != Weather::Silent).await.is_err() {
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // A FIN is a packet like any other.
        sleep_until(Instant::now() + road.delay).await;
        let _ = weather.wait_for(|weather| *weather != Weather::Silent).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// One direction's share of the road.
struct Lane {
    road: Road,
    free: Instant,
}

impl Lane {
    fn new(road: Road) -> Self {
        Self { road, free: Instant::now() }
    }

    /// Waits for room for so many bytes, and says when they arrive.
    async fn enter(&mut self, bytes: usize) -> Instant {
        let now = Instant::now();
        if let Some(rate) = self.road.rate {
            // What a late timer lost is made up for, or the road would be narrower than it says.
            self.free = self.free.max(now - LATENESS);
            self.free += Duration::from_secs_f64(bytes as f64 / f64::from(rate));
            sleep_until(self.free).await;
        }
        Instant::now() + self.road.delay
    }
}

const CHUNK: usize = 64 * 1024;
/// How late timers may be on a busy machine.
const LATENESS: Duration = Duration::from_millis(20);
