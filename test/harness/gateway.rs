//! A gateway in threads of its own, on a port of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ptth_client::config as client;
use ptth_link::crypto;
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config, ConfigError};
use ptth_server::lab::Entrance;
use ptth_server::lab::Pool;
use ptth_server::lab::Registry;
use ptth_server::{Gateway, Order};
use tokio::sync::mpsc;

use crate::soon;

/// A running gateway. Dropping it ends it.
#[derive(Debug)]
pub struct GatewayBox {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens, for each of its addresses in turn.
    pub addresses: Vec<(Entrance, SocketAddr)>,
    /// By which its certificate is known.
    pub pin: [u8; 32],
    /// What admits a backend; of no use to an open gateway.
    pub token: Token,
    /// The tunnels of its first route.
    pub pool: Arc<Pool>,
    /// All its tunnels.
    pub registry: Arc<Registry>,
    orders: mpsc::UnboundedSender<Order>,
    running: Option<JoinHandle<()>>,
}

impl GatewayBox {
    /// A gateway with a self-signed certificate and a fresh token.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, after `change`.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let token = Token::generate();
        let mut config = Self::config(&token);
        change(&mut config);
        Self::run(&config, token)
    }

    /// What [`Self::start`] starts.
    pub(crate) fn config(token: &Token) -> Config {
        let keys = vec![token.public()];
        let admission = Admission::Keys { keys, file: None, made: None };
        let names = vec!["example.test".to_owned()];
        let mut config =
            Config::new(CertificateSource::SelfSigned { names, kept: None }, admission);
        config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        config
    }

    /// A gateway that admits any backend.
    pub fn open() -> Self {
        Self::with(|config| config.admission = Admission::Open)
    }

    fn run(config: &Config, token: Token) -> Self {
        Self::over(Gateway::bind(config).expect("the gateway starts"), token)
    }

    /// A gateway that reads its configuration again by `load`.
    pub(crate) fn reloading(
        config: &Config,
        token: Token,
        load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> Self {
        let gateway = Gateway::bind(config).expect("the gateway starts");
        Self::over(gateway.reloading(load), token)
    }

    fn over(gateway: Gateway, token: Token) -> Self {
        let addresses = gateway.addresses().to_vec();
        let address = addresses[0].1;
        let pin =
            gateway.tls().pin().map_or([0; 32], |pin| crypto::parse_pin(&pin).expect("a pin"));
        let registry = gateway.registry();
        let first = registry.policy().routes().first().map(|route| route.pool.clone());
        let pool = first.unwrap_or_else(|| Pool::new(1));
        let (orders, receiver) = mpsc::unbounded_channel();
        #[expect(clippy::disallowed_methods, reason = "joined when this is dropped")]
        let running = thread::spawn(move || gateway.run(receiver).expect("the gateway runs"));
        Self { address, addresses, pin, token, pool, registry, orders, running: Some(running) }
    }

    /// Where it takes HTTP without TLS.
    pub fn plain(&self) -> SocketAddr {
        self.entrance(|entrance| entrance == Entrance::Plain)
    }

    /// Where it only redirects.
    pub fn redirect(&self) -> SocketAddr {
        self.entrance(|entrance| entrance == Entrance::Redirect)
    }

    fn entrance(&self, is: impl Fn(Entrance) -> bool) -> SocketAddr {
        let found = self.addresses.iter().find(|(entrance, _)| is(*entrance));
        found.expect("such an entrance").1
    }

    /// What a client needs to know to hold tunnels to it.
    pub fn client_config(&self) -> client::Config {
        self.client_config_via(self.address)
    }

    /// The same, by way of something in between.
    pub fn client_config_via(&self, address: SocketAddr) -> client::Config {
        let gateway = client::Gateway { host: address.ip().to_string(), port: address.port() };
        let mut config = client::Config::new(gateway);
        config.trust = client::Trust::Pin(self.pin);
        config.token = Some(self.token.clone());
        config
    }

    /// Gives an order.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Waits until exactly so many tunnels take requests.
    pub async fn until_tunnels(&self, count: usize) {
        let live = |tunnels: &[Arc<_>]| {
            tunnels
                .iter()
                .filter(|tunnel: &&Arc<ptth_server::lab::Tunnel>| !tunnel.is_draining())
                .count()
        };
        soon("the tunnels", self.pool.until(|tunnels| live(tunnels) == count)).await;
    }

    /// Waits until so many tunnels are here, whatever they serve.
    pub async fn until_registered(&self, count: usize) {
        soon("the tunnels", until_registered(&self.registry, count)).await;
    }

    /// Waits until the process would have ended.
    pub fn join(mut self) {
        if let Some(running) = self.running.take() {
            running.join().expect("the gateway ends in order");
        }
    }
}

impl Drop for GatewayBox {
    fn drop(&mut self) {
        self.order(Order::Abort);
        if let Some(running) = self.running.take() {
            let ended = running.join();
            if !thread::panicking() {
                ended.expect("the gateway ends in order");
            }
        }
    }
}

/// Waits until a gateway has exactly so many tunnels.
pub async fn until_registered(registry: &Registry, count: usize) {
    loop {
        // Made before the look, it misses no change after it.
        let changed = registry.changed();
        if registry.all().len() == count {
            return;
        }
        changed.await;
    }
}
