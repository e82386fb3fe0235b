//! Why a client gives up, for its user.

use ptth_link::token::PublicKey;

use crate::dial::DialError;
use crate::tls::TlsError;

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
