//! From a gateway's name to a connection on which it will ask.
//!
//! ```text
//! (proxy) ─> TLS ─┬ ALPN 2ptth ───────────────────────────> the TLS stream
//!                 ├ http/1.1 ─> GET, Upgrade: ptth ─ 101 ─> what follows the 101
//!                 └ h2 ───────> CONNECT, ptth ────── 200 ─> that one HTTP/2 stream
//! ```
//!
//! Invariant: a credential leaves only after the gateway is known by its certificate.

mod authorize;
mod connect;
mod doors;
mod error;
mod network;
mod proxy;
mod registration;
mod upgrade;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::response::Parts;
use log::info;
use ptth_link::tcp::is_near;
use ptth_link::{alpn, crypto};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::announced::more;
use crate::config::{Authorization, Config, Gateway, Proxy, Trust, Value, Via};

pub(crate) use doors::Doors;
pub use error::{DialError, LONGEST_REASON, Reply, Verdict};
pub use network::{Network, Tcp};
pub use proxy::ProxyError;

use proxy::Fault;
use registration::{Registration, judge};

/// Whatever carries a tunnel.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A tunnel's bytes, whichever way they go.
pub type Stream = Box<dyn Io>;

/// A connection whose gateway is known, and on which the roles can be transposed.
pub struct Dialled {
    /// The stream.
    pub stream: Stream,
    /// Where the gateway, or the proxy to it, was found.
    pub address: SocketAddr,
    /// The way that it took, for the log.
    pub way: String,
    /// What the gateway showed.
    pub certificate: Option<CertificateDer<'static>>,
    /// The TLS version.
    pub version: Option<ProtocolVersion>,
    /// The public addresses that it told.
    pub urls: Vec<String>,
    /// How many more there are.
    pub more: u64,
    /// Whether the gateway is one of ours, as far as one can tell.
    pub ours: bool,
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialled")
            .field("address", &self.address)
            .field("way", &self.way)
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// The TLS configurations of one tunnel's dials.
#[derive(Clone, Debug)]
pub struct Keys {
    /// With the ALPN label, and the certificate that proves the token.
    pub alpn: Arc<ClientConfig>,
    /// The others, which all tunnels share.
    pub shared: Shared,
}

/// TLS without a certificate of ours.
#[derive(Clone, Debug)]
pub struct Shared {
    /// For HTTP/1.1.
    pub upgrade: Arc<ClientConfig>,
    /// For HTTP/2.
    pub connect: Arc<ClientConfig>,
    /// For a proxy that is itself behind TLS.
    pub proxy: Option<Arc<ClientConfig>>,
}

/// All that it takes to dial for one tunnel, again and again.
#[derive(Clone, Debug)]
pub struct Dialer<N> {
    /// The network.
    pub network: N,
    /// What the user said.
    pub config: Arc<Config>,
    /// Where to dial: the gateway's name, or one of its addresses.
    pub gateway: Gateway,
    /// The name that the gateway's certificate is checked for.
    pub name: ServerName<'static>,
    /// How TLS is spoken.
    pub keys: Keys,
    /// `<instance>.<slot>`.
    pub instance: String,
    /// Shared by all tunnels of the process.
    pub(crate) doors: Arc<Doors>,
}

/// A connection to whom it should lead.
struct Shaken {
    stream: Stream,
    /// The label that was agreed on. Without TLS, the one that there would have been.
    label: Option<Vec<u8>>,
    address: SocketAddr,
    way: String,
    certificate: Option<CertificateDer<'static>>,
    version: Option<ProtocolVersion>,
}

impl<N: Network> Dialer<N> {
    /// Dials the gateway by the doors that the configuration allows. Cancel safe.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self) -> Result<Dialled, DialError> {
        match self.config.via {
            Via::Auto if self.config.plain => self.by_http().await,
            Via::Alpn => self.by_alpn().await,
            Via::Upgrade | Via::Connect => self.by_http().await,
            Via::Auto => self.by_either().await,
        }
    }

