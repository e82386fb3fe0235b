//! Requests that were acknowledged and are still to be delivered (`respond` of a route).
//!
//! Invariant: what is kept is bounded in number and bytes (`backlog`), from a body's first byte to the
//! end of the last attempt. It is in memory alone: a gateway that ends for good while a backend is
//! away loses it, and says how much.

mod backlog;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{ExchangeError, RequestId};

pub(crate) use backlog::{Backlog, LARGEST, Permit, REQUESTS};

/// What is to be delivered.
#[derive(Debug)]
pub struct Outbox {
    /// For those whose bodies aren't here yet.
    pub(crate) unread: Arc<Backlog>,
    /// For those that were acknowledged.
    pub(crate) kept: Arc<Backlog>,
    arrivals: Mutex<Arrivals>,
    pub(crate) news: Notify,
    pub(crate) counters: Counters,
}

/// What isn't taken for delivery yet; no more than the backlog holds.
#[derive(Debug, Default)]
struct Arrivals {
    queue: VecDeque<Delivery>,
    closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) queued: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// What became of the requests so far, each counted from the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Answered at once, to be delivered.
    pub queued: u64,
    /// Not taken for want of room.
    pub refused: u64,
    /// Taken by a backend.
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

/// One request, kept whole.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: RequestId,
    pub(crate) address: IpAddr,
    /// As it came, but for the hygiene: its host and path say anew at each attempt where it goes.
    pub(crate) head: Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) attempts: u32,
    pub(crate) expires: Instant,
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) permit: Permit,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            unread: Backlog::new(UNREAD),
            kept: Backlog::new(REQUESTS),
            arrivals: Mutex::default(),
            news: Notify::new(),
            counters: Counters::default(),
        }
    }
}

impl Outbox {
    pub(crate) fn push(&self, delivery: Delivery) -> Result<(), ExchangeError> {
        let mut arrivals = self.lock();
        if arrivals.closed {
            drop(arrivals);
            return Err(self.refuse());
        }
        arrivals.queue.push_back(delivery);
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        self.news.notify_one();
        Ok(())
    }

    pub(crate) fn refuse(&self) -> ExchangeError {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        ExchangeError::Backlog
    }

    /// Whether nothing more is taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes nothing more: the sender shall try another gateway, or this one when it is back.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    pub(crate) fn arrivals(&self) -> VecDeque<Delivery> {
        std::mem::take(&mut self.lock().queue)
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the requests so far.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            queued: load(&self.counters.queued),
            refused: load(&self.counters.refused),
            delivered: load(&self.counters.delivered),
            retried: load(&self.counters.retried),
            dropped: load(&self.counters.dropped),
        }
    }

    /// Requests that are kept or read now, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        let [unread, kept] = [&self.unread, &self.kept].map(|backlog| backlog.held());
        (unread[0] + kept[0], unread[1] + kept[1])
    }
}

/// Requests whose bodies are under way at a time. An address has a quarter at most.
const UNREAD: usize = 400;
