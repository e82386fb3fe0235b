//! When a certificate is renewed, and when to try again. Pure: randomness and time are passed in.

use std::time::Duration;

use crate::tls::Held;

/// When to renew a certificate, in seconds since 1970: with a third of its life left, or in the time that the directory
/// suggests, from its start to its end (RFC 9773 §4.2). `random` is uniform in 0..1, and the same for this certificate
/// at each look.
pub(super) fn due(held: &Held, suggested: Option<(i64, i64)>, random: f64) -> i64 {
    let life = held.ends.saturating_sub(held.begins);
    // A suggestion that leaves no time for a second attempt isn't followed.
    let latest = held.ends - life / 20;
    match suggested {
        Some((start, end)) => {
            start.saturating_add(part(end.saturating_sub(start), random)).min(latest)
        }
        // Earlier by up to a thirtieth of its life, so that certificates that began together don't renew together.
        None => held.ends - life / 3 - part(life / 30, random),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "seconds")]
fn part(seconds: i64, random: f64) -> i64 {
    (seconds.max(0) as f64 * random) as i64
}

/// The part that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// The directory's as a whole: it isn't there, or can't answer.
    Directory,
    /// The directory refused this order, or couldn't validate the name.
    Order,
}

/// The pause after so many failures in a row, one at least. It is never shorter than what the directory asked for.
pub(super) fn pause(fault: Fault, failures: u32, after: Option<Duration>, random: f64) -> Duration {
    let (first, longest) = match fault {
        // Nothing was asked of it, so a gateway that starts before its network loses seconds.
        Fault::Directory => (Duration::from_secs(5), Duration::from_secs(3600)),
        // Directories allow some five failed validations of a name an hour.
        Fault::Order => (Duration::from_secs(180), Duration::from_secs(6 * 3600)),
    };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let wished = after.unwrap_or_default().min(LONGEST_WISH);
    doubled.max(wished).mul_f64(1.0 + random / 4.0)
}

/// A wish for more is a mistake of the directory's: certificates would expire meanwhile.
const LONGEST_WISH: Duration = Duration::from_secs(7 * 86_400);
