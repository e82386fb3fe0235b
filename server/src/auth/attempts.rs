//! Failed admissions, counted for each source address and for each thing that was asked for.
//!
//! Five of an address are free, then each further one makes the next wait longer. An attempt takes its place
//! before it is judged, so that a hundred guesses at once are not a hundred free ones: as many as are free are
//! judged at a time, the others wait for a verdict. Nothing that succeeds makes up for what failed: whoever has
//! one secret could guess at others for ever.
//!
//! What many addresses guess at together is slowed, too, but nobody is refused for it: that would be a way to keep
//! its owner out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::share::network;

/// Failed admissions of the last minute.
#[derive(Debug, Default)]
pub struct Attempts {
    addresses: Mutex<Table<IpAddr>>,
    /// By host or name, as it was asked for.
    targets: Mutex<Table<String>>,
    judged: Notify,
}

#[derive(Debug)]
struct Table<K> {
    entries: HashMap<K, Entry>,
    swept: Option<Instant>,
}

/// A leaky bucket: each failure adds a share of the window, and it drains as time goes by. So who fails now and
/// then never waits, however long that goes on.
#[derive(Clone, Copy, Debug)]
struct Entry {
    last: Instant,
    empty_at: Instant,
    /// Attempts that are judged now.
    judging: u32,
}

/// One attempt, from before it is judged. A failure, unless it is taken back: who breaks off in the middle of the
/// judgement has guessed as well.
#[must_use = "dropping it counts a failure"]
#[derive(Debug)]
pub struct Attempt {
    attempts: Arc<Attempts>,
    address: IpAddr,
    targets: Vec<String>,
    failed: bool,
}

impl Attempt {
    /// It succeeded, or it couldn't be judged.
    pub fn take_back(mut self) {
        self.failed = false;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(entry) = lock(&self.attempts.addresses).entries.get_mut(&self.address) {
            entry.judging = entry.judging.saturating_sub(1);
        }
        if self.failed {
            self.attempts.failed(self.address, now);
            let mut targets = lock(&self.attempts.targets);
            for target in self.targets.drain(..) {
                targets.fail(target, now, WINDOW / FREE_TARGET, FREE_TARGET + STEPS);
            }
        }
        self.attempts.judged.notify_waiters();
    }
}

impl Attempts {
    /// Nobody has failed yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How long a backend from `address` waits before its handshake goes on. A key can't be guessed, so this
    /// doesn't guard a secret: it keeps a client that retries in a loop from buying signatures and log lines.
    pub fn delay(&self, address: IpAddr, now: Instant) -> Duration {
        let failures = lock(&self.addresses).failures(&network(address), now, WINDOW / FREE);
        longer(failures, FREE)
    }

    /// A backend from `address` wasn't admitted.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        lock(&self.addresses).fail(network(address), now, WINDOW / FREE, FREE + STEPS);
    }

    /// Takes the place of an attempt at `targets`, as soon as there is one. Cancel safe.
    ///
    /// # Errors
    /// How long to wait, where that is more than two seconds.
    pub async fn begin(
        self: &Arc<Self>,
        address: IpAddr,
        targets: Vec<String>,
    ) -> Result<Attempt, Duration> {
        let deadline = Instant::now() + PATIENCE;
        let address = network(address);
        let slow = if lock(&self.addresses).failures(&address, Instant::now(), WINDOW / FREE) == 0 {
            // Nothing is known against it: it doesn't pay for strangers.
            Duration::ZERO
        } else {
            let now = Instant::now();
            let known = lock(&self.targets);
            let failures =
                targets.iter().map(|it| known.failures(it, now, WINDOW / FREE_TARGET)).max();
            longer(failures.unwrap_or(0), FREE_TARGET).min(PATIENCE)
        };
        sleep(slow).await;
        loop {
            let mut judged = std::pin::pin!(self.judged.notified());
            judged.as_mut().enable();
            let next = lock(&self.addresses).begin(address, Instant::now());
            match next {
                Next::Begins => {
                    return Ok(Attempt { attempts: self.clone(), address, targets, failed: true });
                }
                Next::After(wait) if wait > PATIENCE => return Err(wait),
                Next::After(wait) => sleep(wait).await,
                Next::Judged => timeout_at(deadline + slow, judged).await.map_err(|_| PATIENCE)?,
            }
        }
    }
}

/// When an attempt may begin.
enum Next {
    /// Now; it has its place.
    Begins,
    /// In so long at the earliest.
    After(Duration),
    /// When one that is judged is judged.
    Judged,
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long to wait after so many failures, of which `free` cost nothing.
fn longer(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(over) => FIRST_DELAY.saturating_mul(2u32.saturating_pow(over)).min(LONGEST_DELAY),
    }
}

impl Entry {
    fn forgotten(&self, now: Instant) -> bool {
        self.judging == 0 && now.saturating_duration_since(self.last) >= WINDOW
    }

    /// Failures that haven't drained yet, each of which added `share`.
    fn failures(&self, now: Instant, share: Duration) -> u32 {
        if now.saturating_duration_since(self.last) >= WINDOW {
            return 0;
        }
        let level = self.empty_at.saturating_duration_since(now);
        u32::try_from(level.as_millis().div_ceil(share.as_millis().max(1))).unwrap_or(u32::MAX)
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), swept: None }
    }
}

