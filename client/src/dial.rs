//! Dials a gateway: from its name to a connection on which the gateway sends requests.
//!
//! ```text
//! (proxy) ─> TLS ─┬ ALPN 2ptth ───────────────────────────> the TLS stream
//!                 ├ http/1.1 ─> GET, Upgrade: ptth ─ 101 ─> what follows the 101
//!                 └ h2 ───────> CONNECT, ptth ────── 200 ─> that one HTTP/2 stream
//! ```
//!
//! Invariant: a credential leaves only after the gateway is known by its certificate.

mod ask;
mod authorize;
mod error;
mod network;
mod proxy;
mod registration;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use http::StatusCode;
use http::response::Parts;
use log::info;
use ptth_link::lock::Mutex;
use ptth_link::tcp::is_near;
use ptth_link::{alpn, crypto};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::announced::News;
use crate::config::{Authorization, Config, Gateway, Proxy, Trust, Value, Via};

pub use error::{DialError, Reply, Verdict};
pub use network::{Network, Tcp};

use registration::{judge, request};

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub type Stream = Box<dyn Io>;

/// A connection to a verified gateway, ready for the transposed roles.
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    /// Of the gateway, or of the proxy to it.
    pub(crate) address: SocketAddr,
    /// The ALPN label that was offered, and the proxy, for the log.
    pub(crate) way: String,
    /// The negotiated label. Without TLS, the label that TLS would have offered.
    pub(crate) label: Option<Vec<u8>>,
    pub(crate) certificate: Option<CertificateDer<'static>>,
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) news: News,
    /// The gateway is probably a 2ptth server.
    pub(crate) ours: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// The name that the gateway's certificate is checked for.
    pub(crate) name: ServerName<'static>,
    /// TLS without a client certificate: for a registration by HTTP, and for an https:// proxy.
    pub(crate) http: Arc<ClientConfig>,
    pub(crate) proxy: Option<Arc<ClientConfig>>,
    /// Until then the registration by HTTP is tried first, since a middlebox drops the label.
    pub(crate) http_until: Mutex<Option<Instant>>,
    pub(crate) told: Once,
}

pub(crate) struct Dialer<N> {
    pub(crate) network: N,
    pub(crate) shared: Arc<Shared>,
    /// The gateway's name, or one of its addresses.
    pub(crate) gateway: Gateway,
    /// TLS with the ALPN label, and with the certificate that proves the token.
    pub(crate) alpn: Arc<ClientConfig>,
    pub(crate) instance: String,
}

impl<N: Network> Dialer<N> {
    /// Dials the gateway by the doors that the configuration allows. Cancel safe.
    pub(crate) async fn dial(&self) -> Result<Dialled, DialError> {
        let config = &self.shared.config;
        match (config.via, &config.token, &config.authorization) {
            (Via::Alpn, ..) => self.by_alpn().await,
            (Via::Upgrade | Via::Connect, ..) => self.by_http().await,
            _ if config.plain => self.by_http().await,
            // A registration without an authorization works at an open gateway only.
            (Via::Auto, Some(_), None) => self.by_alpn().await,
            // Without a token the TLS handshake proves nothing.
            (Via::Auto, None, Some(_)) => self.by_http().await,
            (Via::Auto, ..) => self.by_either().await,
        }
    }

    async fn by_either(&self) -> Result<Dialled, DialError> {
        if self.shared.http_until.lock().is_some_and(|until| Instant::now() < until) {
            let dialled = self.by_http().await;
            if dialled.is_err() {
                *self.shared.http_until.lock() = None;
            }
            return dialled;
        }
        let lost = match self.by_alpn().await {
            // A middlebox may have dropped the label. The owner of a certificate that can't be verified may intercept.
            Err(err) if matches!(err, DialError::NoGateway) || err.is_cut() => err,
            dialled => return dialled,
        };
        match self.by_http().await {
            Ok(dialled) => {
                *self.shared.http_until.lock() = Some(Instant::now() + MEMORY);
                self.shared.told.call_once(|| {
                    info!("dial: something in between doesn't let the ALPN label through; registered by HTTP instead");
                });
                Ok(dialled)
            }
            // A gateway that stops cuts handshakes, too. Then only its own answer counts.
            Err(err)
                if !lost.is_cut() || matches!(err, DialError::Denied(_) | DialError::Busy(_)) =>
            {
                Err(err)
            }
            Err(_) => Err(lost),
        }
    }

    async fn by_alpn(&self) -> Result<Dialled, DialError> {
        let mut dialled = self.shake(&self.alpn).await?;
        let label = &self.shared.config.alpn;
        // rustls ends a handshake with a wrong label, but not one without a label.
        if dialled.label.as_ref() != Some(label) {
            return Err(DialError::NoGateway);
        }
        dialled.ours = label == alpn::PTTH;
        Ok(dialled)
    }

    /// Registers by HTTP. If the authorization was renewed meanwhile, a refusal has it tried once more.
    async fn by_http(&self) -> Result<Dialled, DialError> {
        let shown = self.authorization().await?;
        let mut denied = match self.register(shown.as_ref()).await {
            Err(DialError::Denied(reply)) if reply.status == StatusCode::UNAUTHORIZED => reply,
            dialled => return dialled,
        };
        let source = self.shared.config.authorization.as_ref();
        let renewable = source.is_some_and(|source| !matches!(source, Authorization::Fixed(_)));
        let fresh = if renewable { self.authorization().await? } else { None };
        if fresh.is_none() || fresh == shown {
            // The program that renews it may be late.
            if renewable {
                denied.verdict = Verdict::FinalAtFirst;
            }
            return Err(DialError::Denied(denied));
        }
        match self.register(fresh.as_ref()).await {
            Err(DialError::Denied(reply)) if reply.status == StatusCode::UNAUTHORIZED => {
                Err(DialError::Denied(Reply { verdict: Verdict::Failed, ..reply }))
            }
            dialled => dialled,
        }
    }

