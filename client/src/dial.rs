//! From a gateway's name to a TLS connection on which it will ask.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ptth_link::limits::TUNNEL_USER_TIMEOUT;
use ptth_link::tcp;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Gateway;

/// How to reach a gateway: TCP, or whatever a simulation puts in its place.
pub trait Network: Clone + Send + Sync + 'static {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to `gateway`, whose name is resolved anew each time. Cancel safe.
    fn connect(
        &self,
        gateway: &Gateway,
    ) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

/// The Internet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    type Io = TcpStream;

    async fn connect(&self, gateway: &Gateway) -> io::Result<(TcpStream, SocketAddr)> {
        let addresses: Vec<_> = lookup_host((gateway.host.as_str(), gateway.port)).await?.collect();
        let (socket, address) = race(addresses).await?;
        tcp::tune(&socket, TUNNEL_USER_TIMEOUT)?;
        Ok((socket, address))
    }
}

/// Tries each address a moment after the one before (RFC 8305 §5) and takes the first that answers.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<(TcpStream, SocketAddr)> {
    let mut attempts = JoinSet::new();
    for (n, address) in addresses.into_iter().enumerate() {
        attempts.spawn(async move {
            sleep(STAGGER * u32::try_from(n).unwrap_or(u32::MAX)).await;
            TcpStream::connect(address).await.map(|socket| (socket, address))
        });
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(err)) => last = err,
            Err(_) => {}
        }
    }
    Err(last)
}

/// A connection whose gateway is known, and on which the roles can be transposed.
#[derive(Debug)]
pub struct Dialled<IO> {
    /// The stream.
    pub stream: TlsStream<IO>,
    /// Where the gateway was found.
    pub address: SocketAddr,
    /// What it showed.
    pub certificate: Option<CertificateDer<'static>>,
    /// The TLS version.
    pub version: Option<ProtocolVersion>,
}

/// Dials the gateway. Cancel safe.
///
/// # Errors
/// [`DialError`].
pub async fn dial<N: Network>(
    network: &N,
    gateway: &Gateway,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
) -> Result<Dialled<N::Io>, DialError> {
    let connected = timeout(CONNECT, network.connect(gateway)).await;
    let (socket, address) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(err)) => return Err(DialError::Unreachable(err)),
        Err(_) => return Err(DialError::Unreachable(io::ErrorKind::TimedOut.into())),
    };
    let wanted = tls.alpn_protocols.clone();
    let stream = match timeout(HANDSHAKE, TlsConnector::from(tls).connect(name, socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return Err(DialError::of(err)),
        Err(_) => return Err(DialError::Tls(io::ErrorKind::TimedOut.into())),
    };
    let connection = stream.get_ref().1;
    // rustls ends a handshake with a wrong label itself; with none at all it goes on.
    if connection.alpn_protocol() != wanted.first().map(Vec::as_slice) {
        return Err(DialError::NoGateway);
    }
    let certificate = connection.peer_certificates().and_then(|chain| chain.first()).cloned();
    let version = connection.protocol_version();
    Ok(Dialled { stream, address, certificate, version })
}

/// Why a gateway can't be dialled, by what to do about it.
#[derive(Debug)]
pub enum DialError {
    /// No address, or no connection: try again.
    Unreachable(io::Error),
    /// TLS broke off: try again.
    Tls(io::Error),
    /// The gateway isn't who it should be. Final on the first dial; later it may be a captive portal.
    Unknown(Error),
    /// What answers there speaks TLS, but isn't a gateway of ours. Likewise.
    NoGateway,
    /// The gateway doesn't admit our key. Final.
    Refused(&'static str),
}

impl DialError {
    /// Sorts an error of the handshake, or of the first read after it: with TLS 1.3 that is where the
    /// gateway's verdict on our certificate arrives (RFC 8446 §4.4.2.4).
    pub fn of(err: io::Error) -> Self {
        let tls = err.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).cloned();
        match tls {
            Some(Error::AlertReceived(alert)) => match alert {
                AlertDescription::AccessDenied => Self::Refused("it doesn't know this token"),
                AlertDescription::CertificateRequired => Self::Refused("it wants a token"),
                AlertDescription::NoApplicationProtocol => Self::NoGateway,
                _ => Self::Tls(err),
            },
            Some(Error::NoApplicationProtocol) => Self::NoGateway,
            Some(tls @ (Error::InvalidCertificate(_) | Error::General(_))) => Self::Unknown(tls),
            _ => Self::Tls(err),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(err) => write!(f, "the gateway can't be reached: {err}"),
            Self::Tls(err) => write!(f, "the TLS handshake broke off: {err}"),
            Self::Unknown(Error::InvalidCertificate(CertificateError::Other(why))) => {
                write!(f, "{}", why.0)
            }
            Self::Unknown(err) => write!(
                f,
                "the gateway's certificate can't be trusted ({err}); is the name right? For a self-signed one give its --pin"
            ),
            Self::NoGateway => f.write_str(
                "what answers there is no 2ptth gateway, or something in between doesn't let the ALPN label through",
            ),
            Self::Refused(why) => write!(f, "the gateway refuses this client: {why}"),
        }
    }
}

impl std::error::Error for DialError {}

/// RFC 8305 §8: Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(10);
