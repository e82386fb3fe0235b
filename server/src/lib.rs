//! The 2ptth gateway: one public TLS port, HTTP/2 turned around behind it.
//!
//! ```text
//!                           ┌ visitor, http/1.1 ─> public::h1 ┐
//! socket ─> listener ─> tls ┤ visitor, h2 ───────> public::h2 ┴─> exchange ─> pool ─> h2 stream
//!             (task)  demux └ backend, 2ptth ────> tunnel::attach ──────────> pool
//! ```
//!
//! One thread a core, each with a runtime, listening sockets and tunnels of its own (`gateway`).

#![allow(
    missing_docs,
    reason = "private modules, which `lab` shows to the tests; not the public ones below"
)]

#[cfg(feature = "acme")]
mod acme;
mod admin;
mod auth;
// Most fields are settings, which docs/configuration.md explains.
pub mod config;
mod deliver;
mod demux;
#[doc(hidden)]
pub mod doctor;
#[warn(missing_docs)]
pub mod embed;
mod error;
mod exchange;
mod fallback;
mod gate;
#[warn(missing_docs)]
mod gateway;
mod greeting;
mod https;
mod identity;
mod listener;
mod live;
#[cfg(feature = "metrics")]
mod metrics;
mod observe;
mod outbox;
mod policy;
mod pool;
mod public;
mod quota;
mod registry;
mod reload;
mod reset_limiter;
mod router;
mod shard;
#[warn(missing_docs)]
mod tls;
mod tunnel;

pub use gateway::{Gateway, Order, StartError};
pub use greeting::lines as greeting;
pub use tls::{Tls, TlsError};

/// What the tests reach into; no part of the interface.
#[doc(hidden)]
pub mod lab {
    pub use crate::auth::{
        Checking, Claim, Credential, Files, KINDS, Known, Pass, Refusal, Settings, authorization,
    };
    pub use crate::deliver::run as deliver;
    pub use crate::demux::Peer;
    pub use crate::identity::{Grant, Identity, Key, Mark};
    pub use crate::listener::{
        Entrance, Rewind, accept_tls, behind, proxied, serve_backend, serve_plain, serve_visitor,
    };
    #[cfg(feature = "metrics")]
    pub use crate::metrics::page as metrics;
    pub use crate::outbox::{Counts, Outbox};
    pub use crate::policy::{Lost, Policy, Refused};
    pub use crate::pool::{Pool, Tunnel};
    pub use crate::public::{Visitor, serve_h1, serve_h2};
    pub use crate::quota::Attempts;
    pub use crate::registry::{Registration, Registry};
    pub use crate::router::{HostPattern, RouteId};
    pub use crate::shard::{Driving, Shard, Shared};
    pub use crate::tunnel::{Admitted, attach};
}
