//! One line of named values: `name=value` beside each other, or a JSON object.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use crate::settings::{Parser, word};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// For people; where a line has named values, as logfmt has them.
    #[default]
    Text,
    /// One object a line (RFC 8259).
    Json,
}

pub const FORMAT: Parser<Format> =
    Parser("text or json", |text| word(text, &[("text", Format::Text), ("json", Format::Json)]));

/// Appends one line of named values.
#[derive(Debug)]
pub struct Line<'a> {
    out: &'a mut String,
    format: Format,
    begun: bool,
}

impl<'a> Line<'a> {
    /// Begins with the time.
    pub fn new(out: &'a mut String, format: Format) -> Self {
        let mut line = Self { out, format, begun: false };
        line.name("time");
        let quote = if format == Format::Json { "\"" } else { "" };
        line.out.push_str(quote);
        clock(line.out);
        line.out.push_str(quote);
        line
    }

    fn name(&mut self, name: &str) {
        match (self.format, std::mem::replace(&mut self.begun, true)) {
            (Format::Text, false) => self.out.extend([name, "="]),
            (Format::Text, true) => self.out.extend([" ", name, "="]),
            (Format::Json, false) => self.out.extend(["{\"", name, "\":"]),
            (Format::Json, true) => self.out.extend([",\"", name, "\":"]),
        }
    }

    /// A word of our own, which needs no escapes.
    pub fn word(&mut self, name: &str, value: &str) {
        self.name(name);
        match self.format {
            Format::Text => self.out.push_str(value),
            Format::Json => self.out.extend(["\"", value, "\""]),
        }
    }

    /// Text that a peer or an operator chose: its first `most` characters.
    pub fn text(&mut self, name: &str, value: &str, most: usize) {
        self.name(name);
        quoted(self.out, first(value, most));
    }

    pub fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        number(self.out, value);
    }

    /// In milliseconds.
    pub fn time(&mut self, name: &str, time: Duration) {
        self.name(name);
        millis(self.out, time);
    }

    pub fn end(self) {
        if self.format == Format::Json {
            self.out.push('}');
        }
    }
}

/// Appends a string of JSON (RFC 8259 §7), which logfmt quotes alike. What a terminal or a reader of lines might obey is
/// escaped, too.
fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            // All of them have four digits at most.
            _ if c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) => {
                let hex = u32::from(c);
                let digits = [12, 8, 4, 0].map(|shift| char::from_digit(hex >> shift & 15, 16));
                out.push_str("\\u");
                out.extend(digits.into_iter().flatten());
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Appends date and time, UTC (RFC 3339).
pub(super) fn clock(text: &mut String) {
    date_time(text, SystemTime::now());
}

/// Appends that instant, UTC (RFC 3339).
pub fn date_time(text: &mut String, now: SystemTime) {
    let now = OffsetDateTime::from(now);
    let (hour, minute, second, millis) = now.to_hms_milli();
    let date = (now.year().unsigned_abs(), u8::from(now.month()).into(), now.day().into());
    for (value, digits, behind) in [
        (date.0, 4, '-'),
        (date.1, 2, '-'),
        (date.2, 2, 'T'),
        (hour.into(), 2, ':'),
        (minute.into(), 2, ':'),
        (second.into(), 2, '.'),
        (millis.into(), 3, 'Z'),
    ] {
        let digits = (0..digits).rev().map(|power| (value / 10_u32.pow(power) % 10) as u8);
        text.extend(digits.map(|digit| char::from(b'0' + digit)));
        text.push(behind);
    }
}

pub fn number(text: &mut String, number: u64) {
    if number >= 10 {
        self::number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// Appends milliseconds and a tenth, rounded.
pub fn millis(text: &mut String, duration: Duration) {
    let tenths = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).saturating_add(50) / 100;
    number(text, tenths / 10);
    text.push('.');
    number(text, tenths % 10);
}

/// The beginning of `text`: so many characters at most.
pub fn first(text: &str, most: usize) -> &str {
    let end = text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_reads_utc() {
        for (millis, expected) in [
            (86_400_000 + 3_723_004, "1970-01-02T01:02:03.004Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_743_000_120, "2026-11-27T01:30:00.120Z"),
        ] {
            let mut text = String::new();
            date_time(&mut text, SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for n in [0, 7, 10, 1_002, u64::MAX] {
            let mut text = String::new();
            number(&mut text, n);
            assert_eq!(text, n.to_string());
        }
    }

    #[test]
    fn milliseconds_are_rounded_to_a_tenth() {
        let table = [(0, "0.0"), (49, "0.0"), (50, "0.1"), (1_949, "1.9"), (1_000_950, "1001.0")];
        for (micros, expected) in table {
            let mut text = String::new();
            millis(&mut text, Duration::from_micros(micros));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for (text, most, expected) in
            [("abc", 3, "abc"), ("abcd", 3, "abc"), ("\u{e9}\u{e9}", 1, "\u{e9}")]
        {
            assert_eq!(first(text, most), expected);
        }
    }

    #[test]
    fn named_values_can_be_told_apart_whatever_they_hold() {
        let hostile = "a\n\"b\" c=d \\ \u{1b}[2J\u{202e}";
        for (format, expected) in [
            (Format::Text, r#"n=7 w=x t="a\n\"b\" c=d \\ \u001b[2J\u202e" ms=1.5 cut="ab""#),
            (
                Format::Json,
                r#""n":7,"w":"x","t":"a\n\"b\" c=d \\ \u001b[2J\u202e","ms":1.5,"cut":"ab"}"#,
            ),
        ] {
            let mut text = String::new();
            let mut line = Line::new(&mut text, format);
            line.number("n", 7);
            line.word("w", "x");
            line.text("t", hostile, 100);
            line.time("ms", Duration::from_micros(1_500));
            line.text("cut", "abc", 2);
            line.end();
            let (time, rest) = text.split_at(text.find("Z").unwrap());
            assert!(rest.ends_with(expected), "{text}");
            assert!(time.starts_with("time=2") || time.starts_with("{\"time\":\"2"), "{text}");
        }
    }
}
