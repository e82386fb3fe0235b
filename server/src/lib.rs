//! The 2ptth gateway: one public TLS port, HTTP/2 turned around behind it.
//!
//! ```text
//!                           ┌ visitor, http/1.1 ─> public::h1 ┐
//! socket ─> listener ─> tls ┤ visitor, h2 ───────> public::h2 ┴─> forward ─> pool ─> h2 stream
//!             (task)  demux └ backend, 2ptth ────> tunnel::attach ─────────> pool
//! ```
//!
//! One thread a core, each with a runtime, listening sockets and tunnels of its own ([`gateway`]).

pub mod auth;
pub mod carry;
pub mod config;
mod confine;
pub mod deliver;
pub mod demux;
pub mod edge;
pub mod embed;
pub mod error;
mod fallback;
pub mod forward;
mod frames;
pub mod gateway;
pub mod greeting;
pub mod identity;
pub mod listener;
pub mod live;
pub mod policy;
pub mod pool;
pub mod public;
pub mod quota;
pub mod registry;
pub mod reload;
pub mod reset_limiter;
pub mod router;
pub mod shard;
pub mod tls;
pub mod tunnel;
pub mod upload;

pub use gateway::{Gateway, Order, StartError};
