//! The tunnels as they are now, for what shows them: `--admin`, and the supervisor.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ptth_link::count::Count;
use ptth_link::h2::pulse::Pulse;
use ptth_link::lock::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The tunnels of all services. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Board>);

#[derive(Debug, Default)]
struct Board {
    slots: Mutex<Vec<Weak<Mutex<Shows>>>>,
    came: Notify,
    ups: Count,
    losses: Mutex<BTreeMap<&'static str, u64>>,
}

/// One tunnel, which is dialled again and again. It is shown until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    board: Arc<Board>,
    shows: Arc<Mutex<Shows>>,
}

#[derive(Debug)]
struct Shows {
    service: Option<String>,
    label: String,
    gateway: String,
    state: &'static str,
    since: Instant,
    /// Of the connection that is there.
    pulse: Option<Arc<Pulse>>,
}

impl Place {
    /// A connection is being made; one that is to be renewed goes on meanwhile.
    pub(crate) fn dials(&self) {
        let mut shows = self.shows.lock();
        shows.state = if shows.pulse.is_some() { "renewing" } else { "dialling" };
    }

    pub(crate) fn is_up(&self, pulse: Arc<Pulse>) {
        let mut shows = self.shows.lock();
        (shows.state, shows.since, shows.pulse) = ("up", Instant::now(), Some(pulse));
        self.board.came.notify_one();
        self.board.ups.add(1);
    }

    /// It has no connection for that reason, and another one will be made.
    pub(crate) fn counts(&self, loss: &'static str) {
        *self.board.losses.lock().entry(loss).or_default() += 1;
    }

    pub(crate) fn is_lost(&self) {
        let mut shows = self.shows.lock();
        (shows.state, shows.since, shows.pulse) = ("waiting", Instant::now(), None);
    }
}

impl Shown {
    pub(crate) fn place(&self, service: Option<&str>, label: &str, gateway: String) -> Place {
        let shows = Arc::new(Mutex::new(Shows {
            service: service.map(str::to_owned),
            label: label.to_owned(),
            gateway,
            state: "dialling",
            since: Instant::now(),
            pulse: None,
        }));
        let mut slots = self.0.slots.lock();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(&shows));
        Place { board: self.0.clone(), shows }
    }

    /// Waits until a tunnel is up. Cancel safe.
    pub async fn came(&self) {
        self.0.came.notified().await;
    }

    /// Of a service, or of all with none: tunnels whose gateway answered a PING within two intervals, and all.
    pub fn count(&self, service: Option<&str>) -> (usize, usize) {
        let mut counts = (0, 0);
        self.each(|shows| {
            if service.is_none() || shows.service.as_deref() == service {
                counts.1 += 1;
                counts.0 += usize::from(shows.pulse.as_ref().is_some_and(|it| it.is_answering()));
            }
        });
        counts
    }

    /// The longest round trip now; how often a tunnel came up so far, and why there was none.
    pub fn sums(&self) -> (Duration, u64, BTreeMap<&'static str, u64>) {
        let mut longest = Duration::ZERO;
        self.each(|shows| {
            let round_trip = shows.pulse.as_ref().and_then(|pulse| pulse.round_trip());
            longest = longest.max(round_trip.unwrap_or_default());
        });
        (longest, self.0.ups.get(), self.0.losses.lock().clone())
    }

    /// The tunnels, for people and programs.
    pub fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        self.each(|shows| {
            let pulse = shows.pulse.as_deref();
            let round_trip = pulse.and_then(Pulse::round_trip);
            rows.push(json!({
                "tunnel": shows.label,
                "gateway": shows.gateway,
                "state": shows.state,
                "since_seconds": shows.since.elapsed().as_secs(),
                "answered_seconds_ago": pulse.and_then(Pulse::silent).map(|it| it.as_secs()),
                "round_trip_ms": round_trip.map(|time| time.as_micros() as f64 / 1000.0),
                "streams": pulse.map(|it| it.streams.load(Ordering::Relaxed)),
                "streams_in_all": pulse.map(|it| it.opened.load(Ordering::Relaxed)),
                "received_bytes": pulse.map(|it| it.received.load(Ordering::Relaxed)),
                "sent_bytes": pulse.map(|it| it.sent.load(Ordering::Relaxed)),
            }));
        });
        rows
    }

    fn each(&self, mut look: impl FnMut(&Shows)) {
        let slots = self.0.slots.lock().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        slots.iter().for_each(|slot| look(&slot.lock()));
    }
}
