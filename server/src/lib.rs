//! The 2ptth gateway.

pub mod auth;
pub mod config;
pub mod tls;
