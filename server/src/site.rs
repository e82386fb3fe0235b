//! What a backend serves, by what visitors name: a host and a path.
//!
//! Invariant: no label of the configuration is in it, so it means the same before and after any reload.

use std::fmt;

use crate::auth::Mark;
use crate::router::HostPattern;

/// A host of a configured route with its path, or a dynamic name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Site {
    /// What is under a prefix of the path, on the hosts of a pattern.
    Host(HostPattern, Box<str>),
    /// The dynamic name, a DNS label in lower case.
    Name(String),
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, path) => write!(f, "{host}{path}"),
            Self::Name(name) => write!(f, "name {name:?}"),
        }
    }
}

/// One site that a backend may serve, and by which credential: what was asked, and nothing wider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    site: Site,
    by: Option<Mark>,
    /// The domain under which a secret was found good for a name.
    domain: Option<Box<str>>,
}

impl Grant {
    /// By the key that TLS proved, which is judged again by the policy in force.
    pub fn by_key(site: Site) -> Self {
        Self { site, by: None, domain: None }
    }

    /// By a secret that was found good for exactly this.
    pub(crate) fn by_secret(site: Site, mark: Mark) -> Self {
        Self { site, by: Some(mark), domain: None }
    }

    /// The same for a dynamic name, which is a host only together with its domain.
    pub(crate) fn of_name(name: &str, domain: &str, mark: Mark) -> Self {
        Self { domain: Some(domain.into()), ..Self::by_secret(Site::Name(name.to_owned()), mark) }
    }

    /// Whether this is good for a name under that domain.
    pub(crate) fn is_under(&self, domain: &str) -> bool {
        self.domain.as_deref().is_none_or(|known| known == domain)
    }

    /// What may be served.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The secret that it was granted for; `None`: the key.
    pub fn mark(&self) -> Option<Mark> {
        self.by
    }
}
