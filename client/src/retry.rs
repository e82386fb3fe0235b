//! When to dial again. Pure: randomness and time are passed in.

use std::time::Duration;

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Nobody was there: no address, no connection. An attempt costs the gateway nothing, so it is
    /// repeated often enough to be back within two seconds of it.
    Unreachable,
    /// Somebody was there and it came to nothing; too many of these would be a burden.
    Failed,
    /// The tunnel worked for that long.
    Lost(Duration),
}

/// Doubling pauses with full jitter, for ever.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after `loss`. `random` is uniform in 0..1.
    pub fn pause(&mut self, loss: Loss, random: f64) -> Duration {
        if matches!(loss, Loss::Lost(lived) if lived >= HEALTHY) {
            self.failures = 0;
        }
        let longest = if loss == Loss::Unreachable { LONGEST_UNREACHABLE } else { LONGEST };
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random)
    }
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// With the time of a TLS handshake, under the two seconds that a user waits without wondering.
const LONGEST_UNREACHABLE: Duration = Duration::from_millis(1500);
/// A tunnel that lived this long wasn't the gateway's way of saying no.
const HEALTHY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(losses: &[Loss]) -> Vec<u128> {
        let mut backoff = Backoff::default();
        losses.iter().map(|loss| backoff.pause(*loss, 1.0).as_millis()).collect()
    }

    /// B4
    #[test]
    fn pauses_double_to_their_bound_and_never_end() {
        let failed = bounds(&[Loss::Failed; 100]);
        assert_eq!(failed[..9], [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(failed[99], 30000);
        assert_eq!(
            bounds(&[Loss::Unreachable; 100])[99],
            1500,
            "back within two seconds, for ever"
        );
    }

    #[test]
    fn only_a_healthy_tunnel_resets_them() {
        let short = Loss::Lost(Duration::from_secs(1));
        let long = Loss::Lost(HEALTHY);
        assert_eq!(bounds(&[short, short, short, long, short]), [250, 500, 1000, 250, 500]);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(Backoff::default().pause(Loss::Failed, 0.0), Duration::ZERO);
    }
}
