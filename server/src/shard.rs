//! One thread's view of the gateway, and what all threads share.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ptth_link::budget::Budget;
use ptth_link::limits::BODY_BUDGET;
use ptth_link::shutdown::Shutdown;
use tokio::sync::mpsc;

use crate::config::{Config, Limits, ProxyProtocol, Trusted};
use crate::deliver::{Courier, Outbox};
use crate::edge::Edge;
use crate::policy::Policy;
use crate::public::Visitor;
use crate::quota::{Attempts, ConnectionLimit, ConnectionPermit};
use crate::registry::Registry;
use crate::tls::{Tls, TlsError};
use crate::tunnel::{Driving, Home};

/// What all shards share.
#[derive(Debug)]
pub struct Shared {
    /// Certificates and keys.
    pub tls: Tls,
    /// The live tunnels and the policy by which they are here.
    pub registry: Arc<Registry>,
    /// What is delivered after its sender was answered.
    pub outbox: Arc<Outbox>,
    /// What bodies may hold.
    pub budget: Arc<Budget>,
    /// Failed admissions, by address.
    pub attempts: Arc<Attempts>,
    /// How many connections there may be.
    pub connections: Arc<ConnectionLimit>,
    /// How long and how many.
    pub limits: Limits,
    /// The proxies whose word counts.
    pub trusted: Trusted,
    /// Whether they speak the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// The port that the world knows, for the addresses that backends are told.
    pub port: OnceLock<u16>,
    shards: Vec<mpsc::UnboundedSender<Driving>>,
}

impl Shared {
    /// What `config` says, for the shards that drive what is sent to `shards`. Reads files,
    /// so it blocks.
    ///
    /// # Errors
    /// [`TlsError`]: certificate or keys.
    pub fn new(
        config: &Config,
        shards: Vec<mpsc::UnboundedSender<Driving>>,
    ) -> Result<Arc<Self>, TlsError> {
        let tls = Tls::new(config)?;
        let policy = Policy::new(config, tls.known(), shards.len(), None);
        Ok(Arc::new(Self {
            tls,
            registry: Registry::new(policy, shards.len(), config.limits.tunnels),
            outbox: Arc::default(),
            budget: Budget::new(BODY_BUDGET),
            attempts: Attempts::new(),
            connections: ConnectionLimit::new(&config.limits),
            limits: config.limits.clone(),
            trusted: config.trusted.clone(),
            proxy_protocol: config.proxy_protocol,
            port: OnceLock::new(),
            shards,
        }))
    }
}

impl Shared {
    /// How many threads there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }
}

/// One thread's view of the gateway.
#[derive(Debug)]
pub struct Shard {
    /// Which one it is.
    pub index: usize,
    /// The end of the process.
    pub shutdown: Shutdown,
    /// What all have in common.
    pub shared: Arc<Shared>,
}

impl std::ops::Deref for Shard {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Shard {
    /// A gateway of one shard and without a socket. Whoever brings the connections (a simulated
    /// network, another program's listener) gives each to [`crate::listener::accept_tls`], and what
    /// comes of that to [`crate::listener::serve_visitor`] or [`crate::listener::serve_backend`].
    /// Reads files, so it blocks.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn alone(config: &Config, shutdown: Shutdown) -> Result<Arc<Self>, TlsError> {
        // Nobody drives tunnels for it; it is its own only shard.
        Self::embedded(config, shutdown).map(|(shard, _)| shard)
    }

    /// A gateway of one shard inside another program; and the work that it wants driven.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn embedded(
        config: &Config,
        shutdown: Shutdown,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Driving>), TlsError> {
        let (sender, work) = mpsc::unbounded_channel();
        let shared = Shared::new(config, vec![sender])?;
        Ok((Arc::new(Self { index: 0, shutdown, shared }), work))
    }

    /// Where a tunnel driven by shard `index` belongs.
    pub fn home(&self, index: usize) -> Home {
        Home {
            registry: self.registry.clone(),
            shard: index,
            budget: self.budget.part(),
            shutdown: self.shutdown.clone(),
            port: self.port.get().copied(),
            permit: Arc::default(),
            proven: false,
        }
    }

    /// A visitor on this shard.
    pub fn visitor(
        &self,
        address: IpAddr,
        sni: Option<&str>,
        stay: Arc<ConnectionPermit>,
    ) -> Visitor {
        let trusted =
            if stay.opaque.get().is_some() { Trusted::default() } else { self.trusted.clone() };
        Visitor {
            address,
            sni: sni.map(str::to_owned),
            said: None,
            edge: Edge { certificates: Some(self.tls.certificates()), trusted, ..Edge::default() },
            registry: self.registry.clone(),
            outbox: self.outbox.clone(),
            shard: self.index,
            budget: self.budget.part(),
            limits: self.limits.clone(),
            shutdown: self.shutdown.clone(),
            attempts: self.attempts.clone(),
            drive: self.shards.get(self.index).cloned(),
            stay,
            stated: Arc::default(),
        }
    }

    /// Who delivers what the outbox holds, from this shard. One of a gateway's shards runs it.
    pub fn courier(&self) -> Courier {
        Courier {
            outbox: self.outbox.clone(),
            registry: self.registry.clone(),
            shard: self.index,
            limits: self.limits.clone(),
            shutdown: self.shutdown.clone(),
        }
    }

    /// Has shard `index` drive a tunnel.
    pub fn hand_over(&self, index: usize, tunnel: Driving) {
        if let Some(shard) = self.shards.get(index) {
            // Fails only when that thread is gone, which is the end of the process.
            let _ = shard.send(tunnel);
        }
    }
}
