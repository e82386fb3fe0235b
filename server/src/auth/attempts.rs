//! Failed admissions, counted for each source address.
//!
//! Five are free, then each further one makes the next wait longer. Pure: the caller passes the
//! time in and does the waiting.
//!
//! Keys can't be guessed, so this doesn't guard a secret: it keeps a client that retries in a loop
//! from buying signatures and log lines. Attempts that run at the same time are the business of the
//! limit on connections: none of them has failed yet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failed admissions of the last minute, by address.
#[derive(Debug, Default)]
pub struct Attempts {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<IpAddr, Entry>,
    swept: Option<Instant>,
}

/// A leaky bucket: each failure adds [`SHARE`], and it drains as time goes by. So who fails now and
/// then never waits, however long that goes on.
#[derive(Clone, Copy, Debug)]
struct Entry {
    last: Instant,
    empty_at: Instant,
}

impl Attempts {
    /// Nobody has failed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a backend from `address` waits before its handshake goes on.
    pub fn delay(&self, address: IpAddr, now: Instant) -> Duration {
        let table = self.table();
        let Some(entry) = table.entries.get(&source(address)) else {
            return Duration::ZERO;
        };
        if entry.forgotten(now) {
            return Duration::ZERO;
        }
        let level = entry.empty_at.saturating_duration_since(now);
        let failures = level.as_millis().div_ceil(SHARE.as_millis());
        match u32::try_from(failures).unwrap_or(MOST).checked_sub(FREE) {
            None => Duration::ZERO,
            Some(over) => FIRST_DELAY.saturating_mul(2u32.saturating_pow(over)).min(LONGEST_DELAY),
        }
    }

    /// A backend from `address` wasn't admitted.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut table = self.table();
        let key = source(address);
        let known = table.entries.get(&key).copied().filter(|entry| !entry.forgotten(now));
        if known.is_none() {
            table.make_room(now);
        }
        let from = known.map_or(now, |entry| entry.empty_at.max(now));
        let empty_at = (from + SHARE).min(now + SHARE * MOST);
        table.entries.insert(key, Entry { last: now, empty_at });
    }

    /// A backend from `address` was admitted: what came before was a mistake.
    pub fn succeeded(&self, address: IpAddr) {
        self.table().entries.remove(&source(address));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= WINDOW
    }
}

impl Table {
    /// Keeps the table under its bound. A sweep looks at every entry, so a flood from many
    /// addresses gets one a second at most; in between, any entry goes.
    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        let due = self.swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP);
        if due {
            self.swept = Some(now);
            self.entries.retain(|_, entry| !entry.forgotten(now));
        }
        if self.entries.len() >= MAX_ENTRIES {
            let any = self.entries.keys().next().copied();
            any.and_then(|address| self.entries.remove(&address));
        }
    }
}

/// Who is counted as one: an IPv4 address, or the /64 that one IPv6 customer gets at least.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// Failures in a [`WINDOW`] that cost nothing: a wrong token pasted, a service that restarts.
const FREE: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// What one failure adds: so [`FREE`] of them drain in a [`WINDOW`].
const SHARE: Duration = Duration::from_secs(12);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Failures beyond which the delay doesn't grow, so that more needn't be remembered.
const MOST: u32 = FREE + 5;
/// About a megabyte.
const MAX_ENTRIES: usize = 10_000;
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_are_free_then_the_wait_doubles_up_to_its_end() {
        let (attempts, now, address) = (Attempts::new(), Instant::now(), ip("192.0.2.1"));
        let expected = [0, 0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 5000, 5000, 5000];
        for (failures, expected) in expected.into_iter().enumerate() {
            // A little later, as in life: the drained milliseconds must not give one for free.
            let later = now + Duration::from_millis(3);
            let delay = attempts.delay(address, later).as_millis();
            assert_eq!(delay, expected, "after {failures} failures");
            attempts.failed(address, now);
        }
        assert_eq!(attempts.delay(ip("192.0.2.2"), now), Duration::ZERO);
    }

    #[test]
    fn a_minute_of_quiet_forgets() {
        let (attempts, now, address) = (Attempts::new(), Instant::now(), ip("192.0.2.1"));
        for _ in 0..50 {
            attempts.failed(address, now);
        }
        // However many there were, what is remembered drains.
        let quiet = now + WINDOW - Duration::from_millis(1);
        assert_eq!(attempts.delay(address, quiet), FIRST_DELAY * 2);
        assert_eq!(attempts.delay(address, now + WINDOW), Duration::ZERO);
        attempts.failed(address, now + WINDOW);
        assert_eq!(attempts.delay(address, now + WINDOW), Duration::ZERO);
    }

    #[test]
    fn failing_now_and_then_never_waits() {
        let (attempts, mut now, address) = (Attempts::new(), Instant::now(), ip("192.0.2.1"));
        for _ in 0..1000 {
            attempts.failed(address, now);
            now += SHARE;
            assert_eq!(attempts.delay(address, now), Duration::ZERO);
        }
    }

    #[test]
    fn success_forgets() {
        let (attempts, now, address) = (Attempts::new(), Instant::now(), ip("192.0.2.1"));
        for _ in 0..6 {
            attempts.failed(address, now);
        }
        attempts.succeeded(address);
        assert_eq!(attempts.delay(address, now), Duration::ZERO);
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        let table = [
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.2", false),
        ];
        for (one, other, same) in table {
            let (attempts, now) = (Attempts::new(), Instant::now());
            for _ in 0..6 {
                attempts.failed(ip(one), now);
            }
            assert_eq!(attempts.delay(ip(other), now) > Duration::ZERO, same, "{one} {other}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_drops_the_forgotten_first() {
        let (attempts, now) = (Attempts::new(), Instant::now());
        let nth = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        for n in 0..MAX_ENTRIES + 500 {
            attempts.failed(nth(n), now);
            assert!(attempts.table().entries.len() <= MAX_ENTRIES);
        }
        let fresh = now + WINDOW;
        attempts.failed(nth(1), fresh);
        assert_eq!(attempts.table().entries.len(), 1);
    }
}
