//! What is counted, in atomics that no thread waits for.
//!
//! An exchange finds its route's counts by a pointer: no look-up by a string, and no allocation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ptth_link::failure::{Failure, Party};
use ptth_link::lock::Mutex;

/// The class of an exchange's status; the first is for those that ended before a status.
pub(crate) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// The party at fault, if any.
pub(crate) const PARTIES: [&str; 5] = ["none", "visitor", "gateway", "backend", "origin"];

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    #[cfg(any(test, feature = "metrics"))]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The exchanges of one configured route, by class and party; or of everything else.
#[derive(Debug, Default)]
pub(crate) struct RouteCounts {
    /// Empty for what has no name in the configuration.
    pub(crate) name: String,
    pub(crate) exchanges: [[Count; PARTIES.len()]; CLASSES.len()],
}

/// How many took how long.
#[derive(Debug, Default)]
pub(crate) struct Seconds {
    /// Up to each of [`Self::BOUNDS`], and beyond the last.
    buckets: [Count; 12],
    micros: Count,
}

impl Seconds {
    pub(crate) const BOUNDS: [f64; 11] =
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];

    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = Self::BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        self.buckets.get(bucket).iter().for_each(|bucket| bucket.add(1));
        self.micros.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sum in seconds, and each bucket's end with what is in it alone.
    #[cfg(feature = "metrics")]
    pub(crate) fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = Self::BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets = bounds.zip(&self.buckets).map(|(bound, count)| (bound, count.get()));
        (Duration::from_micros(self.micros.get()).as_secs_f64(), buckets.collect())
    }
}

/// What was refused before it was an exchange or a tunnel. What is refused by a page is a [`Failure`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Admission,
    Connections,
}

#[derive(Debug)]
pub(crate) struct Counts {
    routes: Mutex<BTreeMap<String, Arc<RouteCounts>>>,
    /// Dynamic names, and what has no route.
    pub(crate) other: Arc<RouteCounts>,
    pub(crate) failures: [Count; Failure::ALL.len()],
    pub(crate) refusals: [Count; 2],
    /// From the request's head to its stream, to the response's head, and from there to the end.
    pub(crate) queue: Seconds,
    pub(crate) head: Seconds,
    pub(crate) transfer: Seconds,
    /// Of bodies, from visitors and to them.
    pub(crate) bytes: [Count; 2],
    /// Transfers that ended before their end, by the party at fault.
    pub(crate) broken: [Count; PARTIES.len()],
    /// Times that a body waited for a window of HTTP/2, by the party that didn't grant it.
    pub(crate) stalls: [Count; PARTIES.len()],
    pub(crate) opened: Count,
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            routes: Mutex::default(),
            other: Arc::default(),
            failures: [const { Count(AtomicU64::new(0)) }; Failure::ALL.len()],
            refusals: Default::default(),
            queue: Seconds::default(),
            head: Seconds::default(),
            transfer: Seconds::default(),
            bytes: Default::default(),
            broken: Default::default(),
            stalls: Default::default(),
            opened: Count::default(),
            ended: Mutex::default(),
        }
    }
}

impl Counts {
    /// Those of a configured route, found once in the life of its configuration.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteCounts> {
        if name.is_empty() {
            return self.other.clone();
        }
        let mut routes = self.routes.lock();
        let make = || Arc::new(RouteCounts { name: name.to_owned(), ..RouteCounts::default() });
        routes.entry(name.to_owned()).or_insert_with(make).clone()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn routes(&self) -> Vec<Arc<RouteCounts>> {
        self.routes.lock().values().chain([&self.other]).cloned().collect()
    }

    pub(crate) fn refused(&self, what: Refusal) {
        let index = what as usize;
        self.refusals.get(index).iter().for_each(|count| count.add(1));
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.failures.get(failure as usize).iter().for_each(|count| count.add(1));
    }

    /// A tunnel that took requests is over.
    pub(crate) fn ended(&self, why: &'static str) {
        *self.ended.lock().entry(why).or_default() += 1;
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn ends(&self) -> BTreeMap<&'static str, u64> {
        self.ended.lock().clone()
    }
}

/// Where [`PARTIES`] has the party.
pub(super) fn index(party: Option<Party>) -> usize {
    party.map_or(0, |party| party as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_and_failures_have_the_places_that_their_names_say() {
        for party in Party::ALL {
            assert_eq!(PARTIES[index(Some(party))], party.name());
        }
        for (at, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, at);
        }
    }

    #[test]
    fn a_time_is_in_the_bucket_that_ends_behind_it() {
        let seconds = Seconds::default();
        for micros in [0, 1_000, 1_001, 120_000_000, 120_000_001] {
            seconds.observe(Duration::from_micros(micros));
        }
        let counts: Vec<_> = seconds.buckets.iter().map(Count::get).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn a_route_without_a_name_is_among_the_others() {
        let counts = Counts::default();
        assert!(Arc::ptr_eq(&counts.route("a"), &counts.route("a")));
        assert!(Arc::ptr_eq(&counts.route(""), &counts.other));
        assert!(!Arc::ptr_eq(&counts.route("a"), &counts.other));
    }
}
