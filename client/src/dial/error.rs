//! Why a gateway can't be dialled, by the party at fault, and what to do about it.

use std::io;
use std::time::Duration;

use http::StatusCode;
use rustls::{AlertDescription, CertificateError, Error, PeerMisbehaved};

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the gateway can't be reached: {0}")]
    Unreachable(io::Error),
    #[error("the proxy {0}")]
    Proxy(String, Verdict),
    #[error("the TLS handshake broke off: {0}")]
    Tls(io::Error),
    #[error(
        "what answers there doesn't speak TLS; is the port right? A gateway's is that of https://"
    )]
    NoTls,
    #[error(
        "the gateway is at a public address, where http:// would show the authorization to whoever is on the way; write https://, or --insecure"
    )]
    Plain,
    /// Verification failed. After the first dial that may be a captive portal.
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
    #[error(
        "what answers there doesn't take extended CONNECT over HTTP/2 (RFC 8441); try --via upgrade"
    )]
    NoConnect,
    #[error("what stands before the gateway says {0}")]
    Down(Reply),
    #[error("the registration broke off: {0}")]
    Broken(#[from] io::Error),
    #[error("the gateway refuses this client: {0}")]
    Refused(&'static str),
    #[error("the gateway refuses this client: {0}")]
    Denied(Reply),
    #[error("the gateway has no room now: {0}")]
    Busy(Reply),
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

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Final,
    /// Give up, unless a tunnel was up before.
    FinalAtFirst,
    /// The gateway is absent: try again soon.
    Absent,
    /// Try again, with growing pauses.
    Failed,
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
            Self::Proxy(_, verdict) => *verdict,
            Self::NoDoor(it) | Self::Down(it) | Self::Denied(it) | Self::Busy(it) => it.verdict,
            Self::Tls(_) | Self::Broken(_) | Self::Authorize(_) => Verdict::Failed,
            Self::Unknown(_) | Self::NoTls | Self::NoGateway | Self::NoConnect => {
                Verdict::FinalAtFirst
            }
            Self::Plain | Self::Refused(_) => Verdict::Final,
        }
    }

    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Denied(reply) if reply.status == StatusCode::CONFLICT)
    }

    pub(crate) fn is_cut(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
        matches!(self, Self::Tls(err) if kinds.contains(&err.kind()))
    }
}

/// A refusal of a registration by HTTP, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
// The registered name, not the peer's reason phrase.
#[error("{} {}{}", .status.as_u16(), .status.canonical_reason().unwrap_or("unknown status"), quoted(.reason))]
pub struct Reply {
    pub status: StatusCode,
    /// The peer's text, of 200 characters at most; may be empty.
    pub reason: String,
    pub verdict: Verdict,
}

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(", {reason:?}") }
}

/// Characters of a peer's text that are printed.
pub(super) const LONGEST_REASON: usize = 200;
