//! Values that are written as a text or as a number: by a flag, by a variable, and in the file.

use std::time::Duration;

use log::LevelFilter;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// How a value is read that is written as a text or as a number. First the end of a sentence that begins with "must be"
/// or "takes". The error of the function is the end of one that begins with the quoted text, or nothing.
#[derive(Debug)]
pub struct Parser<T>(pub &'static str, pub fn(&str) -> Result<T, Option<String>>);

impl<T> Parser<T> {
    /// # Errors
    /// A sentence that begins with the quoted text.
    pub fn parse(&self, text: &str) -> Result<T, String> {
        (self.1)(text).map_err(|why| {
            let why = why.unwrap_or_else(|| format!("must be {}", self.0));
            format!("{text:?} {why}")
        })
    }

    /// Where serde reads a table.
    pub fn deserialize<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<T, D::Error> {
        let text = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            // Serde's own message would not say what is wanted.
            _ => {
                let why = format!("this has the wrong type, expected {}", self.0);
                return Err(Error::custom(why));
            }
        };
        self.parse(&text).map_err(Error::custom)
    }
}

pub const TEXT: Parser<String> = Parser("a text", |text| Ok(text.to_owned()));

pub(super) const PATH: Parser<String> =
    Parser("a path", |text| (!text.is_empty()).then(|| text.to_owned()).ok_or(None));

pub const LEVEL: Parser<LevelFilter> =
    Parser("a level: off, error, warn, info, debug or trace", |text| {
        text.parse().map_err(|_| None)
    });

/// No setting counts from 0.
pub const NUMBER: Parser<usize> =
    Parser("a number from 1", |text| text.parse().ok().filter(|number| *number > 0).ok_or(None));

/// A number of bytes, or a number with its unit.
pub const SIZE: Parser<u64> = Parser("a size like \"10MiB\"", |text| bytes(text).ok_or(None));

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" | "k" | "K" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "m" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" | "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A number of seconds, fractions allowed, or a number with its unit; up to a year.
pub const TIME: Parser<Duration> =
    Parser("a time like \"10s\", or a number of seconds, up to a year", |text| {
        let end = text.find(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
        let (number, unit) = text.split_at_checked(end.unwrap_or(text.len())).ok_or(None)?;
        let unit = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(None),
        };
        let seconds = number.trim_end().parse::<f64>().map_err(|_| None)? * unit;
        Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= YEAR).ok_or(None)
    });

/// A longer time is a mistake in the unit, and the clock's arithmetic has limits.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A time that isn't zero.
pub const TIMEOUT: Parser<Duration> =
    Parser("a time like \"10s\", or a number of seconds, more than 0 and up to a year", |text| {
        TIME.parse(text).ok().filter(|time| !time.is_zero()).ok_or(None)
    });

/// A prefix of paths, without a slash at its end: `/`, or like `/a/b`.
pub const PREFIX: Parser<String> = Parser("a path like \"/blog\"", |text| {
    let path = text.trim_end_matches('/');
    let mut segments = path.split('/').skip(1);
    let why = if !text.starts_with('/') {
        "must begin with a slash"
    } else if text.contains(['?', '#']) {
        "has a query, which routing doesn't look at; write the path alone"
    } else if text.contains('*') {
        "needs no `*`: it stands for everything below it anyway"
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "must be as requests have it: other characters as `%HH`, byte by byte"
    } else if text.starts_with("//") || segments.clone().any(str::is_empty) {
        "has an empty segment; write single slashes"
    } else if segments.any(|segment| matches!(segment, "." | "..")) {
        "has a segment `.` or `..`, which browsers resolve before they ask"
    } else if path.len() > LONGEST_PATH {
        "is longer than 1024 bytes"
    } else {
        return Ok(if path.is_empty() { "/".to_owned() } else { path.to_owned() });
    };
    Err(Some(why.to_owned()))
});

/// In bytes; no route has a longer one.
const LONGEST_PATH: usize = 1024;

/// What stands beside the word in the table.
pub fn word<T: Clone>(text: &str, words: &[(&str, T)]) -> Result<T, Option<String>> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| value.clone()).ok_or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_an_end() {
        for (text, millis) in [
            ("0", Some(0)),
            ("1.5", Some(1_500)),
            ("1e1", Some(10_000)),
            ("10s", Some(10_000)),
            ("10 s", Some(10_000)),
            ("250ms", Some(250)),
            ("2m", Some(120_000)),
            ("1.5h", Some(5_400_000)),
            ("365d", Some(31_536_000_000)),
            ("366d", None),
            ("-1", None),
            ("-1s", None),
            ("", None),
            ("s", None),
            ("10x", None),
            ("10S", None),
            ("NaN", None),
            ("inf", None),
            ("1e99", None),
            ("10€", None),
        ] {
            assert_eq!(TIME.parse(text).ok(), millis.map(Duration::from_millis), "{text:?}");
        }
        assert!(TIMEOUT.parse("0").is_err());
    }

    #[test]
    fn numbers_begin_at_one() {
        assert_eq!(NUMBER.parse("7"), Ok(7));
        for text in ["0", "-1", "1.5", "x", ""] {
            assert!(NUMBER.parse(text).is_err(), "{text}");
        }
    }
}