    async fn by_either(&self) -> Result<Dialled, DialError> {
        match (&self.config.token, &self.config.authorization) {
            // A registration has nothing to show; only an open gateway wants nothing.
            (Some(_), None) => return self.by_alpn().await,
            // The TLS handshake has nothing to show.
            (None, Some(_)) => return self.by_http().await,
            _ => {}
        }
        if self.doors.by_http() {
            let dialled = self.by_http().await;
            if dialled.is_err() {
                self.doors.forget();
            }
            return dialled;
        }
        let lost = match self.by_alpn().await {
            Err(err) if err.is_of_the_way() => err,
            dialled => return dialled,
        };
        match self.by_http().await {
            Ok(dialled) => {
                if self.doors.learn() {
                    info!(
                        "dial: something in between doesn't let the ALPN label through; registered by HTTP instead"
                    );
                }
                Ok(dialled)
            }
            // A gateway that is just going away cuts handshakes, too. Only its own words count then.
            Err(err)
                if !lost.is_cut() || matches!(err, DialError::Denied(_) | DialError::Busy(..)) =>
            {
                Err(err)
            }
            Err(_) => Err(lost),
        }
    }

    /// Door A: the TLS handshake is all.
    async fn by_alpn(&self) -> Result<Dialled, DialError> {
        let shaken = self.shake(self.keys.alpn.clone()).await?;
        // rustls ends a handshake with a wrong label itself; with none at all it goes on.
        if shaken.label.as_ref() != Some(&self.config.alpn) {
            return Err(DialError::NoGateway);
        }
        let Shaken { stream, address, way, certificate, version, .. } = shaken;
        let ours = self.config.alpn == alpn::PTTH;
        Ok(Dialled { stream, address, way, certificate, version, urls: Vec::new(), more: 0, ours })
    }

    /// Door B. An authorization that was renewed meanwhile is shown once more.
    async fn by_http(&self) -> Result<Dialled, DialError> {
        let shown = self.authorization().await?;
        let mut denied = match self.register(shown.as_ref()).await {
            Err(DialError::Denied(reply)) if reply.status == StatusCode::UNAUTHORIZED => reply,
            dialled => return dialled,
        };
        let renewable = self.config.authorization.as_ref().is_some_and(Authorization::is_renewable);
        let fresh = if renewable { self.authorization().await? } else { None };
        if fresh.is_none() || fresh == shown {
            // Whoever renews it may be late.
            denied.firm &= !renewable;
            return Err(DialError::Denied(denied));
        }
        match self.register(fresh.as_ref()).await {
            Err(DialError::Denied(reply)) if reply.status == StatusCode::UNAUTHORIZED => {
                Err(DialError::Stale(reply))
            }
            dialled => dialled,
        }
    }

    async fn authorization(&self) -> Result<Option<Value>, DialError> {
        match &self.config.authorization {
            Some(source) => authorize::fresh(source).await.map(Some).map_err(DialError::Authorize),
            None => Ok(None),
        }
    }

    async fn register(&self, authorization: Option<&Value>) -> Result<Dialled, DialError> {
        let config = &*self.config;
        let nested = config.via == Via::Connect;
        let keys = if nested { &self.keys.shared.connect } else { &self.keys.shared.upgrade };
        let Shaken { stream, label, address, way, certificate, version } =
            self.shake(keys.clone()).await?;
        // Without ALPN it is HTTP/1.1 that is spoken (RFC 7301 §3.1 leaves it to the past).
        if nested && label.as_deref() != Some(b"h2") {
            return Err(DialError::NoConnect);
        }
        let registration = Registration { config, instance: &self.instance, authorization };
        let asking = async {
            match nested {
                true => connect::ask(stream, registration.connect()).await.map_err(DialError::from),
                false => {
                    upgrade::ask(stream, registration.upgrade()).await.map_err(DialError::Broken)
                }
            }
        };
        let late = |_| DialError::Broken(io::ErrorKind::TimedOut.into());
        let answer = timeout(ANSWER, asking).await.map_err(late)??;
        let urls = judge(&answer.head, &answer.body)?;
        let stream = answer.stream.ok_or_else(|| {
            let (status, reason) = (answer.head.status, String::new());
            DialError::NoDoor(Reply { status, reason, firm: false })
        })?;
        let (ours, more) = (!urls.is_empty(), more(&answer.head.headers));
        Ok(Dialled { stream, address, way, certificate, version, urls, more, ours })
    }

