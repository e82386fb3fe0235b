//! Holds the tunnels: dials each, dials again when it is lost, and renews it before its streams run out.

mod places;

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use log::{info, warn};
use ptth_link::crypto;
use ptth_link::explain::{Opening, keys};
use ptth_link::h2::goaway::Why;
use ptth_link::h2::pulse::Pulse;
use ptth_link::lock::Mutex;
use ptth_link::shutdown::{Phase, Shutdown, Trigger, channel};
use ptth_link::token::{PublicKey, Token};
use rustls::client::danger::ServerCertVerifier;
use tokio::select;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::complaints::Complaints;
use crate::config::{Config, Gateway, Kind, Trust, Via};
use crate::dial::{self, DialError, Dialer, Dialled, Network, Shared, Verdict};
use crate::journal::Journal;
use crate::retry::{Backoff, Loss};
use crate::serve::{Answering, Answers, Ended, answer};
use crate::shown::{Place, Shown};
use crate::tls::{self, TlsError, how_verified};

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
    /// Where its tunnels are shown.
    pub shown: Shown,
    /// Tunnels that came up so far.
    ups: Arc<AtomicU64>,
}

impl Process {
    /// Reads the trust store, and tries whether a certificate can be made; fails with [`Stopped::Tls`]. Blocks.
    pub fn new(config: Config, journal: Journal) -> Result<Self, Stopped> {
        let name = tls::server_name(&config)?;
        let knowing = tls::verifier(&config.trust)?;
        let proxy = config.proxies.to(&config.gateway);
        let encrypted = proxy.is_some_and(|proxy| proxy.kind == Kind::Https);
        tls::tunnel(&config, knowing.clone(), "x.0")?;
        let key_log = keys::log(config.key_log);
        let protocol: &[u8] = if config.via == Via::Connect { b"h2" } else { b"http/1.1" };
        let shared = Shared {
            config,
            name,
            http: tls::client(knowing.clone(), protocol, None, key_log)?,
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
            shown: Shown::default(),
            ups: Arc::default(),
        })
    }

    /// The number of tunnels to hold.
    pub fn slots(&self) -> usize {
        self.shared.config.tunnels
    }

    /// What dials the tunnel of that number at the gateway, or at one of its addresses.
    pub(crate) fn dialer<N>(
        &self,
        network: N,
        gateway: Gateway,
        slot: usize,
    ) -> Result<Dialer<N>, TlsError> {
        let instance = format!("{}.{slot}", self.instance);
        let shared = self.shared.clone();
        let alpn = tls::tunnel(&shared.config, self.knowing.clone(), &instance)?;
        Ok(Dialer { network, shared, gateway, alpn, instance })
    }

    /// How the requests on that tunnel are answered.
    pub(crate) fn answering(&self, dialled: &Dialled, pulse: Arc<Pulse>) -> Answering {
        let config = &self.shared.config;
        let by_name = matches!(config.trust, Trust::System | Trust::Ca(_));
        let covers = dialled.certificate.clone().filter(|_| by_name && !config.any_host);
        let (covers, ours) = (covers.map(Arc::new), dialled.ours);
        Answering { covers, ours, pulse, ..self.answering.clone() }
    }
}

/// Why there will be no tunnel, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The gateway refuses this client; with the public half of its token, if it has one.
    #[error("{}{}", .0, .1.map(|key| format!("; its public half is {key}")).unwrap_or_default())]
    Refused(DialError, Option<PublicKey>),
    /// Another backend has the place, and keeps it.
    #[error(
        "the gateway refuses this client: another backend serves this already; stop that one, or ask for another --host or --name"
    )]
    Taken,
    /// Another backend has the place now. Dialling again would take it back, and so on for ever.
    #[error(
        "another backend took over what this client served; stop one of the two, or let the gateway's route have `when_taken = \"balance\"`"
    )]
    Replaced,
    /// The gateway admitted this client, and lets it serve nothing of what it asked for; with the gateway's words.
    #[error(
        "the gateway refuses this client: {}; ask for another --host or --name, or have the gateway allow it",
        .0.as_ref().map_or("this token may serve nothing of what was asked for".into(), |words| format!("{words:?}"))
    )]
    Forbidden(Option<String>),
    /// The gateway isn't the one that it should be, on the very first dial.
    #[error("{0}")]
    Unknown(DialError),
    /// TLS can't be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

impl Stopped {
    /// Whether the gateway said no, rather than something here or on the way being wrong.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unknown(_) | Self::Tls(_))
    }
}

/// One tunnel, which is dialled again and again.
struct Slot<N, S> {
    /// The number, after the service's name if there are several services.
    label: String,
    process: Process,
    place: Place,
    dialer: Dialer<N>,
    service: S,
    up_before: bool,
    complaints: Complaints,
    /// Notified of each failed dial.
    failures: Arc<Notify>,
}

