//! Tunnels, from the end of the TLS handshake to their end.
//!
//! Every door ends in [`attach`]: the mechanism differs, the policy doesn't.

mod h2;
pub use self::h2::{Ended, Home, attach};
