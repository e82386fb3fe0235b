//! What a backend asks for, and why it doesn't get it.

use std::fmt;

use crate::identity::Grant;
use crate::router::RouteId;

/// Why a backend isn't let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Nothing that it showed is known; and the schemes that might be (RFC 9110 §11.6.1).
    Unknown {
        /// For WWW-Authenticate.
        challenges: Vec<&'static str>,
        /// For the gateway's log alone.
        why: String,
    },
    /// It is known, and this isn't its to serve.
    Forbidden(String),
    /// Whoever decides about it can't be asked.
    Unavailable,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { why, .. } => write!(f, "not admitted: {why}"),
            Self::Forbidden(what) => write!(f, "not allowed to serve {what}"),
            Self::Unavailable => f.write_str("the authorizer can't be asked"),
        }
    }
}

/// What a backend asks to serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wish {
    /// Whatever its credential is good for.
    Any,
    /// Exactly these hosts.
    Hosts(Vec<String>),
    /// A dynamic name.
    Name(String),
}

/// Those routes that are at the path that a backend wants to serve alone, if it names one.
pub(super) fn at_path(mut found: Vec<Grant>, path: Option<&str>) -> Result<Vec<Grant>, Refused> {
    let Some(path) = path else { return Ok(found) };
    found.retain(|found| matches!(found.route(), RouteId::Host(_, known) if **known == *path));
    if found.is_empty() { Err(forbidden(format!("the path {path:?}"))) } else { Ok(found) }
}

pub(super) fn forbidden(what: String) -> Refused {
    Refused::Forbidden(what)
}
