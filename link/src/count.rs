//! What is counted, in atomics that no thread waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::failure::Party;

/// The class of an exchange's status; the first is for those that ended before a status.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// The party at fault, if any.
pub const PARTIES: [&str; 5] = ["none", "visitor", "gateway", "backend", "origin"];

#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// None so far.
    pub const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Exchanges that ended, by class and party.
#[derive(Debug, Default)]
pub struct Exchanges([[Count; PARTIES.len()]; CLASSES.len()]);

impl Exchanges {
    /// One more.
    pub fn add(&self, status: Option<StatusCode>, party: Option<Party>) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        let count = self.0.get(class).and_then(|it| it.get(index(party)));
        count.iter().for_each(|count| count.add(1));
    }

    /// Class, party and count of what there were any of.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let classes = CLASSES.into_iter().zip(&self.0);
        let all = classes.flat_map(|(class, parties)| {
            PARTIES.into_iter().zip(parties).map(move |(party, count)| (class, party, count.get()))
        });
        all.filter(|(_, _, count)| *count > 0)
    }
}

/// How many took how long.
#[derive(Debug, Default)]
pub struct Seconds {
    /// Up to each of [`Self::BOUNDS`], and beyond the last.
    buckets: [Count; 12],
    micros: Count,
}

impl Seconds {
    pub const BOUNDS: [f64; 11] =
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];

    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = Self::BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        self.buckets.get(bucket).iter().for_each(|bucket| bucket.add(1));
        self.micros.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sum in seconds, and each bucket's end with what is in it alone.
    pub fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = Self::BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets = bounds.zip(&self.buckets).map(|(bound, count)| (bound, count.get()));
        (Duration::from_micros(self.micros.get()).as_secs_f64(), buckets.collect())
    }
}

/// Where [`PARTIES`] has the party.
pub fn index(party: Option<Party>) -> usize {
    party.map_or(0, |party| party as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_in_its_class_and_at_its_party() {
        let exchanges = Exchanges::default();
        exchanges.add(None, Some(Party::Visitor));
        exchanges.add(Some(StatusCode::NOT_FOUND), None);
        exchanges.add(Some(StatusCode::BAD_GATEWAY), Some(Party::Origin));
        exchanges.add(Some(StatusCode::BAD_GATEWAY), Some(Party::Origin));
        let read: Vec<_> = exchanges.read().collect();
        assert_eq!(read, [("none", "visitor", 1), ("4xx", "none", 1), ("5xx", "origin", 2)]);
        for party in Party::ALL {
            assert_eq!(PARTIES[index(Some(party))], party.name());
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
}