    async fn authorization(&self) -> Result<Option<Value>, DialError> {
        match &self.shared.config.authorization {
            Some(source) => authorize::fresh(source).await.map(Some).map_err(DialError::Authorize),
            None => Ok(None),
        }
    }

    async fn register(&self, authorization: Option<&Value>) -> Result<Dialled, DialError> {
        let config = &self.shared.config;
        let nested = config.via == Via::Connect;
        let mut dialled = self.shake(&self.shared.http).await?;
        // A server without ALPN speaks HTTP/1.1.
        if nested && dialled.label.as_deref() != Some(b"h2") {
            return Err(DialError::NoConnect);
        }
        let request = request(config, &self.instance, authorization);
        let stream = dialled.stream;
        let asking = async {
            match nested {
                true => ask::h2(stream, request).await,
                false => Ok(ask::h1(stream, request).await?),
            }
        };
        let (head, opened) = timeout(ANSWER, asking).await.map_err(io::Error::from)??;
        dialled.news = judge(&head, opened.as_ref().err().map_or(&[], Vec::as_slice))?;
        dialled.stream = opened.map_err(|_| {
            let (status, reason) = (head.status, String::new());
            DialError::NoDoor(Reply { status, reason, verdict: Verdict::FinalAtFirst })
        })?;
        dialled.ours = !dialled.news.urls.is_empty();
        Ok(dialled)
    }

    /// Connects, and completes the TLS handshake unless the gateway has no TLS.
    pub(crate) async fn shake(&self, tls: &Arc<ClientConfig>) -> Result<Dialled, DialError> {
        let config = &self.shared.config;
        let label = tls.alpn_protocols.first().cloned();
        let mut way = label.as_ref().map(|label| alpn::display(label)).unwrap_or_default();
        let (stream, address) = match self.proxy() {
            Some(proxy) => {
                way.push_str(&format!(" proxy={proxy}"));
                let passed = self.by_proxy(&proxy).await;
                passed
                    .map_err(|(why, verdict)| DialError::Proxy(format!("{proxy} {why}"), verdict))?
            }
            None => {
                let deadline = Instant::now() + CONNECT;
                self.connect(&self.gateway, deadline).await.map_err(DialError::Unreachable)?
            }
        };
        let (certificate, version) = (None, None);
        let (news, ours) = (News::default(), false);
        let mut dialled = Dialled { stream, address, way, label, certificate, version, news, ours };
        if config.plain {
            if !is_near(address.ip()) && config.trust != Trust::Insecure {
                return Err(DialError::Plain);
            }
            return Ok(dialled);
        }
        let shaking = TlsConnector::from(tls.clone());
        let shaking = shaking.connect(self.shared.name.clone(), dialled.stream);
        let shaken = timeout(HANDSHAKE, shaking).await.unwrap_or_else(|late| Err(late.into()));
        let stream = shaken.map_err(DialError::of)?;
        let connection = stream.get_ref().1;
        dialled.certificate = connection.peer_certificates().and_then(|it| it.first()).cloned();
        dialled.version = connection.protocol_version();
        dialled.label = connection.alpn_protocol().map(<[u8]>::to_vec);
        dialled.stream = Box::new(stream);
        Ok(dialled)
    }

    pub(crate) fn proxy(&self) -> Option<Proxy> {
        let config = &self.shared.config;
        // The client resolved the addresses itself, so it needs no proxy. Without TLS a proxy could read everything.
        let direct = config.all_addresses || config.plain;
        if direct { None } else { config.proxies.to(&self.gateway) }
    }

    async fn connect(&self, to: &Gateway, by: Instant) -> io::Result<(Stream, SocketAddr)> {
        let (io, address) = timeout_at(by, self.network.connect(to)).await??;
        Ok((Box::new(io), address))
    }

    /// The connections to the proxy and from the proxy share one time limit.
    async fn by_proxy(&self, proxy: &Proxy) -> Result<(Stream, SocketAddr), proxy::Refused> {
        let deadline = Instant::now() + CONNECT;
        let connected = self.connect(&proxy.address, deadline).await;
        let absent = |err| (format!("can't be reached: {err}"), Verdict::Absent);
        let (io, address) = connected.map_err(absent)?;
        let passing = proxy::pass(proxy, io, &self.gateway, self.shared.proxy.as_ref());
        let late = |_| ("gave no answer in time".to_owned(), Verdict::Failed);
        Ok((timeout_at(deadline, passing).await.map_err(late)??, address))
    }
}

/// The head of an answer, and the byte stream behind it or the beginning of the body of a refusal.
type Answer = (Parts, Result<Stream, Vec<u8>>);

/// For TCP, or for both connections of a proxy.
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From a registration to the end of its answer's head.
const ANSWER: Duration = Duration::from_secs(10);
/// A laptop changes its network; one needless handshake in ten minutes is cheap.
const MEMORY: Duration = Duration::from_secs(600);
/// Bytes of the body of a refusal; its first line is logged.
const MAX_REASON: usize = 1024;
/// Bytes of the head of an answer: enough for many cookies of a reverse proxy.
const MAX_HEAD: usize = 32 * 1024;

/// The name of this process: the host's name and a random suffix.
pub(crate) fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().split('.').next().unwrap_or_default();
    let host: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    let host = if host.is_empty() { "backend" } else { &host };
    format!("{host}-{}", crypto::hex(&crypto::random::<6>()))
}

pub(crate) fn version_text(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "?",
    }
}
