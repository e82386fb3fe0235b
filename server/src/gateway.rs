//! The wiring: a thread for each core, the sockets that they share, and the thread for control.

mod sockets;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, info, warn};
use ptth_link::admin;
use ptth_link::shutdown::{Phase, Shutdown, Trigger, channel};
use ptth_link::systemd::{self, State, tell};
use ptth_link::tcp::HTTPS;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

#[cfg(feature = "acme")]
use crate::acme;
use crate::admin::Admin;
use crate::config::{Config, ConfigError};
use crate::deliver;
use crate::listener::{self, Entrance};
use crate::registry::Registry;
use crate::reload::Reload;
use crate::shard::{Driving, Shard, Shared};
use crate::tls::{Tls, TlsError};

use sockets::{Addresses, Sockets, listeners};

/// Why the gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate or keys.
    #[error("{0}")]
    Tls(TlsError),
    /// The address can't be listened on.
    #[error("can't listen on {0}: {1}{advice}", advice = advice(.1.kind()))]
    Listen(SocketAddr, io::Error),
    /// Nor can that of `--admin`.
    #[error("--admin: can't listen on {0}: {1}")]
    Admin(Box<admin::Address>, io::Error),
    /// No thread, or no runtime for it.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 want root, CAP_NET_BIND_SERVICE, or another port by --listen"
        }
        io::ErrorKind::AddrInUse => {
            "; another program has that port, stop it or choose another by --listen"
        }
        _ => "",
    }
}

/// What the operator tells a running gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// Read certificate and token file again, now.
    Reload,
    /// Finish what runs, within the grace, and end.
    Stop,
    /// End now.
    Abort,
}

/// A gateway that listens and doesn't accept yet.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    addresses: Addresses,
    shards: Vec<(Sockets, mpsc::UnboundedReceiver<Driving>)>,
    shutdown: (Trigger, Shutdown),
    reload: Reload,
    admin: Option<admin::Listener>,
}

