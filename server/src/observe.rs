//! What is told of exchanges and tunnels: counts for the metrics, and a line in the access log.
//!
//! In:  one [`Record`] an exchange, which tells itself when it is dropped, and the comings and goings of tunnels.
//! Out: [`Counts`], which a scrape reads, and the access log.
//!
//! Invariant: nothing here waits, and no label has a value that a peer chose.

mod access;
mod counts;
mod record;

use std::sync::Arc;

use crate::config::Config;

pub(crate) use access::{AccessLog, Request};
pub(crate) use counts::{Counts, Refusal, RouteCounts};
pub(crate) use record::{End, Record};

/// Where the process tells what it does.
#[derive(Debug)]
pub struct Observe {
    pub(crate) counts: Counts,
    pub(crate) access: AccessLog,
    /// When this process began.
    #[cfg(feature = "metrics")]
    pub(crate) started: std::time::SystemTime,
}

impl Observe {
    /// For a gateway that keeps the access log of `config`. Opens its file.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn new(config: &Config) -> std::io::Result<Arc<Self>> {
        let access = AccessLog::open(config.access_log.as_deref(), config.log.format)?;
        Ok(Arc::new(Self {
            counts: Counts::default(),
            access,
            #[cfg(feature = "metrics")]
            started: std::time::SystemTime::now(),
        }))
    }
}
