//! Requests that were acknowledged and are still to be delivered (`respond` of a route).
//!
//! Invariant: what is kept is bounded in number and bytes (`backlog`), from a body's first byte to the
//! end of the last attempt. It is in memory alone: a gateway that ends for good while a backend is
//! away loses it, and says how much.

mod backlog;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{ExchangeError, RequestId};

use ptth_link::lock::Mutex;

pub(crate) use backlog::{Backlog, Permit, REQUESTS};

#[derive(Debug)]
pub struct Outbox {
    /// Of requests whose bodies aren't complete yet.
    pub(crate) unread: Arc<Backlog>,
    pub(crate) kept: Arc<Backlog>,
    state: Mutex<State>,
    pub(crate) news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What isn't taken for delivery yet; no more than the backlog holds.
    arrivals: Vec<Delivery>,
    closed: bool,
    counts: Counts,
}

/// What became of the requests so far, each counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Answered at once, to be delivered.
    pub queued: u64,
    /// Not taken for want of room.
    pub refused: u64,
    pub delivered: u64,
    /// Attempts after which another one follows.
    pub retried: u64,
    /// Given up, though their senders were told that they were taken.
    pub dropped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queued, refused, delivered, retried, dropped } = self;
        write!(f, "queued={queued} refused={refused} delivered={delivered} retried={retried} ")?;
        write!(f, "dropped={dropped}")
    }
}

#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: RequestId,
    pub(crate) address: IpAddr,
    /// As it came, but for the hygiene: its host and path say anew at each attempt where it goes.
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) attempts: u32,
    /// Why the last attempt failed, as the end of a sentence.
    pub(crate) last: String,
    pub(crate) expires: Instant,
    pub(crate) permit: Permit,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            unread: Backlog::new(UNREAD),
            kept: Backlog::new(REQUESTS),
            state: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl Outbox {
    pub(crate) fn push(&self, delivery: Delivery) -> Result<(), ExchangeError> {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return Err(self.refuse());
        }
        state.arrivals.push(delivery);
        state.counts.queued += 1;
        self.news.notify_one();
        Ok(())
    }

    pub(crate) fn refuse(&self) -> ExchangeError {
        self.count(|counts| counts.refused += 1);
        ExchangeError::Backlog
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes nothing more: the sender is to try another gateway, or this one after its restart.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    pub(crate) fn arrivals(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.state.lock().arrivals)
    }

    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.state.lock().counts);
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Requests that are kept or read now, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        let [unread, kept] = [&self.unread, &self.kept].map(|backlog| backlog.held());
        (unread[0] + kept[0], unread[1] + kept[1])
    }
}

/// Requests whose bodies are under way at a time. An address has a quarter at most.
const UNREAD: usize = 400;
