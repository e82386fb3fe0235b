//! Holds the tunnels: dials each, dials again when it is lost, and renews it before its streams run out.
//!
//! ```text
//! retry ─> dial ─(2ptth)─> answer ─> service
//!   ^                        │ lost
//!   └────────────────────────┘
//! ```

mod losses;
mod places;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use log::info;
use ptth_link::body::Body;
use ptth_link::budget::Budget;
use ptth_link::crypto;
use ptth_link::limits::{BODY_BUDGET, TUNNEL_STREAMS};
use ptth_link::shutdown::{Phase, Shutdown, Trigger, channel};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use tokio::select;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower_service::Service;

use crate::announced::Announced;
use crate::complaints::Complaints;
use crate::config::{Config, Gateway, Kind, Trust};
use crate::dial::{self, Dialer, Doors, Keys, Network, Shared};
use crate::journal::Journal;
use crate::retry::{Backoff, Loss};
use crate::serve::{Answering, Ended, answer};
use crate::stopped::Stopped;
use crate::tls::{self, how_verified};

use places::Holding;

/// One process's tunnels: what they have in common.
#[derive(Clone, Debug)]
pub struct Process {
    config: Arc<Config>,
    name: ServerName<'static>,
    instance: Arc<str>,
    knowing: Arc<dyn ServerCertVerifier>,
    shared: Shared,
    doors: Arc<Doors>,
    budget: Arc<Budget>,
    streams: u32,
    journal: Journal,
    announced: Announced,
    /// Tunnels that came up so far.
    ups: Arc<AtomicU64>,
}

impl Process {
    /// Reads the trust store, and tries whether a certificate can be made. Blocks.
    ///
    /// # Errors
    /// [`Stopped::Tls`].
    pub fn new(config: Config, journal: Journal) -> Result<Self, Stopped> {
        let make = || {
            let name = tls::server_name(&config)?;
            let instance = dial::instance().into();
            let knowing = tls::verifier(&config.trust)?;
            let proxy = config.proxies.to(&config.gateway);
            let encrypted = proxy.is_some_and(|proxy| proxy.kind == Kind::Https);
            let shared = Shared {
                upgrade: tls::anonymous(knowing.clone(), b"http/1.1")?,
                connect: tls::anonymous(knowing.clone(), b"h2")?,
                proxy: encrypted.then(|| tls::origin(&Trust::System)).transpose()?,
            };
            tls::tunnel(&config, knowing.clone(), "x.0")?;
            Ok((name, instance, knowing, shared))
        };
        let (name, instance, knowing, shared) = make().map_err(Stopped::Tls)?;
        let config = Arc::new(config);
        Ok(Self {
            config,
            name,
            instance,
            knowing,
            shared,
            doors: Arc::default(),
            budget: Budget::new(BODY_BUDGET),
            streams: TUNNEL_STREAMS,
            journal,
            announced: Announced::default(),
            ups: Arc::default(),
        })
    }

    /// Has each tunnel take so many requests at a time.
    #[must_use]
    pub fn taking(self, streams: u32) -> Self {
        Self { streams, ..self }
    }

    /// Has the public addresses told to `announced`, and not to a board of its own.
    #[must_use]
    pub fn announcing(self, announced: Announced) -> Self {
        Self { announced, ..self }
    }

    /// Where the public addresses can be watched.
    pub fn announced(&self) -> &Announced {
        &self.announced
    }

    /// How many tunnels there are to hold.
    pub fn slots(&self) -> usize {
        self.config.tunnels
    }

    /// Holds the tunnels of these slots, on this runtime, until `shutdown`. Dropping it cuts them.
    ///
    /// # Errors
    /// [`Stopped`], when trying again would be no use.
    pub async fn hold<N, S, B>(
        &self,
        slots: impl Iterator<Item = usize>,
        network: N,
        service: S,
        shutdown: Shutdown,
    ) -> Result<(), Stopped>
    where
        N: Network,
        S: Service<Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Error: fmt::Display + Send,
        S::Future: Send,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: fmt::Display + Send,
    {
        let (process, slots) = (self.clone(), slots.collect());
        Holding { process, slots, network, service, shutdown }.hold().await
    }

    /// How the tunnel of one slot is dialled.
    fn dialer<N>(&self, slot: usize, gateway: Gateway, network: N) -> Result<Dialer<N>, Stopped> {
        let instance = format!("{}.{slot}", self.instance);
        let alpn = tls::tunnel(&self.config, self.knowing.clone(), &instance);
        let alpn = alpn.map_err(Stopped::Tls)?;
        Ok(Dialer {
            network,
            config: self.config.clone(),
            gateway,
            name: self.name.clone(),
            keys: Keys { alpn, shared: self.shared.clone() },
            instance,
            doors: self.doors.clone(),
        })
    }
}

