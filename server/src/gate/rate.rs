//! Requests of each network in a time: a token bucket each, in bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ptth_link::lock::Mutex;
use tokio::time::Instant;

use crate::config::Rate;
use crate::quota::network;

/// The time at which each network's bucket is full again, and when all were looked at last.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Rate,
    table: Mutex<(HashMap<IpAddr, Instant>, Option<Instant>)>,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, table: Mutex::default() }
    }

    /// Takes a token of the network of `address`.
    ///
    /// # Errors
    /// How long to wait for the next one.
    pub(super) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let (now, key) = (Instant::now(), network(address));
        let Rate { interval, burst } = self.rate;
        let mut table = self.table.lock();
        let (buckets, swept) = &mut *table;
        let full = buckets.get(&key).map_or(now, |full| now.max(*full)) + interval;
        let room = interval.saturating_mul(burst);
        let wait = full.saturating_duration_since(now).saturating_sub(room);
        if !wait.is_zero() {
            return Err(wait);
        }
        if buckets.len() >= MOST && !buckets.contains_key(&key) {
            // A full bucket needs no memory. A sweep looks at all of them, so a flood from many addresses gets one a
            // second at most; in between, any bucket goes.
            if swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP) {
                *swept = Some(now);
                buckets.retain(|_, full| *full > now);
            }
            if buckets.len() >= MOST {
                let any = buckets.keys().next().copied();
                any.and_then(|any| buckets.remove(&any));
            }
        }
        buckets.insert(key, full);
        Ok(())
    }
}

/// Networks that are remembered: about a megabyte.
const MOST: usize = 10_000;
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(interval: u64, burst: u32) -> Rates {
        Rates::new(Rate { interval: Duration::from_millis(interval), burst })
    }

    fn nth(n: usize) -> IpAddr {
        IpAddr::from((n as u32).to_be_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_then_one_an_interval() {
        let rates = rates(50, 3);
        for _ in 0..3 {
            assert_eq!(rates.take(nth(1)), Ok(()));
        }
        assert_eq!(rates.take(nth(1)), Err(Duration::from_millis(50)));
        assert_eq!(rates.take(nth(2)), Ok(()), "another network");
        tokio::time::advance(Duration::from_millis(49)).await;
        assert_eq!(rates.take(nth(1)), Err(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(rates.take(nth(1)), Ok(()));
        assert_eq!(rates.take(nth(1)), Err(Duration::from_millis(50)), "a refusal costs nothing");
        tokio::time::advance(Duration::from_secs(3600)).await;
        let taken = (0..10).filter(|_| rates.take(nth(1)).is_ok()).count();
        assert_eq!(taken, 3, "no more than the burst, however long it rested");
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_visitor() {
        let rates = rates(1000, 1);
        assert_eq!(rates.take("2001:db8::1".parse().unwrap()), Ok(()));
        assert!(rates.take("2001:db8::2".parse().unwrap()).is_err());
        assert_eq!(rates.take("2001:db8:0:1::1".parse().unwrap()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_rates_is_bounded() {
        let rates = rates(1000, 1);
        for n in 0..MOST + 500 {
            assert_eq!(rates.take(nth(n)), Ok(()));
            assert!(rates.table.lock().0.len() <= MOST);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(rates.take(nth(MOST + 501)), Ok(()));
        assert_eq!(rates.table.lock().0.len(), 1, "what is full is forgotten");
    }
}