    /// As far as the end of the TLS handshake, if there is one.
    async fn shake(&self, tls: Arc<ClientConfig>) -> Result<Shaken, DialError> {
        let label = tls.alpn_protocols.first().cloned();
        let mut way = label.as_ref().map(|label| alpn::display(label)).unwrap_or_default();
        let (io, address) = match self.proxy() {
            Some(proxy) => {
                way.push_str(&format!(" proxy={proxy}"));
                self.by_proxy(&proxy).await?
            }
            None => {
                let connected = timeout(CONNECT, self.network.connect(&self.gateway)).await;
                let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                let (io, address) = connected.map_err(DialError::Unreachable)?;
                (Box::new(io) as Stream, address)
            }
        };
        if self.config.plain {
            if !is_near(address.ip()) && self.config.trust != Trust::Insecure {
                return Err(DialError::Plain);
            }
            let (certificate, version) = (None, None);
            return Ok(Shaken { stream: io, label, address, way, certificate, version });
        }
        let shaking = TlsConnector::from(tls).connect(self.name.clone(), io);
        let stream = match timeout(HANDSHAKE, shaking).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(err)) => return Err(DialError::of(err)),
            Err(_) => return Err(DialError::Tls(io::ErrorKind::TimedOut.into())),
        };
        let connection = stream.get_ref().1;
        let certificate = connection.peer_certificates().and_then(|chain| chain.first()).cloned();
        let version = connection.protocol_version();
        let label = connection.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Shaken { stream: Box::new(stream), label, address, way, certificate, version })
    }

    fn proxy(&self) -> Option<Proxy> {
        // Its addresses were resolved here, so the proxy's help isn't wanted; and without TLS nobody may be between.
        if self.config.all_addresses || self.config.plain {
            return None;
        }
        self.config.proxies.to(&self.gateway)
    }

    /// Both legs have the time of one: to the proxy, and from there.
    async fn by_proxy(&self, proxy: &Proxy) -> Result<(Stream, SocketAddr), ProxyError> {
        let deadline = Instant::now() + CONNECT;
        let failed = |fault| ProxyError::new(proxy, fault);
        let connected = timeout_at(deadline, self.network.connect(&proxy.address)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (io, address) = connected.map_err(|err| failed(Fault::Unreachable(err)))?;
        let passing =
            proxy::pass(proxy, Box::new(io), &self.gateway, self.keys.shared.proxy.as_ref());
        let io = timeout_at(deadline, passing).await.map_err(|_| failed(Fault::Late))??;
        Ok((io, address))
    }
}

/// What a door answered.
struct Answer {
    head: Parts,
    /// What the connection became, if it did; bytes that came right behind the head are its first.
    stream: Option<Stream>,
    /// The beginning of what came in place of that.
    body: Vec<u8>,
}

/// For TCP, or for both legs by a proxy: whoever takes longer is taken for gone.
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From a registration to the end of its answer's head.
const ANSWER: Duration = Duration::from_secs(10);

/// A name for this process: readable in front, unique behind.
pub(crate) fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().split('.').next().unwrap_or_default();
    let host: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    let host = if host.is_empty() { "backend" } else { &host };
    format!("{host}-{}", crypto::hex(&crypto::random::<6>()))
}

/// As the log has it.
pub(crate) fn version_text(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "1.3",
        ProtocolVersion::TLSv1_2 => "1.2",
        _ => "?",
    }
}
