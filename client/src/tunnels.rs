//! Holds the tunnels: dials each, dials again when it is lost, and renews it before its streams run out.
//!
//! ```text
//! retry ─> dial ─(2ptth)─> answer ─> service
//!   ^                        │ lost
//!   └────────────────────────┘
//! ```

mod losses;
mod places;

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use log::info;
use ptth_link::crypto;
use ptth_link::lock::Mutex;
use ptth_link::shutdown::{Phase, Shutdown, Trigger, channel};
use rustls::client::danger::ServerCertVerifier;
use tokio::select;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::complaints::Complaints;
use crate::config::{Config, Kind, Trust, Via};
use crate::dial::{self, Dialer, Network, Shared};
use crate::journal::Journal;
use crate::retry::Backoff;
use crate::serve::{Answering, Answers, Ended, answer};
use crate::stopped::Stopped;
use crate::tls::{self, how_verified};

/// What the tunnels of one service share.
#[derive(Clone, Debug)]
pub struct Process {
    shared: Arc<Shared>,
    instance: Arc<str>,
    knowing: Arc<dyn ServerCertVerifier>,
    /// What each tunnel gets, but for its gateway's own.
    pub answering: Answering,
    /// The public address, as far as this side can tell: for a gateway that announces none.
    pub guess: Option<String>,
    /// Tunnels that came up so far.
    ups: Arc<AtomicU64>,
}

impl Process {
    /// Reads the trust store, and tries whether a certificate can be made. Blocks.
    ///
    /// # Errors
    /// [`Stopped::Tls`].
    pub fn new(config: Config, journal: Journal) -> Result<Self, Stopped> {
        let name = tls::server_name(&config)?;
        let knowing = tls::verifier(&config.trust)?;
        let proxy = config.proxies.to(&config.gateway);
        let encrypted = proxy.is_some_and(|proxy| proxy.kind == Kind::Https);
        tls::tunnel(&config, knowing.clone(), "x.0")?;
        let protocol: &[u8] = if config.via == Via::Connect { b"h2" } else { b"http/1.1" };
        let shared = Shared {
            config,
            name,
            http: tls::client(knowing.clone(), protocol, None)?,
            proxy: encrypted.then(|| tls::origin(&Trust::System)).transpose()?,
            http_until: Mutex::default(),
            told: Once::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            instance: dial::instance().into(),
            knowing,
            answering: Answering::new(journal),
            guess: None,
            ups: Arc::default(),
        })
    }

    /// The number of tunnels to hold.
    pub fn slots(&self) -> usize {
        self.shared.config.tunnels
    }
}

/// One tunnel, which is dialled again and again.
struct Slot<N, S> {
    /// The number, after the service's name if there are several services.
    label: String,
    process: Process,
    dialer: Dialer<N>,
    service: S,
    /// A tunnel was up before.
    up_before: bool,
    complaints: Complaints,
    /// Notified of each failed dial.
    failures: Arc<Notify>,
}

/// A tunnel that is up. Dropping it has the tunnel drain.
struct Live {
    #[allow(dead_code, reason = "held for its drop")]
    drain: Trigger,
    ended: oneshot::Receiver<Ended>,
    since: Instant,
    /// How many tunnels of the process had come up with this one.
    up: u64,
}

impl<N: Network, S: Answers> Slot<N, S> {
    async fn hold(mut self, mut stop: Shutdown) -> Result<(), Stopped> {
        let mut tunnels = JoinSet::new();
        select! {
            biased;
            () = stop.reached(Phase::Draining) => {}
            stopped = self.keep_up(&mut tunnels) => {
                stopped?;
            }
        }
        // Running exchanges may finish; the caller cuts them short.
        while tunnels.join_next().await.is_some() {}
        Ok(())
    }

    /// Dials again and again. Dropping the future drains the tunnels, which stay in `tunnels`.
    async fn keep_up(&mut self, tunnels: &mut JoinSet<()>) -> Result<Infallible, Stopped> {
        let mut backoff = Backoff::default();
        // During a renewal there are two tunnels; the old one drains when the new one is up.
        let mut old = None;
        loop {
            let (ended, live) = match self.dial(tunnels).await {
                Ok(mut live) => {
                    drop(old.take());
                    let renewal = live.since + RENEWAL.mul_f64(0.9 + 0.1 * random());
                    let guessing = async {
                        sleep(ANNOUNCEMENT).await;
                        let announced = &self.process.answering.announced;
                        self.process.guess.iter().for_each(|url| announced.guess(url.clone()));
                        pending().await
                    };
                    let ended = select! {
                        never = guessing => never,
                        ended = &mut live.ended => ended.unwrap_or(Ended::CLOSED),
                        () = sleep_until(renewal) => {
                            info!("tunnel: {} is renewed", self.label);
                            old = Some(live);
                            continue;
                        }
                    };
                    (ended, Some(live))
                }
                Err(ended) => (ended, None),
            };
            let loss = self.lost(ended, live)?;
            sleep(backoff.pause(loss, random())).await;
        }
    }

    /// One attempt: dials, and waits until the gateway asks. Not cancel safe: it spawns into `tunnels`.
    async fn dial(&mut self, tunnels: &mut JoinSet<()>) -> Result<Live, Ended> {
        let config = &self.process.shared.config;
        let dialled = self.dialer.dial().await?;
        info!(
            "tunnel: {} dialled gateway={} by={} tls={} verified={:?}",
            self.label,
            dialled.address,
            dialled.way,
            dialled.version.map_or("?", dial::version_text),
            how_verified(config),
        );
        let by_name = matches!(config.trust, Trust::System | Trust::Ca(_));
        let covers = dialled.certificate.filter(|_| by_name && !config.any_host).map(Arc::new);
        let answering = Answering { covers, ours: dialled.ours, ..self.process.answering.clone() };
        let (drain, draining) = channel();
        let (up, is_up) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let service = self.service.clone();
        tunnels.spawn(async move {
            let _ = end.send(answer(dialled.stream, service, answering, draining, up).await);
        });
        while tunnels.try_join_next().is_some() {}
        if is_up.await.is_err() {
            return Err(ended.await.unwrap_or(Ended::CLOSED));
        }
        info!(
            "tunnel: {} up; inverted: from here on the gateway asks and this side answers",
            self.label
        );
        self.process.answering.announced.told(dialled.news);
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

/// A gateway announces addresses at once, if it does.
const ANNOUNCEMENT: Duration = Duration::from_secs(1);
/// A tunnel has 2³⁰ streams (RFC 9113 §5.1.1): six hours at 50,000 requests a second.
const RENEWAL: Duration = Duration::from_secs(4 * 3600);
