//! The gateway as a part of another program, which has its own port, TLS and HTTP server.
//!
//! ```no_run
//! # async fn example(app: impl tower_service::Service<http::Request<hyper::body::Incoming>,
//! #     Response = http::Response<String>, Future: Send> + Clone + Send + 'static)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! # let config = ptth_server::config::Config::new(
//! #     ptth_server::config::CertificateSource::SelfSigned { names: Vec::new(), kept: None },
//! #     ptth_server::config::Admission::make());
//! let (_running, shutdown) = ptth_link::shutdown::channel();
//! let (gateway, driver) = ptth_server::embed::Embedded::new(&config, shutdown)?;
//! // What backends serve goes to them, everything else to `app`.
//! let service = gateway.in_front_of(app);
//! // ... serve it with hyper, `with_upgrades`, beside the driver:
//! driver.run().await;
//! # drop(service);
//! # Ok(())
//! # }
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ptth_link::shutdown::{Phase, Shutdown};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::deliver;
use crate::public::{InFront, Visitor};
use crate::registry::Registry;
use crate::shard::{Driving, Shard};
use crate::tls::TlsError;

pub use crate::public::{Answer, Source};

/// A gateway without a port.
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Shard>);

/// Drives the tunnels of an [`Embedded`] gateway, and what moves beside its responses.
#[derive(Debug)]
pub struct Driver {
    shard: Arc<Shard>,
    work: mpsc::UnboundedReceiver<Driving>,
}

impl Embedded {
    /// What `config` says, but for what concerns sockets and TLS: that is the program's own. Reads
    /// files, so it blocks.
    ///
    /// # Errors
    /// [`TlsError`]: certificate or keys.
    pub fn new(config: &Config, shutdown: Shutdown) -> Result<(Self, Driver), TlsError> {
        let (shard, work) = Shard::alone(config, shutdown)?;
        Ok((Self(shard.clone()), Driver { shard, work }))
    }

    /// A service that has the backends answer what they serve, and `next` everything else.
    pub fn in_front_of<S>(&self, next: S) -> InFront<S> {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let visitor = Visitor::new(&self.0, nowhere, None, Arc::default());
        InFront { visitor: Arc::new(visitor), next }
    }

    /// The tunnels, and the policy by which they are here.
    pub fn registry(&self) -> Arc<Registry> {
        self.0.registry.clone()
    }
}

impl Driver {
    /// Drives them, until the end of the process. Dropping it cuts them.
    pub async fn run(mut self) {
        let mut closing = self.shard.shutdown.clone();
        let mut driven = JoinSet::new();
        driven.spawn(deliver::run(self.shard.clone()));
        loop {
            select! {
                Some(work) = self.work.recv() => {
                    driven.spawn(work);
                }
                Some(done) = driven.join_next() => {
                    if let Err(err) = done && err.is_panic() {
                        log::error!("gateway: a task panicked: {err}");
                    }
                }
                () = closing.reached(Phase::Closing) => return,
            }
        }
    }
}
