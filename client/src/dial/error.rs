//! Why a gateway can't be dialled, by the party at fault, and what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;
use rustls::{AlertDescription, CertificateError, Error, PeerMisbehaved};

use super::authorize::AuthorizeError;
use super::proxy::ProxyError;

/// Why a gateway can't be dialled.
#[derive(Debug)]
pub enum DialError {
    /// No address, or no connection.
    Unreachable(io::Error),
    /// The proxy, or the way behind it.
    Proxy(ProxyError),
    /// TLS broke off.
    Tls(io::Error),
    /// It doesn't speak TLS. Likewise.
    NoTls,
    /// It has no TLS, and isn't on this machine or the private network. Final.
    Plain,
    /// The gateway isn't who it should be. Later than on the first dial it may be a captive portal.
    Unknown(Error),
    /// What answers there speaks TLS, but isn't a gateway of ours. Likewise.
    NoGateway,
    /// What answers there speaks HTTP, but knows nothing of a door. Likewise.
    NoDoor(Reply),
    /// It speaks HTTP/2, but not RFC 8441; or no HTTP/2 at all. Likewise.
    NoConnect,
    /// A front whose gateway isn't there.
    Down(Reply),
    /// The exchange with the door broke off.
    Broken(io::Error),
    /// The gateway doesn't admit our key. Final.
    Refused(&'static str),
    /// The gateway refuses the registration. Final, if its reply is [`Reply::firm`].
    Denied(Reply),
    /// It refuses an authorization that is another one each time it is asked for.
    Stale(Reply),
    /// The gateway has no room now, and may have said for how long.
    Busy(Reply, Option<Duration>),
    /// There is nothing to show.
    Authorize(AuthorizeError),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Give up.
    Final,
    /// Give up if the gateway was never known and willing.
    FinalAtFirst,
    /// Nobody is there: try again soon.
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

    /// What to do about it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unreachable(_) => Verdict::Absent,
            // 502, 503, 504, and what content delivery networks made up for the same. It costs the
            // gateway nothing.
            Self::Down(reply) => match reply.status.as_u16() {
                502..=504 | 520..=530 => Verdict::Absent,
                _ => Verdict::Failed,
            },
            Self::Proxy(err) => err.verdict(),
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
    /// certificate that can't be verified is no such thing: who shows it may be reading along.
    pub(super) fn is_of_the_way(&self) -> bool {
        matches!(self, Self::NoGateway) || self.is_cut()
    }

    /// Whether the handshake was cut.
    pub(super) fn is_cut(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
        matches!(self, Self::Tls(err) if kinds.contains(&err.kind()))
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(err) => write!(f, "the gateway can't be reached: {err}"),
            Self::Proxy(err) => write!(f, "{err}"),
            Self::Tls(err) => write!(f, "the TLS handshake broke off: {err}"),
            Self::Unknown(Error::InvalidCertificate(CertificateError::Other(why))) => {
                write!(f, "{}", why.0)
            }
            Self::Unknown(err) => write!(
                f,
                "the gateway's certificate can't be trusted ({err}); is the name right? For a self-signed one give its --pin"
            ),
            Self::Plain => f.write_str(
                "the gateway is at a public address, where http:// would show the authorization to whoever is on the way; write https://, or --insecure",
            ),
            Self::NoTls => f.write_str(
                "what answers there doesn't speak TLS; is the port right? A gateway's is that of https://",
            ),
            Self::NoGateway => f.write_str(
                "what answers there is no 2ptth gateway, or something in between doesn't let the ALPN label through; with an --authorization-file it could be passed by HTTP",
            ),
            Self::NoDoor(reply) => write!(
                f,
                "what answers there is no 2ptth gateway, or one that takes no registrations by HTTP: it says {reply}"
            ),
            Self::NoConnect => f.write_str(
                "what answers there doesn't take extended CONNECT over HTTP/2 (RFC 8441); try --via upgrade",
            ),
            Self::Down(reply) => write!(f, "what stands before the gateway says {reply}"),
            Self::Broken(err) => write!(f, "the registration broke off: {err}"),
            Self::Refused(why) => write!(f, "the gateway refuses this client: {why}"),
            Self::Denied(reply) | Self::Stale(reply) => {
                write!(f, "the gateway refuses this client: {reply}")
            }
            Self::Busy(reply, _) => write!(f, "the gateway has no room now: {reply}"),
            Self::Authorize(err) => write!(f, "{err}"),
        }
    }
}

impl std::error::Error for DialError {}

/// What a door answered in place of opening.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    /// The status.
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
pub const LONGEST_REASON: usize = 200;
