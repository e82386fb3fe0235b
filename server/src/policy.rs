//! The configuration as it is applied: which route a request takes, and what a backend may serve.
//!
//! Made whole from a checked [`Config`] and exchanged whole; what outlives an exchange (pools, live
//! dynamic names) is handed from one to the next, by name.
//!
//! Invariant: no visitor can reach this with anything but a host and a path.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;

use crate::auth::{Claim, Credential, Identity, Known, Mark, Refusal};
use crate::config::{Config, NoBackend, Respond, Route as Settings, WhenTaken};
use crate::live::Tunnel;
use crate::names::{Names, NamesState};
use crate::pool::{Patience, Pool};
use crate::router::Table;
use crate::site::Site;

/// One site, as visitors' requests meet it: a configured route or a dynamic name.
#[derive(Debug)]
pub struct Route {
    /// What it is.
    pub site: Site,
    /// Its tunnels.
    pub pool: Arc<Pool>,
    /// Whether the path's prefix that chose it is taken off.
    pub strip: bool,
    /// What becomes of the backend that is there when another one comes.
    pub when_taken: WhenTaken,
    /// What a visitor gets while there is no backend.
    pub no_backend: NoBackend,
    /// How long requests wait.
    pub patience: Patience,
    /// Answer at once, deliver later.
    pub respond: Option<Respond>,
    /// Where visitors find it, without scheme and port: `host/path`.
    pub addresses: Vec<String>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Found {
    /// The site.
    pub route: Arc<Route>,
    /// How many bytes of the path are the prefix to strip.
    pub strip: usize,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// No route for this host and path.
    Unrouted,
    /// A dynamic name that nobody serves.
    Nobody(NoBackend),
}

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
    /// Whatever its credential is good for; of several, those with this host, if it is one of theirs.
    Any(Option<String>),
    /// Exactly these hosts.
    Hosts(Vec<String>),
    /// A dynamic name.
    Name(String),
}

/// The table in force.
pub struct Policy {
    table: Table<Arc<Route>>,
    routes: Vec<Arc<Route>>,
    settings: Vec<Admits>,
    names: Option<Names>,
    shards: usize,
}

/// Whom a route admits, by its place in `routes`.
struct Admits {
    /// Those that the gateway as a whole admits, where the route doesn't say.
    general: Option<Arc<Known>>,
    credentials: Vec<Arc<dyn Credential>>,
    hosts: Table<()>,
}
