//! What both ends of a 2ptth tunnel must do identically.
//!
//! Admission: both binaries call it **and** must behave the same. Two copies of header hygiene that
//! drift apart would be a way to smuggle requests.

// Only the two programs use it, so an item has a comment where its name and type don't say enough.
#![allow(missing_docs)]

pub mod admin;
pub mod alpn;
pub mod bandwidth;
pub mod body;
pub mod budget;
pub mod cli;
pub mod count;
pub mod crypto;
pub mod deadline;
pub mod doctor;
pub mod explain;
pub mod failure;
pub mod files;
pub mod forwarded;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod limits;
pub mod lock;
pub mod logging;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod nested;
pub mod page;
pub mod pump;
pub mod settings;
pub mod shutdown;
pub mod systemd;
pub mod tcp;
pub mod token;
pub mod upgrade;
