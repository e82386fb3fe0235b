//! Tunnels, from the end of the TLS handshake to their end.
//!
//! Every door ends in [`attach`]: the mechanism differs, the policy doesn't.

mod announce;
mod costly;
mod h2;

pub(crate) use self::h2::Ended;
pub use self::h2::{Admitted, attach};
pub(crate) use self::h2::{is_free, refuse};
