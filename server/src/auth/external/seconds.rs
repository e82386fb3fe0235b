//! How long an authorizer may take: `"5s"`, `"500ms"`, `"1m"`, or a number of seconds.

use std::time::Duration;

use ptth_link::units::duration;
use serde::{Deserialize, Deserializer, de};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seconds(pub(super) Duration);

impl Default for Seconds {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Number(seconds) => seconds.to_string(),
            Written::Text(text) => text,
        };
        // No exponent and no sign: a time here is a few seconds.
        let found = duration(&text).filter(|_| !text.contains(['e', 'E', '+']));
        let found = found.filter(|time| !time.is_zero() && *time <= LONGEST);
        found.map(Self).ok_or_else(|| {
            de::Error::custom("must be a time of more than 0 and up to 60 seconds, like \"5s\"")
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

/// Backends wait that long for their answer, and hold a connection meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn times_are_written_in_several_ways() {
        let read = |value: Value| serde_json::from_value::<Seconds>(value).map(|read| read.0);
        let millis = |n| Duration::from_millis(n);
        for (value, expected) in [
            (json!("5s"), millis(5000)),
            (json!(" 0.5 s "), millis(500)),
            (json!("250ms"), millis(250)),
            (json!("1m"), millis(60_000)),
            (json!("7"), millis(7000)),
            (json!(7), millis(7000)),
            (json!(1.5), millis(1500)),
        ] {
            assert_eq!(read(value.clone()).unwrap(), expected, "{value}");
        }
        for bad in [
            json!("0s"),
            json!(0),
            json!(-1),
            json!("61s"),
            json!("2m"),
            json!("1h"),
            json!("s"),
            json!(""),
            json!("é"),
            json!("1e1s"),
            json!("+5s"),
            json!(1e300),
            json!("1.2.3s"),
        ] {
            let error = read(bad.clone()).unwrap_err().to_string();
            assert!(error.contains("up to 60 seconds"), "{bad}: {error}");
        }
        assert_eq!(Seconds::default().0, millis(5000));
    }
}
