//! Failed admissions, counted for each source address and for each thing that was asked for.
//!
//! Five of an address are free, then each further one makes the next wait longer. An attempt counts before it is
//! judged, so that a hundred guesses at once are not a hundred free ones: as many as are free are
//! judged at a time, the others wait for a verdict. A success doesn't make up for failures: a backend that has
//! one secret could guess at others for ever.
//!
//! What many addresses guess at together is slowed, too, but never refused for it: that would be a way to keep
//! its owner out.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::network;

use ptth_link::lock::Mutex;

#[derive(Debug)]
pub struct Attempts {
    addresses: Mutex<Table<IpAddr>>,
    /// By host or name, as it was asked for.
    targets: Mutex<Table<String>>,
    judged: Notify,
}

/// A leaky bucket for each key.
#[derive(Debug)]
struct Table<K> {
    /// Failures that cost nothing. So many drain in a [`WINDOW`].
    free: u32,
    buckets: HashMap<K, Bucket>,
    swept: Option<Instant>,
}

/// Each failure adds a share of the window, and it drains as time goes by. So occasional failures never wait,
/// however long they go on.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    last: Instant,
    empty_at: Instant,
    judging: u32,
}

/// One attempt, from before it is judged. A failure, unless it is taken back: one that breaks off while it is judged was
/// a guess as well.
#[must_use = "dropping it counts a failure"]
#[derive(Debug)]
pub struct Attempt {
    attempts: Arc<Attempts>,
    address: IpAddr,
    targets: BTreeSet<String>,
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
        if let Some(bucket) = self.attempts.addresses.lock().buckets.get_mut(&self.address) {
            bucket.judging = bucket.judging.saturating_sub(1);
        }
        if self.failed {
            self.attempts.failed(self.address, now);
            let mut targets = self.attempts.targets.lock();
            std::mem::take(&mut self.targets).into_iter().for_each(|it| targets.fail(it, now));
        }
        self.attempts.judged.notify_waiters();
    }
}

impl Attempts {
    pub fn new() -> Arc<Self> {
        let (addresses, targets) = (Table::new(FREE), Table::new(FREE_TARGET));
        Arc::new(Self { addresses, targets, judged: Notify::new() })
    }

    /// How long a backend from `address` waits before its handshake goes on. A key can't be guessed, so this
    /// doesn't guard a secret: it keeps a client that retries in a loop from buying signatures and log lines.
    pub fn delay(&self, address: IpAddr, now: Instant) -> Duration {
        self.addresses.lock().delay(&network(address), now)
    }

    pub fn failed(&self, address: IpAddr, now: Instant) {
        self.addresses.lock().fail(network(address), now);
    }

    /// Begins an attempt at `targets`, as soon as the address may. Cancel safe.
    ///
    /// # Errors
    /// How long to wait, where that is more than two seconds.
    pub async fn begin(
        self: &Arc<Self>,
        address: IpAddr,
        targets: BTreeSet<String>,
    ) -> Result<Attempt, Duration> {
        let (now, address) = (Instant::now(), network(address));
        // An address without a failure doesn't pay for strangers.
        let slow = if self.addresses.lock().failures(&address, now) == 0 {
            Duration::ZERO
        } else {
            let known = self.targets.lock();
            let delays = targets.iter().map(|target| known.delay(target, now));
            delays.max().unwrap_or_default().min(PATIENCE)
        };
        let deadline = now + PATIENCE + slow;
        sleep(slow).await;
        loop {
            let mut judged = std::pin::pin!(self.judged.notified());
            judged.as_mut().enable();
            let begun = self.addresses.lock().begin(address, Instant::now());
            match begun {
                Ok(()) => {
                    return Ok(Attempt { attempts: self.clone(), address, targets, failed: true });
                }
                Err(Some(wait)) if wait > PATIENCE => return Err(wait),
                Err(Some(wait)) => sleep(wait).await,
                Err(None) => timeout_at(deadline, judged).await.map_err(|_| PATIENCE)?,
            }
        }
    }
}

impl Bucket {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < WINDOW
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn new(free: u32) -> Mutex<Self> {
        Mutex::new(Self { free, buckets: HashMap::new(), swept: None })
    }

