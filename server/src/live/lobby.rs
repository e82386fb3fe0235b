//! Where the requests of a pool wait for its tunnels' streams.
//!
//! A tunnel may be in ten thousand pools, and a stream that ends wakes a request in each pool where one waits: this
//! must cost nothing where none waits anywhere, and little where they wait elsewhere.

use std::sync::LazyLock;
use std::sync::atomic::{Ordering, fence};

use tokio::sync::Notify;

use crate::quota::{Gauge, Permit};

#[derive(Debug, Default)]
pub(crate) struct Lobby {
    pub(crate) freed: Notify,
    waiting: Gauge,
}

/// Requests that wait in all lobbies of the process.
static WAITING: LazyLock<Gauge> = LazyLock::new(Gauge::default);

impl Lobby {
    /// A permit to be among `most` who wait, taken before the last look for a stream: a stream that is given back
    /// after that look finds the request waiting.
    pub(crate) fn wait(&self, most: usize) -> Option<(Permit, Permit)> {
        let waiting = (WAITING.permit(), self.waiting.take(most)?);
        fence(Ordering::SeqCst);
        Some(waiting)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.held()
    }

    /// Whether a request waits in any lobby, of those that took their permit before this stream was given back.
    pub(super) fn is_any_wanted() -> bool {
        fence(Ordering::SeqCst);
        WAITING.held() > 0
    }

    pub(super) fn free(&self) {
        if self.waiting.held() > 0 {
            self.freed.notify_one();
        }
    }
}
