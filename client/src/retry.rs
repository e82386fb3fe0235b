//! When to dial again. Pure: randomness and time are passed in.

use std::time::Duration;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// No address, or no connection. An attempt costs the gateway nothing, so the client is back within two seconds.
    Unreachable,
    /// The gateway answered, and no tunnel came up; too many of these would be a burden.
    Failed,
    /// The gateway asked for that long a pause.
    Later(Duration),
    /// The tunnel worked for that long.
    Lost(Duration),
    /// Another backend has the place, and this one waits for it.
    Taken,
    /// It worked, and another one replaced it, perhaps of this very process: time to find out.
    Displaced,
}

impl Loss {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Later(_) => "busy",
            Self::Lost(_) => "lost",
            Self::Taken => "taken",
            Self::Displaced => "displaced",
        }
    }
}

/// Doubling pauses with full jitter, for ever.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    /// Counted apart: an outage of an hour says nothing against the gateway that comes back.
    unreachable: u32,
}

impl Backoff {
    /// The pause after `loss`. `random` is uniform in 0..1.
    pub(crate) fn pause(&mut self, loss: Loss, random: f64) -> Duration {
        if loss == Loss::Displaced {
            return DISPLACED;
        }
        if loss == Loss::Taken {
            return STANDBY.mul_f64(1.0 + random);
        }
        if matches!(loss, Loss::Lost(lived) if lived >= HEALTHY) {
            self.failures = 0;
        }
        let (count, longest) = match loss {
            Loss::Unreachable => (&mut self.unreachable, LONGEST_UNREACHABLE),
            _ => (&mut self.failures, LONGEST),
        };
        let bound = FIRST.saturating_mul(1 << (*count).min(16)).min(longest);
        *count = count.saturating_add(1);
        if loss != Loss::Unreachable {
            self.unreachable = 0;
        }
        let pause = bound.mul_f64(random);
        // Clients that were sent away together shouldn't come back together.
        if let Loss::Later(after) = loss { after.saturating_add(pause) } else { pause }
    }
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// With the time of a TLS handshake, less than two seconds.
const LONGEST_UNREACHABLE: Duration = Duration::from_millis(1500);
/// A tunnel that lived this long wasn't a refusal.
const HEALTHY: Duration = Duration::from_secs(60);
/// Visitors find no backend for as long, and a gateway can bear as many attempts.
const STANDBY: Duration = Duration::from_secs(1);
/// Longer than a gateway gives the streams of a tunnel that was replaced, before it closes it.
const DISPLACED: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(losses: &[Loss]) -> Vec<u128> {
        let mut backoff = Backoff::default();
        losses.iter().map(|loss| backoff.pause(*loss, 1.0).as_millis()).collect()
    }

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

    /// A gateway that comes back after an hour, and is restarted once more, is dialled at once.
    #[test]
    fn an_outage_does_not_count_against_the_gateway_that_comes_back() {
        let mut losses = vec![Loss::Unreachable; 3000];
        losses.extend([Loss::Failed, Loss::Unreachable, Loss::Lost(Duration::from_secs(5))]);
        assert_eq!(bounds(&losses)[2999..], [1500, 250, 250, 500]);
    }

    #[test]
    fn only_a_healthy_tunnel_resets_them() {
        let short = Loss::Lost(Duration::from_secs(1));
        let long = Loss::Lost(HEALTHY);
        assert_eq!(bounds(&[short, short, short, long, short]), [250, 500, 1000, 250, 500]);
    }

    #[test]
    fn who_is_asked_to_wait_waits_for_that_long_and_then_some() {
        let later = Loss::Later(Duration::from_secs(20));
        assert_eq!(bounds(&[later, later, Loss::Failed]), [20_250, 20_500, 1000]);
        assert_eq!(Backoff::default().pause(later, 0.0), Duration::from_secs(20));
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(Backoff::default().pause(Loss::Failed, 0.0), Duration::ZERO);
    }
}
