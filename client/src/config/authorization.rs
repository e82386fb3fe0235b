//! What a registration over HTTP shows: the value of its Authorization field, and where it comes from.
//!
//! Invariant: nothing here prints a value, nor a command, in which one may stand.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use http::HeaderValue;

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
    /// A byte order mark, blanks and line ends around it are ignored. The error is the end of a sentence that begins
    /// with the source, and quotes nothing of the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.contains(['\r', '\n']) {
            return Err("holds more than one line".to_owned());
        }
        let value = match text.contains([' ', '\t']) {
            true => HeaderValue::from_str(text),
            false => HeaderValue::from_str(&format!("Bearer {text}")),
        };
        let mut value = value.map_err(|_| CHARACTERS)?;
        // Neither HPACK's table nor debug output may keep it.
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub fn read(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let file = File::open(path);
        let read = file.and_then(|it| it.take(LONGEST as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|err| format!("can't be read ({})", err.kind()))?;
        Self::of_bytes(bytes)
    }

    /// The value in what a program printed.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() > LONGEST {
            return Err(format!("holds more than {LONGEST} bytes"));
        }
        Self::parse(&String::from_utf8(bytes).map_err(|_| CHARACTERS)?)
    }

    /// For the request that goes to a gateway that is known, and nowhere else.
    pub fn reveal(&self) -> HeaderValue {
        self.0.clone()
    }
}

const CHARACTERS: &str = "holds characters that no HTTP field can";
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
            ("", "is empty"),
            ("\u{feff}\r\n", "is empty"),
            ("a\nb", "holds more than one line"),
            ("a\rX-Evil: b", "holds more than one line"),
            ("a\0b", CHARACTERS),
            ("Bearer \u{7f}", CHARACTERS),
        ];
        for (text, expected) in wrong {
            assert_eq!(Value::parse(text), Err(expected.to_owned()), "{text:?}");
        }
        let long = Err("holds more than 8192 bytes".to_owned());
        assert_eq!(Value::of_bytes(vec![b'a'; LONGEST + 1]), long);
        assert_eq!(Value::of_bytes(vec![0xff]), Err(CHARACTERS.to_owned()));
        assert_eq!(Value::read(Path::new("/dev/zero")), long);
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
