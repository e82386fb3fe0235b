//! Numbers with units, as settings write them.

use std::time::Duration;

/// A number of seconds, fractions allowed, or a number with its unit; a year at most.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
    let (number, unit) = text.split_at_checked(end.unwrap_or(text.len()))?;
    let unit = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number.trim_end().parse::<f64>().ok()? * unit;
    (seconds <= LONGEST).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// A year in seconds: longer is a mistake in the unit, and the clock's arithmetic has ends.
const LONGEST: f64 = 31_536_000.0;
