//! Reads certificate, keys and configuration again, and applies what changed.
//!
//! Invariant: what can't be used changes nothing. The configuration is exchanged whole or not at all.

use std::fmt;

use log::{error, info, warn};

use crate::config::{Config, ConfigError};
use crate::policy::Policy;
use crate::shard::Shared;

/// Where the configuration comes from, to be read again.
pub struct Source(Box<dyn Fn() -> Result<Config, ConfigError> + Send>);

impl Source {
    /// What `load` gives.
    pub fn new(load: impl Fn() -> Result<Config, ConfigError> + Send + 'static) -> Self {
        Self(Box::new(load))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// What is looked at again and again.
#[derive(Debug)]
pub struct Reload {
    source: Option<Source>,
    /// Of the configuration in force.
    digest: [u8; 32],
    complaints: [String; 2],
}

impl Reload {
    /// Begins with the configuration of that digest in force.
    pub fn new(source: Option<Source>, digest: [u8; 32]) -> Self {
        Self { source, digest, complaints: Default::default() }
    }

    /// Looks once. `asked`: the operator waits for an answer in the log. Blocks: it reads files.
    pub fn run(&mut self, shared: &Shared, asked: bool) {
        let config = self.config(shared, asked);
        let tls = shared.tls.reload();
        let [_, complaint] = &mut self.complaints;
        match tls {
            Ok(changed) => {
                complaint.clear();
                if changed || asked {
                    let pin = shared.tls.pin().unwrap_or_default();
                    info!("gateway: certificate and tokens are up to date pin={pin}");
                }
            }
            Err(err) => {
                complain(complaint, asked, "the old certificate and tokens stay in use", &err);
            }
        }
        if !config {
            shared.roster.judge();
        }
    }

    /// Whether another policy is in force now, by which all tunnels were judged.
    fn config(&mut self, shared: &Shared, asked: bool) -> bool {
        let Some(Source(load)) = &self.source else { return false };
        let [complaint, _] = &mut self.complaints;
        let config = match load() {
            Ok(config) => config,
            Err(err) => {
                complain(complaint, asked, "the old configuration stays in use", &err);
                return false;
            }
        };
        if self.digest == config.digest {
            complaint.clear();
            return false;
        }
        if let Err(err) = shared.tls.change(&config) {
            complain(complaint, asked, "the old configuration stays in use", &err);
            return false;
        }
        complaint.clear();
        self.digest = config.digest;
        config.warnings.iter().for_each(|warning| warn!("gateway: {warning}"));
        apply(&config, shared);
        info!(
            "gateway: the configuration has changed; {} routes are in force",
            config.routes.len()
        );
        true
    }
}

fn apply(config: &Config, shared: &Shared) {
    let known = shared.tls.known();
    let before = shared.roster.policy();
    let policy = Policy::new(config, known, shared.shards(), Some(&before));
    // First whom TLS lets in, so that nobody is admitted by a policy that is no more.
    known.grant(policy.keys());
    shared.roster.swap(policy);
}

/// The same error every few seconds would bury everything else.
fn complain(last: &mut String, asked: bool, what: &str, err: &dyn fmt::Display) {
    let text = err.to_string();
    if asked || text != *last {
        error!("gateway: {what}: {text}");
    }
    *last = text;
}
