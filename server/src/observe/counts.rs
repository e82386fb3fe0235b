//! What is counted, in atomics that no thread waits for.
//!
//! An exchange finds its route's counts by a pointer: no look-up by a string, and no allocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use ptth_link::count::{Count, Exchanges, PARTIES, Seconds};
use ptth_link::failure::Failure;
use ptth_link::lock::Mutex;

/// The exchanges of one configured route, by class and party; or of everything else.
#[derive(Debug, Default)]
pub(crate) struct RouteCounts {
    /// Empty for what has no name in the configuration.
    pub(crate) name: String,
    pub(crate) exchanges: Exchanges,
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
            failures: [const { Count::zero() }; Failure::ALL.len()],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_places_that_their_table_says() {
        for (at, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, at);
        }
    }

    #[test]
    fn a_route_without_a_name_is_among_the_others() {
        let counts = Counts::default();
        assert!(Arc::ptr_eq(&counts.route("a"), &counts.route("a")));
        assert!(Arc::ptr_eq(&counts.route(""), &counts.other));
        assert!(!Arc::ptr_eq(&counts.route("a"), &counts.other));
    }
}
