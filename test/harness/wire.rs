//! A network between two programs: it delays, goes silent, and is cut, as a test says.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
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
                        carry(near, far, delay, seen).await;
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

async fn carry(
    near: TcpStream,
    far: TcpStream,
    delay: Duration,
    mut weather: watch::Receiver<Weather>,
) {
    for socket in [&near, &far] {
        let _ = socket.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut both = JoinSet::new();
    both.spawn(one_way(near_read, far_write, delay, weather.clone()));
    both.spawn(one_way(far_read, near_write, delay, weather.clone()));
    tokio::select! {
        // Dropping sockets with unread bytes in them resets the connection.
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
        () = async { while both.join_next().await.is_some() {} } => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut weather: watch::Receiver<Weather>,
) {
    // What is under way is bounded, as in a network: 64 MiB is 100 ms at 5 Gbit/s.
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        loop {
            let mut chunk = vec![0; 64 * 1024];
            match from.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => chunk.truncate(count),
            }
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
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
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
