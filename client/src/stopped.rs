//! Why a client gives up, for its user.

use std::fmt;

use ptth_link::token::PublicKey;

use crate::dial::DialError;
use crate::tls::TlsError;

/// Why there will be no tunnel, however often it is tried.
#[derive(Debug)]
pub enum Stopped {
    /// The gateway refuses us; and the key that it refuses, if it is one that the user knows of.
    Refused(DialError, Option<PublicKey>),
    /// Another backend has the place, and keeps it.
    Taken,
    /// Another backend has the place now. Dialling again would take it back, and so on for ever.
    Replaced,
    /// The gateway admitted us, and lets us serve nothing of what we asked for; with its words.
    Forbidden(Option<String>),
    /// The gateway isn't the one that it should be, on the very first dial.
    Unknown(DialError),
    /// TLS can't be set up.
    Tls(TlsError),
}

impl Stopped {
    /// Whether the gateway said no, rather than something here or on the way being wrong.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(..) | Self::Taken | Self::Replaced | Self::Forbidden(_))
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(err, Some(key)) => write!(f, "{err}; its public half is {key}"),
            Self::Refused(err, None) | Self::Unknown(err) => write!(f, "{err}"),
            Self::Taken => f.write_str(
                "the gateway refuses this client: another backend serves this already; stop that one, or ask for another --host or --name",
            ),
            Self::Replaced => f.write_str(
                "another backend took over what this client served; stop one of the two, or let the gateway's route have `when_taken = \"balance\"`",
            ),
            Self::Forbidden(words) => {
                f.write_str("the gateway refuses this client: ")?;
                match words {
                    Some(words) => write!(f, "{words:?}")?,
                    None => f.write_str("this token may serve nothing of what was asked for")?,
                }
                f.write_str("; ask for another --host or --name, or have the gateway allow it")
            }
            Self::Tls(err) => write!(f, "{err}"),
        }
    }
}

impl std::error::Error for Stopped {}
