//! The 2ptth client.

pub mod config;
pub mod tls;