impl Gateway {
    /// Loads the certificate and binds the sockets. Blocks.
    ///
    /// # Errors
    /// [`StartError`], one sentence.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
        // What is wrong with the files shows before a port is taken.
        let shared = Shared::new(config, senders).map_err(StartError::Tls)?;
        let admin = config.admin.as_ref().map(|address| {
            let opened = admin::Listener::open(address, config.take_over);
            opened.map_err(|err| StartError::Admin(address.clone().into(), err))
        });
        let admin = admin.transpose()?;
        let (addresses, sockets) = sockets::open(config, threads)?;
        if config.take_over || sockets::are_held() {
            shared.registry.expect_backends();
        }
        let shards = sockets.into_iter().zip(receivers).collect();
        let reload = Reload::new(config);
        let gateway = Self { shared, addresses, shards, shutdown: channel(), reload, admin };
        // Behind a proxy that ends TLS, the port is its own: the usual one.
        let port = gateway.address().map_or(HTTPS, |address| address.port());
        let _ = gateway.shared.port.set(port);
        Ok(gateway)
    }

    /// Has the configuration read again by `load`, at intervals and on order, and applied if it changed: routes, names
    /// and their credentials. Sockets and limits stay; the log says that a change of them waits for the next start.
    pub fn reloading(
        mut self,
        load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> Self {
        self.reload.load = Some(Box::new(load));
        self
    }

    /// What it listens on, ports filled in.
    pub fn addresses(&self) -> &[(Entrance, SocketAddr)] {
        &self.addresses
    }

    /// The first address with TLS, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        let (entrance, address) = self.addresses.first()?;
        (*entrance == Entrance::Tls).then_some(*address)
    }

    /// The certificates and keys in use.
    pub fn tls(&self) -> &Tls {
        &self.shared.tls
    }

    /// The tunnels, and the policy by which they are here.
    pub fn registry(&self) -> Arc<Registry> {
        self.shared.registry.clone()
    }

    /// Serves until told to stop. Blocks; the threads that it starts end with it.
    ///
    /// # Errors
    /// [`StartError`], if it can't begin.
    pub fn run(self, orders: mpsc::UnboundedReceiver<Order>) -> Result<(), StartError> {
        let Self { shared, addresses, shards, shutdown: (trigger, shutdown), reload, admin } = self;
        let listening = addresses.iter().map(|(_, address)| address.to_string()).collect();
        let (drained, all_drained) = mpsc::channel(1);
        let control = runtime()?;
        let ended = thread::scope(|scope| {
            for (index, (sockets, tunnels)) in shards.into_iter().enumerate() {
                let runtime = runtime()?;
                let shard =
                    Arc::new(Shard { index, shutdown: shutdown.clone(), shared: shared.clone() });
                let drained = drained.clone();
                if index == 0 {
                    let (delivering, held) = (deliver::run(shard.clone()), drained.clone());
                    let work = async move {
                        delivering.await;
                        // As a connection that still runs does, it delays the end.
                        drop(held);
                    };
                    shard.drive(Box::pin(work));
                }
                let serve = move || {
                    runtime.block_on(async {
                        match listeners(sockets) {
                            Ok(listeners) => {
                                listener::run(shard, listeners, tunnels, drained).await
                            }
                            Err(err) => error!("listener: can't accept: {err}"),
                        }
                    });
                };
                let builder = thread::Builder::new().name(format!("shard {index}"));
                builder.spawn_scoped(scope, serve).map_err(StartError::Thread)?;
            }
            drop(drained);
            let shard = Arc::new(Shard { index: 0, shutdown, shared: shared.clone() });
            let told = Arc::new(Admin { shard, listening, begun: Instant::now() });
            control.block_on(async {
                select! {
                    () = command(&shared, reload, orders, &trigger, all_drained) => {}
                    () = answer(admin, told.clone()) => {}
                    () = systemd::report(|| told.summary(), async || told.is_live().await) => {}
                }
            });
            // Whatever ends this ends the shards, too.
            trigger.advance(Phase::Closing);
            Ok(())
        });
        shared.observe.access.flush();
        shared.explain.flush();
        ended
    }
}

/// Answers on the admin address, if there is one. It ends by being dropped.
async fn answer(listener: Option<admin::Listener>, told: Arc<Admin>) {
    if let Some(listener) = listener {
        info!("admin: listening on {}", listener.address);
        listener.serve(0, move |request| told.clone().answer(request)).await;
    }
    pending().await
}

/// Carries out orders, and rereads changed files meanwhile.
async fn command(
    shared: &Arc<Shared>,
    mut reload: Reload,
    mut orders: mpsc::UnboundedReceiver<Order>,
    trigger: &Trigger,
    mut all_drained: mpsc::Receiver<()>,
) {
    tell(State::Ready);
    let mut look = interval(RELOAD_INTERVAL);
    #[cfg(feature = "acme")]
    let ordering = acme::run(shared.clone());
    #[cfg(not(feature = "acme"))]
    let ordering = pending();
    let mut ordering = Box::pin(ordering);
    loop {
        let asked = select! {
            order = orders.recv() => match order {
                Some(Order::Reload) => true,
                Some(Order::Stop) => break,
                Some(Order::Abort) | None => return,
            },
            _ = look.tick() => false,
            // Never ends.
            () = &mut ordering => continue,
            _ = all_drained.recv() => return,
        };
        if asked {
            tell(State::Reloading);
        }
        reload.run(shared, asked);
        if asked {
            tell(State::Ready);
        }
    }
    drop(ordering);
    tell(State::Stopping);
    info!("gateway: stopping; running exchanges have {} s", shared.limits.grace.as_secs());
    trigger.advance(Phase::Draining);
    let finished = async {
        select! {
            _ = all_drained.recv() => {}
            _ = orders.recv() => {}
        }
    };
    if timeout(shared.limits.grace, finished).await.is_err() {
        warn!("gateway: the grace is over; what still runs is cut off");
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)
}

/// Changed files are noticed within this.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
