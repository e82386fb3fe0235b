//! What a visitor's connection holds of the process, until it ends or becomes a backend's (door B).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::caps::{Busy, Place, Stake};

/// A connection's place, and the gateway's wait for its end when draining.
#[derive(Debug, Default)]
pub struct Stay {
    held: Mutex<Held>,
    unframed: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    place: Option<Place>,
    /// While somebody has it, a gateway that drains waits.
    #[allow(dead_code, reason = "held for its drop")]
    awaited: Option<mpsc::Sender<()>>,
}

impl Stay {
    /// A visitor's.
    pub fn new(place: Place, awaited: Option<mpsc::Sender<()>>) -> Self {
        let held = Mutex::new(Held { place: Some(place), awaited });
        Self { held, unframed: AtomicBool::new(false) }
    }

    /// It is a tunnel from now on: that keeps its place, and isn't waited for by a gateway that drains,
    /// since it ends when the visitors are gone.
    pub fn become_tunnel(&self) -> Option<Place> {
        let mut held = self.lock();
        held.awaited = None;
        held.place.take()
    }

    /// It ends, and nothing runs on it any more but tunnels, which aren't waited for. It keeps its place.
    pub fn leave_to_tunnels(&self) {
        self.lock().awaited = None;
    }

    /// Whether nobody vouches for what comes, though a trusted proxy brings it.
    pub fn is_opaque(&self) -> bool {
        self.lock().place.as_ref().is_some_and(Place::is_opaque)
    }

    /// Whether its place is one of those for backends, and none has come by it yet.
    pub fn is_reserved(&self) -> bool {
        self.lock().place.as_ref().is_some_and(Place::is_reserved)
    }

    /// A request is under way, or what became of it, until this is dropped.
    pub fn busy(&self) -> Option<Busy> {
        self.lock().place.as_ref().map(Place::busy)
    }

    /// What a backend that comes by it does for its place.
    pub fn stake(&self) -> Option<Stake> {
        self.lock().place.as_ref().map(Place::stake)
    }

    /// Its last response has neither length nor chunks: the end of the connection is that of the body
    /// (RFC 9112 §6.3), and must not look orderly before.
    pub fn ends_with_response(&self) {
        self.unframed.store(true, Ordering::Relaxed);
    }

    /// Whether that was said.
    pub fn is_unframed(&self) -> bool {
        self.unframed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
