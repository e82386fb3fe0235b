//! Tunnels, from the end of the TLS handshake to their end.
//!
//! Every door ends in [`attach`]: the mechanism differs, the policy doesn't.

mod farewell;
mod h2;

pub use self::h2::{Ended, Home, attach, is_free, refuse};
pub(crate) use farewell::farewell;
