//! What a registration over HTTP shows: the value of its Authorization field, and where it comes from.
//!
//! Invariant: nothing here prints a value, nor a command, in which one may stand.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use http::HeaderValue;

/// Where the Authorization value comes from.
#[derive(Clone, Eq, PartialEq)]
pub enum Authorization {
    /// The value itself, for the life of the process.
    Fixed(Value),
    /// In a file, read anew on every dial.
    File(PathBuf),
    /// A command of the shell prints it, on every dial.
    Command(String),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Fixed(_) | Self::Command(_) => f.write_str("redacted"),
        }
    }
}

/// The value of an Authorization field (RFC 9110 §11.6.2), which is marked as sensitive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Value(HeaderValue);

impl Value {
    /// Reads `Bearer …`, `Basic …` or another scheme's credentials; a single word is a bearer token.
    /// A byte order mark, blanks and line ends around it are ignored.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(ValueError::Empty);
        }
        if text.contains(['\r', '\n']) {
            return Err(ValueError::Lines);
        }
        let value = match text.contains([' ', '\t']) {
            true => HeaderValue::from_str(text),
            false => HeaderValue::from_str(&format!("Bearer {text}")),
        };
        let mut value = value.map_err(|_| ValueError::Characters)?;
        // Neither HPACK's table nor debug output may keep it.
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The value in a file. Blocks.
    pub fn read(path: &Path) -> Result<Self, ValueError> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|err| ValueError::Unreadable(err.kind()))?;
        let read = file.take(LONGEST as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|err| ValueError::Unreadable(err.kind()))?;
        Self::of_bytes(bytes)
    }

    /// The value in what a program printed.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, ValueError> {
        if bytes.len() > LONGEST {
            return Err(ValueError::Long);
        }
        Self::parse(&String::from_utf8(bytes).map_err(|_| ValueError::Characters)?)
    }

    /// For the request that goes to a gateway that is known, and nowhere else.
    pub fn reveal(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Why there is no value, as the end of a sentence that begins with its source. Quotes nothing of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// Nothing but blanks.
    #[error("is empty")]
    Empty,
    /// More than one line.
    #[error("holds more than one line")]
    Lines,
    /// More than a head may be long.
    #[error("holds more than {LONGEST} bytes")]
    Long,
    /// Something that can't stand in a field's value.
    #[error("holds characters that no HTTP field can")]
    Characters,
    /// The file can't be read.
    #[error("can't be read ({0})")]
    Unreadable(io::ErrorKind),
}

/// A quarter of the head that a gateway reads; a JWT with many claims has a tenth.
const LONGEST: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_files_and_variables_have_them() {
        let table = [
            ("Bearer abc", "Bearer abc"),
            ("\u{feff}Basic dTpw\r\n", "Basic dTpw"),
            ("secret\n", "Bearer secret"),
            (" eyJh.eyJz.c2ln ", "Bearer eyJh.eyJz.c2ln"),
            ("Digest a=b, c=d", "Digest a=b, c=d"),
        ];
        for (text, expected) in table {
            assert_eq!(Value::parse(text).unwrap().reveal(), expected, "{text:?}");
        }
        let wrong = [
            ("", ValueError::Empty),
            ("\u{feff}\r\n", ValueError::Empty),
            ("a\nb", ValueError::Lines),
            ("a\rX-Evil: b", ValueError::Lines),
            ("a\0b", ValueError::Characters),
            ("Bearer \u{7f}", ValueError::Characters),
        ];
        for (text, expected) in wrong {
            assert_eq!(Value::parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(Value::of_bytes(vec![b'a'; LONGEST + 1]), Err(ValueError::Long));
        assert_eq!(Value::of_bytes(vec![0xff]), Err(ValueError::Characters));
        assert_eq!(Value::read(Path::new("/dev/zero")), Err(ValueError::Long));
    }

    #[test]
    fn no_value_shows_in_debug_output() {
        let value = Value::parse("c2VjcmV0").unwrap();
        let shown = format!("{value:?} {:?}", value.reveal());
        let sources = [
            Authorization::Fixed(value),
            Authorization::Command("echo c2VjcmV0".into()),
            Authorization::File("/x".into()),
        ];
        let shown = format!("{shown} {sources:?}");
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }
}
