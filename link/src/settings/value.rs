//! Values that are written as a text or as a number: by a flag, by a variable, and in the file.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A value that is written as a text or as a number.
pub trait Scalar: Sized {
    /// The end of a sentence that begins with "must be" or "takes".
    const WANTED: &'static str;

    /// # Errors
    /// The end of a sentence that begins with the quoted text; `None`: it isn't [`Self::WANTED`].
    fn read(text: &str) -> Result<Self, Option<String>>;

    /// # Errors
    /// A sentence that begins with the quoted text.
    fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|why| {
            let why = why.unwrap_or_else(|| format!("must be {}", Self::WANTED));
            format!("{text:?} {why}")
        })
    }
}

impl Scalar for String {
    const WANTED: &'static str = "a text";

    fn read(text: &str) -> Result<Self, Option<String>> {
        Ok(text.to_owned())
    }
}

impl Scalar for PathBuf {
    const WANTED: &'static str = "a path";

    fn read(text: &str) -> Result<Self, Option<String>> {
        (!text.is_empty()).then(|| text.into()).ok_or(None)
    }
}

impl Scalar for LevelFilter {
    const WANTED: &'static str = "a level: off, error, warn, info, debug or trace";

    fn read(text: &str) -> Result<Self, Option<String>> {
        text.parse().map_err(|_| None)
    }
}

/// A number of seconds, fractions allowed, or a number with its unit; up to a year.
impl Scalar for Duration {
    const WANTED: &'static str = "a time like \"10s\", or a number of seconds, up to a year";

    fn read(text: &str) -> Result<Self, Option<String>> {
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
        Self::try_from_secs_f64(seconds).ok().filter(|time| *time <= YEAR).ok_or(None)
    }
}

/// A longer time is a mistake in the unit, and the clock's arithmetic has limits.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A time that isn't zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeout(pub Duration);

impl Scalar for Timeout {
    const WANTED: &'static str =
        "a time like \"10s\", or a number of seconds, more than 0 and up to a year";

    fn read(text: &str) -> Result<Self, Option<String>> {
        Duration::read(text).and_then(|it| if it.is_zero() { Err(None) } else { Ok(Self(it)) })
    }
}

/// No setting counts from 0.
impl Scalar for usize {
    const WANTED: &'static str = "a number from 1";

    fn read(text: &str) -> Result<Self, Option<String>> {
        text.parse().ok().filter(|number| *number > 0).ok_or(None)
    }
}

/// A prefix of paths, without a slash at its end: `/`, or like `/a/b`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prefix(pub String);

impl Scalar for Prefix {
    const WANTED: &'static str = "a path like \"/blog\"";

    fn read(text: &str) -> Result<Self, Option<String>> {
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
            return Ok(Self(if path.is_empty() { "/".to_owned() } else { path.to_owned() }));
        };
        Err(Some(why.to_owned()))
    }
}

/// In bytes; no route has a longer one.
const LONGEST_PATH: usize = 1024;

/// What stands beside the word in the table.
pub fn word<T: Clone>(text: &str, words: &[(&str, T)]) -> Result<T, Option<String>> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| value.clone()).ok_or(None)
}

/// A scalar where serde reads a table.
#[derive(Clone, Debug)]
pub struct As<T>(pub T);

impl<'de, T: Scalar> Deserialize<'de> for As<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            // Serde's own message would not say what is wanted.
            _ => {
                let why = format!("this has the wrong type, expected {}", T::WANTED);
                return Err(Error::custom(why));
            }
        };
        T::parse(&text).map(Self).map_err(Error::custom)
    }
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
            assert_eq!(Duration::read(text).ok(), millis.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(Timeout::read("0"), Err(None));
    }

    #[test]
    fn numbers_begin_at_one() {
        assert_eq!(<usize as Scalar>::read("7"), Ok(7));
        for text in ["0", "-1", "1.5", "x", ""] {
            assert_eq!(<usize as Scalar>::read(text), Err(None), "{text}");
        }
    }
}
