//! The exchanges that are kept, in bounded memory.
//!
//! Invariant: what hears an exchange waits for nothing here but a lock that is held for a copy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, request};
use ptth_link::lock::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use super::tape::Tape;
use crate::watch::{Hears, Watch};

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Limits {
    pub exchanges: usize,
    /// Bytes of one body, and of all together.
    pub body: usize,
    pub bytes: usize,
    /// Fields whose values are shown only on request, beside those that are known to hold secrets.
    pub redact: Vec<HeaderName>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) limits: Limits,
    /// The oldest first.
    tapes: Mutex<VecDeque<Arc<Tape>>>,
    held: AtomicUsize,
    next: AtomicU64,
    /// Each gets the summary of what changed. One that doesn't keep up is ended, and asks for the list again.
    pages: Mutex<Vec<mpsc::Sender<Bytes>>>,
}

/// The store, as what hears all exchanges.
#[derive(Clone, Debug)]
pub(super) struct Listening(pub(super) Arc<Store>);

impl Watch for Listening {
    fn begin(&self, service: Option<&str>, head: &request::Parts) -> Arc<dyn Hears> {
        self.0.add(None, service, head)
    }
}

impl Store {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            tapes: Mutex::default(),
            held: AtomicUsize::new(0),
            next: AtomicU64::new(1),
            pages: Mutex::default(),
        })
    }

    pub(super) fn add(
        self: &Arc<Self>,
        replay_of: Option<u64>,
        service: Option<&str>,
        head: &request::Parts,
    ) -> Arc<Tape> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let tape = Arc::new(Tape::new(self, (id, replay_of), service, head));
        let oldest = {
            let mut tapes = self.tapes.lock();
            tapes.push_back(tape.clone());
            (tapes.len() > self.limits.exchanges).then(|| tapes.pop_front()).flatten()
        };
        self.forget(oldest);
        self.tell(&tape);
        tape
    }

    /// Says that so many bytes more are kept, before they can be forgotten.
    pub(super) fn grew(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Forgets the oldest exchanges while too much is kept.
    pub(super) fn make_room(&self) {
        while self.held.load(Ordering::Relaxed) > self.limits.bytes {
            let Some(oldest) = self.tapes.lock().pop_front() else { return };
            self.forget(Some(oldest));
        }
    }

    fn forget(&self, tape: Option<Arc<Tape>>) {
        let freed = tape.map_or(0, |tape| tape.forget());
        self.held.fetch_sub(freed, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        let tapes = std::mem::take(&mut *self.tapes.lock());
        tapes.into_iter().for_each(|tape| self.forget(Some(tape)));
    }

    /// Has the pages that listen show this as it is now.
    pub(super) fn tell(&self, tape: &Tape) {
        let mut pages = self.pages.lock();
        if !pages.is_empty() {
            let event = Bytes::from(format!("data: {}\n\n", tape.summary()));
            pages.retain(|page| page.try_send(event.clone()).is_ok());
        }
    }

    /// What changes from now on, as server-sent events, after `first`.
    pub(super) fn listen(&self, first: &str) -> mpsc::Receiver<Bytes> {
        let (page, events) = mpsc::channel(EVENTS);
        let _ = page.try_send(Bytes::from(format!(": {first}\n\n")));
        self.pages.lock().push(page);
        events
    }

    pub(super) fn all(&self) -> Vec<Arc<Tape>> {
        self.tapes.lock().iter().cloned().collect()
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<Tape>> {
        self.tapes.lock().iter().find(|tape| tape.id == id).cloned()
    }

    /// Names and values in order; those that hold secrets masked, unless `secrets` are asked for.
    pub(super) fn fields(&self, fields: &HeaderMap, secrets: bool) -> Vec<[Value; 2]> {
        let hides = |name: &HeaderName| SECRETS.contains(name) || self.limits.redact.contains(name);
        let shown = fields.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let masked = !secrets && hides(name);
            [name.as_str().into(), if masked { MASK.into() } else { text.into() }]
        });
        shown.collect()
    }
}

/// What stands in the place of a secret.
pub(super) const MASK: &str = "(masked)";
const SECRETS: [HeaderName; 4] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE];
/// Changes that may wait for a page.
const EVENTS: usize = 1024;
