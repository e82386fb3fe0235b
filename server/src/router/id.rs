//! What a backend serves, by what visitors name: a host and a path.
//!
//! Invariant: no label of the configuration is in it, so it means the same before and after any reload.

use std::fmt;

use super::{HostPattern, exact};

/// A host of a configured route with its path, or a dynamic name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RouteId {
    /// What is under a prefix of the path, on the hosts of a pattern.
    Host(HostPattern, Box<str>),
    /// The dynamic name, a DNS label in lower case.
    Name(String),
}

impl RouteId {
    /// Whether it is for several hosts.
    pub fn is_wide(&self) -> bool {
        matches!(self, Self::Host(HostPattern::Any | HostPattern::Under(_), _))
    }

    /// The same for `host` alone.
    pub fn at(&self, host: &str) -> Option<Self> {
        match self {
            Self::Host(_, path) if self.is_wide() => Some(Self::Host(exact(host)?, path.clone())),
            narrow => Some(narrow.clone()),
        }
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, path) => write!(f, "{host}{path}"),
            Self::Name(name) => write!(f, "name {name:?}"),
        }
    }
}