/// One tunnel's place, and whatever tunnel is in it.
struct Slot<N, S> {
    /// Its number, behind its service's name where there are several.
    label: String,
    process: Process,
    dialer: Dialer<N>,
    service: S,
    shutdown: Shutdown,
    /// Whether the gateway was ever known and willing.
    up_before: bool,
    complaints: Complaints,
    /// Told of each dial that fails.
    failures: Arc<Notify>,
}

/// A tunnel that is up.
struct Live {
    drain: Trigger,
    ended: oneshot::Receiver<Ended>,
    since: Instant,
    /// How many tunnels of the process had come up with this one.
    up: u64,
}

impl<N, S, B> Slot<N, S>
where
    N: Network,
    S: Service<Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: fmt::Display + Send,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: fmt::Display + Send,
{
    fn new(
        number: usize,
        process: Process,
        dialer: Dialer<N>,
        service: S,
        (shutdown, failures): (Shutdown, Arc<Notify>),
    ) -> Self {
        let label = match process.journal.service() {
            Some(service) => format!("{service}/{number}"),
            None => number.to_string(),
        };
        Self {
            label,
            process,
            dialer,
            service,
            shutdown,
            up_before: false,
            complaints: Complaints::default(),
            failures,
        }
    }

    async fn hold(mut self) -> Result<(), Stopped> {
        let mut backoff = Backoff::default();
        let mut tunnels = JoinSet::new();
        // While one is renewed there are two; the old one leaves when the new one is up.
        let mut old: Option<Live> = None;
        let mut stop = self.shutdown.clone();
        let mut stopping = self.shutdown.clone();
        loop {
            let dialled = select! {
                dialled = self.dial(&mut tunnels) => dialled,
                () = stop.reached(Phase::Draining) => break,
            };
            let loss = match dialled {
                Ok(mut live) => {
                    if let Some(old) = old.take() {
                        old.drain.advance(Phase::Draining);
                    }
                    let renewal = live.since + RENEWAL.mul_f64(0.9 + 0.1 * random());
                    let ended = select! {
                        ended = &mut live.ended => ended.unwrap_or(Ended::CLOSED),
                        () = sleep_until(renewal) => {
                            info!("tunnel: {} is renewed", self.label);
                            old = Some(live);
                            continue;
                        }
                        () = stopping.reached(Phase::Draining) => {
                            live.drain.advance(Phase::Draining);
                            break;
                        }
                    };
                    self.lost(ended, Some(&live))?
                }
                Err(loss) => loss?,
            };
            let pause = backoff.pause(loss, random());
            select! {
                () = sleep(pause) => {}
                () = stop.reached(Phase::Draining) => break,
            }
        }
        if let Some(old) = old {
            old.drain.advance(Phase::Draining);
        }
        // What runs may finish; whoever gave the order also cuts it short.
        while tunnels.join_next().await.is_some() {}
        Ok(())
    }

    /// One attempt: dials, and waits until the gateway asks. Not cancel safe: it spawns into `tunnels`.
    async fn dial(&mut self, tunnels: &mut JoinSet<()>) -> Result<Live, Result<Loss, Stopped>> {
        let config = self.process.config.clone();
        let dialled = match self.dialer.dial().await {
            Ok(dialled) => dialled,
            Err(err) => return Err(self.failed(err)),
        };
        info!(
            "tunnel: {} dialled gateway={} by={} tls={} verified={:?}",
            self.label,
            dialled.address,
            dialled.way,
            dialled.version.map_or("?", dial::version_text),
            how_verified(&config),
        );
        let by_name = matches!(config.trust, Trust::System | Trust::Ca(_));
        let covers = dialled.certificate.filter(|_| by_name && !config.any_host).map(Arc::new);
        let answering = Answering {
            service: self.service.clone(),
            journal: self.process.journal.clone(),
            announced: self.process.announced.clone(),
            budget: self.process.budget.clone(),
            covers,
            ours: dialled.ours,
            streams: self.process.streams,
        };
        let (drain, draining) = channel();
        let (up, is_up) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        tunnels.spawn(async move {
            let _ = end.send(answer(dialled.stream, answering, draining, up).await);
        });
        while tunnels.try_join_next().is_some() {}
        if is_up.await.is_err() {
            let why = (&mut ended).await.unwrap_or(Ended::CLOSED);
            return Err(self.lost(why, None));
        }
        info!(
            "tunnel: {} up; inverted: from here on the gateway asks and this side answers",
            self.label
        );
        self.process.announced.up();
        self.process.announced.told(dialled.urls, dialled.more);
        self.up_before = true;
        self.complaints.forget();
        let up = self.process.ups.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Live { drain, ended, since: Instant::now(), up })
    }
}

/// Uniform in 0..1.
fn random() -> f64 {
    f64::from(u32::from_ne_bytes(crypto::random())) / f64::from(u32::MAX)
}

/// A tunnel has 2³⁰ streams (RFC 9113 §5.1.1): six hours at 50,000 requests a second.
const RENEWAL: Duration = Duration::from_secs(4 * 3600);
