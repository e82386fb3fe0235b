//! A gateway that takes over from another process: the backends are that one's at first, and come within seconds.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::pool::Patience;

use super::Registry;

/// Until when they are expected, if this took over.
#[derive(Debug, Default)]
pub(super) struct Succession(OnceLock<Instant>);

impl Registry {
    /// Has requests wait for a moment for the backends of the process before this one.
    pub fn expect_backends(&self) {
        let _ = self.succession.0.set(Instant::now() + SUCCESSION);
    }

    /// How long a request waits where a route has that `patience`.
    pub(crate) fn patience(&self, patience: Patience) -> Patience {
        let left =
            self.succession.0.get().map(|until| until.saturating_duration_since(Instant::now()));
        match (left, patience.hold) {
            (Some(left), None) if !left.is_zero() => {
                Patience { hold: Some((left, EXPECTING)), ..patience }
            }
            _ => patience,
        }
    }
}

/// Clients are back within two seconds of a gateway.
const SUCCESSION: Duration = Duration::from_secs(10);
/// Requests that wait for a route's backend then.
const EXPECTING: usize = 1000;
