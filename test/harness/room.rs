//! Gateway, backends and visitors in one runtime, over pipes: with a paused clock, hours cost nothing.

use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use ptth_client::config as client;
use ptth_client::dial::Network;
use ptth_client::journal::Journal;
use ptth_client::{Body, Process, Stopped};
use ptth_link::crypto;
use ptth_link::shutdown::{Phase, Trigger, channel};
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::lab::{Driving, deliver};
use ptth_server::lab::{Peer, Rewind, accept_tls, serve_backend, serve_visitor};
use ptth_server::lab::{Pool, Tunnel};
use ptth_server::lab::{Shard, Shared};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::wire::{Road, Weather, carry};
use crate::{Hello, soon};

/// A gateway of one shard that listens nowhere.
#[derive(Debug)]
pub struct Room {
    /// The gateway.
    pub shard: Arc<Shard>,
    /// What admits a backend.
    pub token: Token,
    trigger: Trigger,
    connections: Connections,
}

type Connections = Arc<Mutex<JoinSet<()>>>;

impl Room {
    /// With the defaults, a self-signed certificate and a fresh token.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same, after `change`.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let token = Token::generate();
        let keys = vec![token.public()];
        let admission = Admission::Keys { keys, file: None, made: None };
        let names = vec!["example.test".to_owned()];
        let mut config =
            Config::new(CertificateSource::SelfSigned { names, kept: None }, admission);
        change(&mut config);
        let (trigger, shutdown) = channel();
        let (sender, tunnels) = mpsc::unbounded_channel();
        let shared = Shared::new(&config, vec![sender]).expect("the gateway starts");
        let shard = Arc::new(Shard { index: 0, shutdown, shared });
        let mut running = JoinSet::new();
        running.spawn(deliver(shard.clone()));
        running.spawn(drive(tunnels));
        Self { shard, token, trigger, connections: Arc::new(Mutex::new(running)) }
    }

    /// The gateway's tunnels.
    pub fn pool(&self) -> Arc<Pool> {
        self.shard.registry.policy().routes()[0].pool.clone()
    }

    /// Those of them that take requests.
    pub fn live(&self) -> Vec<Arc<Tunnel>> {
        let mut live = self.pool().all();
        live.retain(|tunnel| !tunnel.is_draining());
        live
    }

    /// Waits until exactly so many tunnels take requests.
    pub async fn until_tunnels(&self, count: usize) {
        let holds = |tunnels: &[Arc<Tunnel>]| {
            tunnels.iter().filter(|tunnel| !tunnel.is_draining()).count() == count
        };
        soon("the tunnels", self.pool().until(holds)).await;
    }

    /// Tells the gateway to finish, and later to end.
    pub fn advance(&self, phase: Phase) {
        self.trigger.advance(phase);
    }

    /// A network of its own to the gateway.
    pub fn network(&self, road: Road) -> Pipes {
        let (weather, seen) = watch::channel(Weather::Fair);
        Pipes {
            shard: self.shard.clone(),
            connections: self.connections.clone(),
            road,
            weather: Arc::new(weather),
            seen,
        }
    }

    /// What a client needs to know to hold tunnels to it.
    pub fn client_config(&self) -> client::Config {
        let gateway = client::Gateway { host: "example.test".to_owned(), port: 443 };
        let mut config = client::Config::new(gateway);
        let pin = crypto::parse_pin(&self.shard.tls.pin().expect("a certificate")).expect("a pin");
        config.trust = client::Trust::Pin(pin);
        config.token = Some(self.token.clone());
        config
    }

    /// A visitor's TLS connection that offers `alpn`.
    pub async fn visit(&self, network: &Pipes, alpn: &[&[u8]]) -> TlsStream<DuplexStream> {
        let hello = Hello::offering(alpn);
        let (io, _) = network.open();
        let connector = TlsConnector::from(Arc::new(hello.config()));
        soon("TLS", connector.connect(hello.server_name(), io)).await.expect("TLS")
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

/// Pipes to a gateway, and the weather between.
#[derive(Clone, Debug)]
pub struct Pipes {
    shard: Arc<Shard>,
    connections: Connections,
    road: Road,
    weather: Arc<watch::Sender<Weather>>,
    seen: watch::Receiver<Weather>,
}

impl Pipes {
    /// Changes the weather for what is under way and for what comes.
    pub fn set(&self, weather: Weather) {
        let _ = self.weather.send(weather);
    }

    /// A connection to the gateway.
    pub fn open(&self) -> (DuplexStream, SocketAddr) {
        let (near, far) = (duplex(PIPE), duplex(PIPE));
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.spawn(carry(near.1, far.1, self.road, self.seen.clone()));
        connections.spawn(serve(self.shard.clone(), far.0, peer));
        (near.0, SocketAddr::from((Ipv4Addr::LOCALHOST, 443)))
    }
}

impl Network for Pipes {
    type Io = DuplexStream;

    async fn connect(&self, _: &client::Gateway) -> io::Result<(DuplexStream, SocketAddr)> {
        match *self.seen.borrow() {
            Weather::Fair => Ok(self.open()),
            Weather::Cut => Err(io::ErrorKind::ConnectionRefused.into()),
            // What a SYN that nobody answers comes to.
            Weather::Silent => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Serves one connection of whatever kind, as the gateway's own listener does.
pub async fn serve<IO>(shard: Arc<Shard>, io: IO, peer: SocketAddr)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(permit) = shard.connections.take(Some(peer.ip()), || true) else { return };
    match accept_tls(&shard, Rewind::new(io), peer, &permit).await {
        Some((stream, Peer::Backend)) => {
            serve_backend(*stream, shard.clone(), peer, Arc::default()).await;
        }
        Some((stream, kind)) => serve_visitor(&shard, stream, kind, peer, Arc::default()).await,
        None => {}
    }
}

/// Drives the tunnels that visitors' connections become, as the gateway's own thread does.
async fn drive(mut tunnels: mpsc::UnboundedReceiver<Driving>) {
    let mut driven = JoinSet::new();
    loop {
        tokio::select! {
            Some(tunnel) = tunnels.recv() => drop(driven.spawn(tunnel)),
            Some(_) = driven.join_next() => {}
            else => return,
        }
    }
}

/// A backend of such a gateway. Dropping it cuts its tunnels.
#[derive(Debug)]
pub struct Guest {
    trigger: Trigger,
    holding: JoinSet<Result<(), Stopped>>,
}

impl Guest {
    /// Holds the tunnels of `process` by way of `network`, and answers with `service`.
    pub fn start<N, S, B>(process: &Process, network: N, service: S) -> Self
    where
        N: Network,
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Display + Send,
    {
        let (trigger, shutdown) = channel();
        let mut holding = JoinSet::new();
        let process = process.clone();
        holding.spawn(
            async move { process.hold(0..process.slots(), network, service, shutdown).await },
        );
        Self { trigger, holding }
    }

    /// Asks it to finish and end, as SIGTERM does.
    pub fn stop(&self) {
        self.trigger.advance(Phase::Draining);
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Result<(), Stopped> {
        self.holding.join_next().await.expect("it was started").expect("no panic")
    }
}

/// A client's process, that of `config`.
pub fn process(config: client::Config) -> Process {
    Process::new(config, Journal::default()).expect("a client's configuration")
}

/// Bytes that one pipe holds, as a socket's buffer does.
const PIPE: usize = 256 * 1024;