    fn share(&self) -> Duration {
        WINDOW / self.free
    }

    fn level(&self, key: &K, now: Instant) -> Duration {
        let bucket = self.buckets.get(key).filter(|bucket| bucket.is_recent(now));
        bucket.map_or(Duration::ZERO, |it| it.empty_at.saturating_duration_since(now))
    }

    fn failures(&self, key: &K, now: Instant) -> u32 {
        let failures = self.level(key, now).as_millis().div_ceil(self.share().as_millis());
        u32::try_from(failures).unwrap_or(u32::MAX)
    }

    fn delay(&self, key: &K, now: Instant) -> Duration {
        match self.failures(key, now).checked_sub(self.free) {
            None => Duration::ZERO,
            Some(over) => FIRST_DELAY.saturating_mul(2u32.saturating_pow(over)).min(LONGEST_DELAY),
        }
    }

    fn fail(&mut self, key: K, now: Instant) {
        let full = self.share() * (self.free + STEPS);
        let level = (self.level(&key, now) + self.share()).min(full);
        let bucket = self.bucket(key, now);
        (bucket.last, bucket.empty_at) = (now, now + level);
    }
    /// # Errors
    /// How long to wait at least; `None`: until another attempt is judged.
    fn begin(&mut self, key: K, now: Instant) -> Result<(), Option<Duration>> {
        let (free, failures, delay) = (self.free, self.failures(&key, now), self.delay(&key, now));
        let bucket = self.bucket(key, now);
        // Of an address without failures, as many as are free; after that, one after the other.
        if bucket.judging > 0 && failures + bucket.judging >= free {
            return Err(None);
        }
        let wait = (bucket.last + delay).saturating_duration_since(now);
        if failures >= free && !wait.is_zero() {
            return Err(Some(wait));
        }
        bucket.judging += 1;
        Ok(())
    }

    /// The bucket of a key. The table stays under its bound. A sweep looks at every bucket, so a flood from many
    /// addresses gets one a second at most; in between, any bucket goes.
    fn bucket(&mut self, key: K, now: Instant) -> &mut Bucket {
        let kept = |bucket: &Bucket| bucket.judging > 0 || bucket.is_recent(now);
        if self.buckets.len() >= MOST && !self.buckets.get(&key).is_some_and(kept) {
            if self.swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP) {
                self.swept = Some(now);
                self.buckets.retain(|_, bucket| kept(bucket));
            }
            if self.buckets.len() >= MOST {
                // Not one that is judged now: that would begin anew with all that is free.
                let idle = self.buckets.iter().find(|(_, bucket)| bucket.judging == 0);
                let any = idle.map(|(key, _)| key.clone());
                any.and_then(|key| self.buckets.remove(&key));
            }
        }
        self.buckets.entry(key).or_insert(Bucket { last: now, empty_at: now, judging: 0 })
    }
}

/// Failures of an address in a [`WINDOW`] that cost nothing: a wrong token pasted, a service that restarts.
const FREE: u32 = 5;
/// The same of all addresses at one host or name. Guesses from a thousand addresses come to one a second at most
/// from each.
const FREE_TARGET: u32 = 50;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Failures beyond the free ones after which the delay doesn't grow, so that more needn't be remembered.
const STEPS: u32 = 5;
/// How long an address that failed before waits without being told to.
const PATIENCE: Duration = Duration::from_secs(2);
/// Buckets of a table: about a megabyte.
const MOST: usize = 10_000;
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
        attempts.begin(ip(from), BTreeSet::from(["a.test".to_owned()])).await
    }

    /// What succeeds gives back its own place and nothing else.
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

    /// An attempt takes its place before it is judged.
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

    /// Guesses from everywhere at one name are slowed; its owner, who fails at nothing, doesn't wait.
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
        let other = attempts.begin(ip("198.51.100.2"), BTreeSet::from(["b.test".to_owned()])).await;
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
        for n in 0..MOST + 500 {
            attempts.failed(nth(n), now);
            assert!(attempts.addresses.lock().buckets.len() <= MOST);
        }
        let fresh = now + WINDOW;
        attempts.failed(nth(1), fresh);
        assert_eq!(attempts.addresses.lock().buckets.len(), 1);
    }
}
