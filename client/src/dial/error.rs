//! Why a gateway can't be dialled, by the party at fault, and what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;
use rustls::{AlertDescription, CertificateError, Error, PeerMisbehaved};

use super::proxy::ProxyError;

/// Why a gateway can't be dialled. [`DialError::verdict`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the gateway can't be reached: {0}")]
    Unreachable(io::Error),
    #[error("the proxy {0} {1}")]
    Proxy(String, ProxyError),
    #[error("the TLS handshake broke off: {0}")]
    Tls(io::Error),
    #[error(
        "what answers there doesn't speak TLS; is the port right? A gateway's is that of https://"
    )]
    NoTls,
    /// It has no TLS, and isn't on this machine or the private network.
    #[error(
        "the gateway is at a public address, where http:// would show the authorization to whoever is on the way; write https://, or --insecure"
    )]
    Plain,
    /// The gateway isn't the one that it should be. Later than on the first dial it may be a captive portal.
    #[error("{}", unknown(.0))]
    Unknown(Error),
    #[error(
        "what answers there is no 2ptth gateway, or something in between doesn't let the ALPN label through; with an --authorization-file it could be passed by HTTP"
    )]
    NoGateway,
    #[error(
        "what answers there is no 2ptth gateway, or one that takes no registrations by HTTP: it says {0}"
    )]
    NoDoor(Reply),
    /// It speaks HTTP/2, but not RFC 8441; or no HTTP/2 at all.
    #[error(
        "what answers there doesn't take extended CONNECT over HTTP/2 (RFC 8441); try --via upgrade"
    )]
    NoConnect,
    #[error("what stands before the gateway says {0}")]
    Down(Reply),
    #[error("the registration broke off: {0}")]
    Broken(io::Error),
    /// The gateway doesn't admit our key.
    #[error("the gateway refuses this client: {0}")]
    Refused(&'static str),
    #[error("the gateway refuses this client: {0}")]
    Denied(Reply),
    /// It refuses an authorization that is another one each time it is asked for.
    #[error("the gateway refuses this client: {0}")]
    Stale(Reply),
    /// The gateway has no room now, and may have said for how long.
    #[error("the gateway has no room now: {0}")]
    Busy(Reply, Option<Duration>),
    #[error("{0}")]
    Authorize(String),
}

fn unknown(err: &Error) -> String {
    match err {
        Error::InvalidCertificate(CertificateError::Other(why)) => why.0.to_string(),
        err => format!(
            "the gateway's certificate can't be trusted ({err}); is the name right? For a self-signed one give its --pin"
        ),
    }
}

/// What to do about a dial that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Final,
    /// Give up if the gateway was never known and willing.
    FinalAtFirst,
    /// There is no gateway: try again soon.
    Absent,
    /// Try again, ever more slowly.
    Failed,
    /// Try again after so long.
    Later(Duration),
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
            Some(
                Error::NoApplicationProtocol
                | Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol),
            ) => Self::NoGateway,
            Some(tls @ (Error::InvalidCertificate(_) | Error::General(_))) => Self::Unknown(tls),
            Some(Error::InvalidMessage(_)) => Self::NoTls,
            _ => Self::Tls(err),
        }
    }

    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable(_) => Verdict::Absent,
            // 502, 503, 504, and what content delivery networks made up for the same. It costs the
            // gateway nothing.
            Self::Down(reply) => match reply.status.as_u16() {
                502..=504 | 520..=530 => Verdict::Absent,
                _ => Verdict::Failed,
            },
            Self::Proxy(_, err) => err.verdict(),
            Self::Tls(_) | Self::Broken(_) | Self::Stale(_) | Self::Authorize(_) => Verdict::Failed,
            Self::Unknown(_)
            | Self::NoTls
            | Self::NoGateway
            | Self::NoDoor(_)
            | Self::NoConnect => Verdict::FinalAtFirst,
            Self::Denied(reply) if !reply.firm => Verdict::FinalAtFirst,
            Self::Plain | Self::Refused(_) | Self::Denied(_) => Verdict::Final,
            Self::Busy(_, after) => after.map_or(Verdict::Failed, Verdict::Later),
        }
    }

    /// Whether another backend has the place.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Denied(reply) if reply.status == StatusCode::CONFLICT)
    }

    /// Whether something in between may have kept the ALPN label from the gateway, or from us. A
    /// certificate that can't be verified is no such thing: its owner may be reading along.
    pub(super) fn is_of_the_way(&self) -> bool {
        matches!(self, Self::NoGateway) || self.is_cut()
    }

    pub(super) fn is_cut(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
        matches!(self, Self::Tls(err) if kinds.contains(&err.kind()))
    }
}

/// What a door answered in place of opening.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub status: StatusCode,
    /// Its sentence, as it came, of [`LONGEST_REASON`] characters at most; perhaps empty.
    pub reason: String,
    /// Whether the gateway itself says so, and of something that stays as it is. What a front says, or of an
    /// authorization that its source may still renew, needn't be true the next time.
    pub firm: bool,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name behind the number, so that it can be looked up, but none that the peer chose.
        let name = self.status.canonical_reason().unwrap_or("unknown status");
        write!(f, "{} {name}", self.status.as_u16())?;
        match self.reason.as_str() {
            "" => Ok(()),
            reason => write!(f, ", {reason:?}"),
        }
    }
}

/// Characters of a peer's sentence that are worth printing.
pub(super) const LONGEST_REASON: usize = 200;
