//! Environment variables and flags, read the same way by both programs.
//!
//! The environment is a closure, so that tests need not change the process's own. A variable that is
//! set but empty counts as unset, as in `docker run -e LOG=`; for a secret it is an error, since
//! going on without would mean another secret, or none.

use std::ffi::OsString;
use std::fmt;

/// Where variables are looked up: [`std::env::var_os`], or a table in a test.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The text of a variable, or `None` where it is unset or empty.
pub fn text(env: &Env<'_>, name: &'static str) -> Result<Option<String>, EnvError> {
    let Some(value) = env(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    value.into_string().map(Some).map_err(|_| EnvError::NotText(name))
}

/// The text of a variable that must not be empty if it is set.
pub fn required(env: &Env<'_>, name: &'static str) -> Result<Option<String>, EnvError> {
    match text(env, name)? {
        Some(value) if !value.trim().is_empty() => Ok(Some(value)),
        Some(_) => Err(EnvError::Empty(name)),
        None if env(name).is_some() => Err(EnvError::Empty(name)),
        None => Ok(None),
    }
}

/// A variable that is on or off.
pub fn switch(env: &Env<'_>, name: &'static str) -> Result<bool, EnvError> {
    let Some(value) = text(env, name)? else {
        return Ok(false);
    };
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(EnvError::NotSwitch(name)),
    }
}

/// Takes `--flag=value` apart, which argh knows as two arguments only; up to a `--`. A switch takes no
/// value: `--insecure=false` stays in one piece, for argh to refuse.
pub fn split_equals(arguments: impl IntoIterator<Item = String>, switches: &[&str]) -> Vec<String> {
    let mut split = Vec::new();
    let mut ended = false;
    for argument in arguments {
        ended |= argument == "--";
        match argument.split_once('=') {
            Some((flag, value))
                if !ended && flag.starts_with("--") && !switches.contains(&flag) =>
            {
                split.extend([flag.to_owned(), value.to_owned()]);
            }
            _ => split.push(argument),
        }
    }
    split
}

/// Why a variable can't be used. Holds its name, never its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EnvError {
    /// Set, but empty, where that would be dangerous.
    Empty(&'static str),
    /// Not UTF-8.
    NotText(&'static str),
    /// Neither on nor off.
    NotSwitch(&'static str),
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(name) => {
                write!(f, "the variable {name} is set but empty; give it a value or unset it")
            }
            Self::NotText(name) => write!(f, "the variable {name} isn't UTF-8 text"),
            Self::NotSwitch(name) => {
                write!(f, "the variable {name} is neither on nor off; write 1 or 0")
            }
        }
    }
}

impl std::error::Error for EnvError {}

/// The arguments behind the program's name.
///
/// # Errors
/// A sentence, if one of them isn't text.
pub fn arguments() -> Result<Vec<String>, &'static str> {
    let text = std::env::args_os().skip(1).map(OsString::into_string);
    text.collect::<Result<_, _>>().map_err(|_| "an argument isn't UTF-8 text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<OsString> {
        let value = match name {
            "EMPTY" => "",
            "BLANK" => " \n",
            "TEXT" => "text",
            "ON" => "True",
            "OFF" => "0",
            _ => return None,
        };
        Some(value.into())
    }

    #[test]
    fn empty_is_unset_but_for_secrets() {
        assert_eq!(text(&env, "UNSET"), Ok(None));
        assert_eq!(text(&env, "EMPTY"), Ok(None));
        assert_eq!(text(&env, "TEXT"), Ok(Some("text".into())));
        assert_eq!(required(&env, "UNSET"), Ok(None));
        assert_eq!(required(&env, "EMPTY"), Err(EnvError::Empty("EMPTY")));
        assert_eq!(required(&env, "BLANK"), Err(EnvError::Empty("BLANK")));
        assert_eq!(required(&env, "TEXT"), Ok(Some("text".into())));
    }

    #[test]
    fn switches_are_on_off_or_refused() {
        assert_eq!(switch(&env, "UNSET"), Ok(false));
        assert_eq!(switch(&env, "EMPTY"), Ok(false));
        assert_eq!(switch(&env, "ON"), Ok(true));
        assert_eq!(switch(&env, "OFF"), Ok(false));
        assert_eq!(switch(&env, "TEXT"), Err(EnvError::NotSwitch("TEXT")));
    }

    #[test]
    fn flags_with_equals_signs_are_two_arguments() {
        let table: [(&[&str], &[&str]); 5] = [
            (&["--log=debug", "a=b"], &["--log", "debug", "a=b"]),
            (&["--key", "a=b"], &["--key", "a=b"]),
            (&["--key=a=b", "--open"], &["--key", "a=b", "--open"]),
            (&["--", "--log=debug"], &["--", "--log=debug"]),
            (&["--insecure=false"], &["--insecure=false"]),
        ];
        for (given, expected) in table {
            let given = given.iter().map(|text| text.to_string());
            assert_eq!(split_equals(given, &["--insecure"]), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let env = |_: &str| Some(OsString::from_vec(vec![0xff]));
        assert_eq!(text(&env, "LOG"), Err(EnvError::NotText("LOG")));
    }
}