impl Table<IpAddr> {
    fn begin(&mut self, address: IpAddr, now: Instant) -> Next {
        let entry = self.entry(address, now);
        let failures = entry.failures(now, WINDOW / FREE);
        // Of those that nothing is known against, as many as are free; after that, one after the other.
        if entry.judging > 0 && failures + entry.judging >= FREE {
            return Next::Judged;
        }
        let wait = (entry.last + longer(failures, FREE)).saturating_duration_since(now);
        if failures >= FREE && !wait.is_zero() {
            return Next::After(wait);
        }
        entry.judging += 1;
        Next::Begins
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn failures(&self, key: &K, now: Instant, share: Duration) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures(now, share))
    }

    fn fail(&mut self, key: K, now: Instant, share: Duration, most: u32) {
        let entry = self.entry(key, now);
        let from = if entry.failures(now, share) > 0 { entry.empty_at } else { now };
        entry.last = now;
        entry.empty_at = (from + share).min(now + share * most);
    }

    fn entry(&mut self, key: K, now: Instant) -> &mut Entry {
        if self.entries.get(&key).is_none_or(|entry| entry.forgotten(now)) {
            self.make_room(now);
        }
        self.entries.entry(key).or_insert(Entry { last: now, empty_at: now, judging: 0 })
    }

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
            // Not one that is judged now: that would begin anew with all that is free.
            let idle = self.entries.iter().find(|(_, entry)| entry.judging == 0);
            let any = idle.map(|(key, _)| key.clone());
            any.and_then(|key| self.entries.remove(&key));
        }
    }
}

/// Failures of an address in a [`WINDOW`] that cost nothing: a wrong token pasted, a service that restarts. So many
/// drain in a window.
const FREE: u32 = 5;
/// The same of all addresses at one host or name. Guesses from a thousand addresses come to one a second at most
/// from each.
const FREE_TARGET: u32 = 50;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Failures beyond the free ones after which the delay doesn't grow, so that more needn't be remembered.
const STEPS: u32 = 5;
/// How long somebody who failed before waits without being told to.
const PATIENCE: Duration = Duration::from_secs(2);
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
            now += WINDOW / FREE;
            assert_eq!(attempts.delay(address, now), Duration::ZERO);
        }
    }

    async fn guess(attempts: &Arc<Attempts>, from: &str) -> Result<Attempt, Duration> {
        attempts.begin(ip(from), vec!["a.test".to_owned()]).await
    }

    /// E1: what succeeds gives back its own place and nothing else.
    #[tokio::test(start_paused = true)]
    async fn success_forgives_no_failure() {
        let (attempts, begun) = (Attempts::new(), Instant::now());
        let mut judged = 0;
        while begun.elapsed() < WINDOW {
            match guess(&attempts, "192.0.2.1").await {
                Ok(attempt) if judged % 4 == 3 => attempt.take_back(),
                Ok(attempt) => drop(attempt),
                Err(wait) => sleep(wait).await,
            }
            judged += 1;
        }
        assert!(judged < 40, "{judged} in a minute");
    }

    /// E1: an attempt takes its place before it is judged.
    #[tokio::test(start_paused = true)]
    async fn of_guesses_at_once_as_many_are_judged_as_are_free() {
        let attempts = Attempts::new();
        let mut judging = Vec::new();
        for _ in 0..5 {
            judging.push(guess(&attempts, "192.0.2.1").await.expect("it is free"));
        }
        assert_eq!(guess(&attempts, "192.0.2.1").await.err(), Some(PATIENCE), "the sixth");
        drop(guess(&attempts, "192.0.2.2").await.expect("another address"));
        // One that is fine makes room for the next.
        judging.pop().expect("one").take_back();
        judging.push(guess(&attempts, "192.0.2.1").await.expect("a place"));
        judging.clear();
        let begun = Instant::now();
        drop(guess(&attempts, "192.0.2.1").await.expect("after a while"));
        assert!(begun.elapsed() >= FIRST_DELAY, "{:?}", begun.elapsed());
    }

    /// E1: guesses from everywhere at one name are slowed; its owner, who fails at nothing, doesn't wait.
    #[tokio::test(start_paused = true)]
    async fn what_many_addresses_guess_at_is_slowed() {
        let attempts = Attempts::new();
        for n in 0..200_u8 {
            drop(guess(&attempts, &format!("192.0.2.{n}")).await.expect("a place"));
        }
        let begun = Instant::now();
        guess(&attempts, "198.51.100.1").await.expect("its owner").take_back();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(guess(&attempts, "198.51.100.2").await.expect("the first guess"));
        drop(guess(&attempts, "198.51.100.2").await.expect("the second one"));
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(1) && waited <= PATIENCE, "{waited:?}");
        let begun = Instant::now();
        let other = attempts.begin(ip("198.51.100.2"), vec!["b.test".to_owned()]).await;
        other.expect("another name").take_back();
        assert_eq!(begun.elapsed(), Duration::ZERO);
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
            assert!(lock(&attempts.addresses).entries.len() <= MAX_ENTRIES);
        }
        let fresh = now + WINDOW;
        attempts.failed(nth(1), fresh);
        assert_eq!(lock(&attempts.addresses).entries.len(), 1);
    }
}