/// A tunnel that is up. Dropping it has the tunnel drain.
struct Live {
    _drain: Trigger,
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
            stopped = self.keep_up(&mut tunnels) => match stopped? {},
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
            self.place.dials();
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
            // While a renewal fails, the old tunnel goes on.
            if old.is_none() {
                self.place.is_lost();
            }
            let loss = self.lost(ended, live)?;
            self.place.counts(loss.name());
            sleep(backoff.pause(loss, random())).await;
        }
    }

    /// One attempt: dials, and waits until the gateway asks. Not cancel safe: it spawns into `tunnels`.
    async fn dial(&mut self, tunnels: &mut JoinSet<()>) -> Result<Live, Ended> {
        let config = &self.process.shared.config;
        let dialled = self.dialer.dial().await?;
        let (label, way, verified) = (&self.label, &dialled.way, how_verified(config));
        let (gateway, tls) = (dialled.address, dial::version_text(dialled.version));
        let opening = Opening::new(true, gateway, dialled.version, dialled.label.as_deref());
        info!("tunnel: {label} dialled gateway={gateway} by={way} tls={tls} verified={verified:?}");
        let pulse = Arc::<Pulse>::default();
        let answering = self.process.answering(&dialled, pulse.clone());
        let answering = Answering { opening: Some(opening), ..answering };
        let (drain, draining) = channel();
        let ((up, is_up), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let service = self.service.clone();
        tunnels.spawn(async move {
            let _ = end.send(answer(dialled.stream, service, answering, draining, up).await);
        });
        while tunnels.try_join_next().is_some() {}
        if is_up.await.is_err() {
            return Err(ended.await.unwrap_or(Ended::CLOSED));
        }
        let label = &self.label;
        info!("tunnel: {label} up; inverted: from here on the gateway asks and this side answers");
        self.place.is_up(pulse);
        self.process.answering.announced.told(dialled.news);
        self.up_before = true;
        self.complaints.forget();
        let up = self.process.ups.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Live { _drain: drain, ended, since: Instant::now(), up })
    }

    fn failed(&mut self, err: DialError) -> Result<Loss, Stopped> {
        let standby = self.process.shared.config.standby;
        let loss = match err.verdict() {
            _ if err.is_taken() && standby => return Ok(self.stand_by()),
            Verdict::Final => return Err(self.refused(err)),
            // After a success, the client may be behind a captive portal.
            Verdict::FinalAtFirst if !self.up_before => {
                let denied = matches!(err, DialError::Denied(_));
                return Err(if denied { self.refused(err) } else { Stopped::Unknown(err) });
            }
            Verdict::FinalAtFirst | Verdict::Failed => Loss::Failed,
            Verdict::Absent => Loss::Unreachable,
            Verdict::Later(after) => Loss::Later(after),
        };
        self.failures.notify_one();
        self.complain(&err.to_string());
        Ok(loss)
    }

    /// What to do after the end of a tunnel. Without `live`, it never came up.
    fn lost(&mut self, ended: Ended, live: Option<Live>) -> Result<Loss, Stopped> {
        let ups = self.process.ups.load(Ordering::Relaxed);
        match ended {
            Ended::Refused(err) => return self.failed(err),
            Ended::Told(Why::Taken, _) if self.process.shared.config.standby => {
                return Ok(self.stand_by());
            }
            Ended::Told(Why::Taken, _) => return Err(Stopped::Taken),
            Ended::Told(Why::Forbidden, words) => return Err(Stopped::Forbidden(words)),
            Ended::Told(Why::Replaced, _) if live.as_ref().is_none_or(|live| live.up == ups) => {
                return Err(Stopped::Replaced);
            }
            // A tunnel of this process came up later. Either that tunnel replaced this one, or another backend replaces
            // it, too, and its end stops the process; dialling before would replace the other backend.
            Ended::Told(Why::Replaced, _) => {
                info!("tunnel: {} {ended}", self.label);
                return Ok(Loss::Displaced);
            }
            Ended::Told(Why::Stopping, _) => {
                info!("tunnel: {} {ended}; looking for its successor", self.label);
            }
            _ => self.complain(&format!("lost: {ended}")),
        }
        Ok(Loss::Lost(live.map_or(Duration::ZERO, |live| live.since.elapsed())))
    }

    fn stand_by(&self) -> Loss {
        let what = "another backend is there";
        if self.complaints.is_due(what) {
            info!("tunnel: {} {what}; standing by until it is gone", self.label);
        }
        Loss::Taken
    }

    /// Without a token, the gateway's text about a key would confuse the user: that key is a stand-in.
    fn refused(&self, err: DialError) -> Stopped {
        match (err, self.process.shared.config.token.as_ref().map(Token::public)) {
            (DialError::Refused(_), None) => {
                Stopped::Refused(DialError::Refused("it wants a token"), None)
            }
            (err @ DialError::Refused(_), key) => Stopped::Refused(err, key),
            (err, _) => Stopped::Refused(err, None),
        }
    }

    fn complain(&self, what: &str) {
        if self.complaints.is_due(what) {
            let (label, gateway) = (&self.label, &self.dialer.gateway);
            warn!("tunnel: {label} gateway={gateway} {what}; trying again, for ever");
        }
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
