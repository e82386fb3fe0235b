//! What a backend serves, by name: the name outlives a reload of the configuration.

use std::fmt;

/// A configured route, or a dynamic name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Site {
    /// The route of that name.
    Route(String),
    /// The dynamic name, a DNS label in lower case.
    Name(String),
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(name) => write!(f, "route {name:?}"),
            Self::Name(name) => write!(f, "name {name:?}"),
        }
    }
}
