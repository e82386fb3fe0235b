//! What a backend serves, by what visitors name: a host and a path.
//!
//! Invariant: no label of the configuration is in it, so it means the same before and after any reload.

use std::fmt;

use super::HostPattern;

/// A host of a configured route with its path, or a dynamic name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RouteId {
    /// What is under a prefix of the path, on the hosts of a pattern.
    Host(HostPattern, Box<str>),
    /// The dynamic name, a DNS label in lower case.
    Name(String),
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, path) => write!(f, "{host}{path}"),
            Self::Name(name) => write!(f, "name {name:?}"),
        }
    }
}
