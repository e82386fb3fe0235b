//! Tunnels, from the end of the TLS handshake to their end.
//!
//! Every door ends in [`attach`]: the mechanism differs, the policy doesn't.

mod announce;
mod costly;
mod h2;

use std::future::Future;
use std::pin::Pin;

pub(crate) use self::h2::Ended;
pub use self::h2::{Home, attach};
pub(crate) use self::h2::{is_free, refuse};

/// A tunnel on its way to the shard that will drive it.
pub type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;
