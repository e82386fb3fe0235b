//! One thread's view of the gateway, and what all threads share.
#![allow(missing_docs, reason = "it is public for the tests alone")]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use ptth_link::admin;
use ptth_link::budget::Budget;
use ptth_link::explain::Explain;
use ptth_link::limits::BODY_BUDGET;
use ptth_link::shutdown::{Phase, Shutdown};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::config::{Config, Limits, ProxyProtocol, Trusted};
use crate::observe::Observe;
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::quota::{Attempts, ConnectionLimit};
use crate::registry::Registry;
use crate::tls::{Tls, TlsError};

/// What all shards share.
#[derive(Debug)]
pub struct Shared {
    pub tls: Tls,
    pub registry: Arc<Registry>,
    pub outbox: Arc<Outbox>,
    pub budget: Arc<Budget>,
    pub attempts: Arc<Attempts>,
    pub connections: Arc<ConnectionLimit>,
    pub observe: Arc<Observe>,
    pub explain: Explain,
    pub limits: Limits,
    pub trusted: Trusted,
    pub proxy_protocol: ProxyProtocol,
    /// The path of a load balancer's probe.
    pub health_path: Option<String>,
    /// The port that the world knows, for the addresses that backends are told.
    pub port: OnceLock<u16>,
    shards: Vec<mpsc::UnboundedSender<Driving>>,
}

impl Shared {
    /// For the shards that drive what is sent to `shards`. Reads files, so it blocks.
    pub fn new(
        config: &Config,
        shards: Vec<mpsc::UnboundedSender<Driving>>,
    ) -> Result<Arc<Self>, TlsError> {
        let tls = Tls::new(config)?;
        let policy = Policy::new(config, &tls.known, shards.len(), None);
        Ok(Arc::new(Self {
            tls,
            registry: Registry::new(policy, shards.len(), config.limits.tunnels),
            outbox: Arc::default(),
            budget: Budget::new(BODY_BUDGET),
            attempts: Attempts::new(),
            connections: ConnectionLimit::new(&config.limits),
            observe: Observe::new(config).map_err(TlsError::new)?,
            explain: Explain::start(config.explain),
            limits: config.limits.clone(),
            trusted: config.trusted.clone(),
            proxy_protocol: config.proxy_protocol,
            health_path: config.health_path.clone(),
            port: OnceLock::new(),
            shards,
        }))
    }

    pub fn shards(&self) -> usize {
        self.shards.len()
    }
}

/// One thread's view of the gateway.
#[derive(Debug)]
pub struct Shard {
    pub index: usize,
    pub shutdown: Shutdown,
    pub shared: Arc<Shared>,
}

impl std::ops::Deref for Shard {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Shard {
    /// A gateway of one shard and without a socket, and the work that it wants driven. The caller that brings the
    /// connections (a simulated network, another program's listener) gives each to
    /// [`crate::listener::accept_tls`], and what comes of that to [`crate::listener::serve_visitor`] or
    /// [`crate::listener::serve_backend`]. Reads files, so it blocks.
    pub fn alone(
        config: &Config,
        shutdown: Shutdown,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Driving>), TlsError> {
        let (sender, work) = mpsc::unbounded_channel();
        let shared = Shared::new(config, vec![sender])?;
        Ok((Arc::new(Self { index: 0, shutdown, shared }), work))
    }

    /// The same gateway, as the thread of shard `index` sees it.
    pub(crate) fn at(&self, index: usize) -> Arc<Self> {
        Arc::new(Self { index, shutdown: self.shutdown.clone(), shared: self.shared.clone() })
    }

    /// The shards whose threads don't take up new work within `patience`.
    pub(crate) async fn stuck(&self, patience: Duration) -> Vec<usize> {
        let pokes = (0..self.shards()).map(|index| {
            let (done, turned) = oneshot::channel();
            let poke = async move {
                let _ = done.send(());
            };
            self.at(index).drive(Box::pin(poke)).then_some(turned)
        });
        let (pokes, until): (Vec<_>, _) = (pokes.collect(), Instant::now() + patience);
        let mut stuck = Vec::new();
        for (index, turned) in pokes.into_iter().enumerate() {
            let turned = async { turned?.await.ok() };
            if !matches!(timeout_at(until, turned).await, Ok(Some(()))) {
                stuck.push(index);
            }
        }
        stuck
    }

    /// Has this shard's thread drive a tunnel. False only when that thread is gone, which is the end of the process.
    pub(crate) fn drive(&self, tunnel: Driving) -> bool {
        self.shards.get(self.index).is_some_and(|shard| shard.send(tunnel).is_ok())
    }
}

impl Shard {
    /// Whether a request is a load balancer's probe, which names any host.
    pub(crate) fn is_probe(&self, head: &Parts) -> bool {
        self.health_path.as_deref().is_some_and(|path| path == head.uri.path())
            && [Method::GET, Method::HEAD].contains(&head.method)
    }

    /// The answer to one.
    pub(crate) fn health(&self) -> Response<String> {
        let draining = self.shutdown.is(Phase::Draining);
        let (status, body) = match draining {
            true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            false => (StatusCode::OK, "ok\n"),
        };
        admin::text(status, body.to_owned())
    }
}

/// A tunnel on its way to the thread that will drive it.
pub type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;

#[cfg(test)]
mod tests {
    use ptth_link::shutdown::channel;
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::{Admission, CertificateSource};

    fn config() -> Config {
        Config::new(
            CertificateSource::SelfSigned { names: Vec::new(), kept: None },
            Admission::Open,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_whose_thread_does_not_turn_is_found_stuck() {
        let (_trigger, shutdown) = channel();
        let (shard, mut work) = Shard::alone(&config(), shutdown).unwrap();
        let patience = Duration::from_secs(2);
        assert_eq!(shard.stuck(patience).await, [0], "nothing takes up its work");
        let mut turning = JoinSet::new();
        turning.spawn(async move {
            while let Some(task) = work.recv().await {
                task.await;
            }
        });
        assert!(shard.stuck(patience).await.is_empty());
        turning.abort_all();
        while turning.join_next().await.is_some() {}
        assert_eq!(shard.stuck(patience).await, [0], "its thread is gone");
    }

    #[test]
    fn a_gateway_that_drains_tells_a_load_balancer() {
        let (trigger, shutdown) = channel();
        let (shard, _work) = Shard::alone(&config(), shutdown).unwrap();
        assert_eq!(shard.health().status(), StatusCode::OK);
        trigger.advance(Phase::Draining);
        assert_eq!(shard.health().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
