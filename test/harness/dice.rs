//! Random numbers of a seed, so that what chance found can be seen again.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Those of `SEED`, if it is set, else of `otherwise`; a panic tells which.
    pub fn told(otherwise: u64) -> (Self, Told) {
        let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(otherwise);
        (Self(seed), Told(seed))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// One of these, each as likely as the others.
    ///
    /// # Panics
    /// There are none.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Less than so many milliseconds.
    pub fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    /// Dice of their own for somebody else.
    pub fn split(&mut self) -> Self {
        Self(self.any())
    }
}

/// A test's seed, which is printed if the test panics.
#[derive(Debug)]
#[must_use = "it tells when it is dropped"]
pub struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "beside the panic's own message")]
            {
                eprintln!("SEED={} shows it again", self.0);
            }
        }
    }
}
