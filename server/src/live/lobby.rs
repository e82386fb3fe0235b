//! Where the requests of a pool wait for its tunnels' streams.
//!
//! A tunnel may be in ten thousand pools, and a stream that ends wakes somebody in each where somebody waits: nothing
//! is to be done where nobody waits anywhere, and little where it is elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering, fence};

use tokio::sync::Notify;

/// Where they wait.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    /// Wakes those who wait.
    pub(crate) freed: Notify,
    waiting: AtomicUsize,
}

/// Requests that wait in all lobbies of the process.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Lobby {
    /// A place among `most` who wait, taken before the last look for a stream: whoever gives one back after that look
    /// finds somebody waiting.
    pub(crate) fn wait(&self, most: usize) -> Option<Waiting<'_>> {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        (before < most).then_some(waiting)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether somebody waits in any lobby, of all who took their place before this stream was given back.
    pub(super) fn is_any_wanted() -> bool {
        fence(Ordering::SeqCst);
        WAITING.load(Ordering::SeqCst) > 0
    }

    /// A stream was given back that may be had from here.
    pub(super) fn free(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

/// One who waits, until dropped.
pub(crate) struct Waiting<'a>(&'a Lobby);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}
