//! A client that holds tunnels, in a task.

use std::fmt::Display;

use bytes::Bytes;
use http::{Request, Response};
use ptth_client::config::{Config, OriginAddress, OriginOptions};
use ptth_client::demo::Demo;
use ptth_client::dial::Tcp;
use ptth_client::journal::Journal;
use ptth_client::origin::Origin;
use ptth_client::{Body, Process, Stopped};
use ptth_link::shutdown::{Phase, Trigger, channel};
use tokio::task::JoinSet;
use tower_service::Service;

use crate::{GatewayBox, OriginBox, soon};

/// A backend. Dropping it cuts its tunnels.
#[derive(Debug)]
pub struct Backend {
    trigger: Trigger,
    holding: JoinSet<Result<(), Stopped>>,
}

impl Backend {
    /// Holds the tunnels of `config`, and answers with `service`.
    pub fn start<S, B>(config: Config, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Display + Send,
    {
        let process = Process::new(config, Journal::default()).expect("a client's configuration");
        let (trigger, shutdown) = channel();
        let mut holding = JoinSet::new();
        holding
            .spawn(async move { process.hold(0..process.slots(), Tcp, service, shutdown).await });
        Self { trigger, holding }
    }

    /// Tunnels to `gateway`, up, answered by `service`.
    pub async fn serving<S, B>(gateway: &GatewayBox, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Display + Send,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Display + Send,
    {
        let config = gateway.client_config();
        let tunnels = config.tunnels;
        let backend = Self::start(config, service);
        gateway.until_tunnels(tunnels).await;
        backend
    }

    /// Tunnels to `gateway`, up, answered from `origin`.
    pub async fn of(gateway: &GatewayBox, origin: &OriginBox) -> Self {
        let (host, port) = (origin.address.ip().to_string(), origin.address.port());
        let origin = Origin::new(OriginAddress::Http { host, port }, &OriginOptions::default())
            .expect("no file is read");
        Self::serving(gateway, origin).await
    }

    /// Tunnels to `gateway`, up, answered by the demo.
    pub async fn demo(gateway: &GatewayBox) -> Self {
        Self::serving(gateway, Demo).await
    }

    /// Asks it to finish and end, as SIGTERM does.
    pub fn stop(&self) {
        self.trigger.advance(Phase::Draining);
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Result<(), Stopped> {
        let ended = soon("the backend's end", self.holding.join_next()).await;
        ended.expect("it was started").expect("no panic")
    }
}
