//! What the dials of one process have learned about the gateway's doors.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whether the door by HTTP is the better one for now.
#[derive(Debug, Default)]
pub(crate) struct Doors(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    /// Until when it isn't worth trying by ALPN.
    until: Option<Instant>,
    /// Whether the user knows.
    told: bool,
}

impl Doors {
    /// Whether to go by HTTP at once.
    pub(super) fn by_http(&self) -> bool {
        self.with(|learned| learned.until.is_some_and(|until| Instant::now() < until))
    }

    /// Notes that ALPN doesn't get through and HTTP does. True for the first time.
    pub(super) fn learn(&self) -> bool {
        self.with(|learned| {
            learned.until = Some(Instant::now() + MEMORY);
            !std::mem::replace(&mut learned.told, true)
        })
    }

    /// Notes that HTTP got nowhere either: the next dial begins anew.
    pub(super) fn forget(&self) {
        self.with(|learned| learned.until = None);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Learned) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A laptop leaves the network that is in the way; one needless handshake in ten minutes is no burden.
const MEMORY: Duration = Duration::from_secs(600);
