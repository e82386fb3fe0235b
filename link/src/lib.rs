//! What both ends of a 2ptth tunnel must do identically.

pub mod alpn;
pub mod crypto;
pub mod env;
pub mod keys;
pub mod token;
