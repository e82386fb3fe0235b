//! Where a setting was made: a flag beats a variable, which beats the file, which beats the default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ptth_link::env::{self, Env, EnvError};

use super::ConfigError;

/// A place in the configuration file. `Display` is as compilers write it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Who made a setting. `Display` begins the sentence about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A flag, its dashes included.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// The configuration file.
    Key {
        /// Where.
        place: Place,
        /// The key, as `--help` spells the flag.
        key: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::Key { place, key } => write!(f, "{place}: {key}"),
        }
    }
}

/// What the file says in the place of a flag.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) key: &'static str,
    pub(super) place: Place,
    /// As a variable would hold it: lists separated by commas.
    pub(super) text: String,
}

/// The variables, and below them the file.
pub(super) struct Sources<'a> {
    pub(super) env: &'a Env<'a>,
    /// By the variable that would say the same.
    pub(super) file: &'a BTreeMap<&'static str, Given>,
    /// Where the file's relative paths begin.
    pub(super) folder: &'a Path,
}

/// How much a setting counts, by who made it; 0 if nobody did.
pub(super) const BY_FLAG: u8 = 3;
pub(super) const BY_VARIABLE: u8 = 2;
pub(super) const BY_FILE: u8 = 1;

impl Sources<'_> {
    /// A flag's text, else the variable's, else the file's.
    pub(super) fn setting(
        &self,
        given: &Option<String>,
        flag: &'static str,
        variable: &'static str,
    ) -> Result<Option<(Origin, String)>, EnvError> {
        match given {
            Some(text) => Ok(Some((Origin::Flag(flag), text.clone()))),
            None => self.text(variable),
        }
    }

    /// A list: of a flag that repeats, else of the variable or the file.
    pub(super) fn list(
        &self,
        given: &[String],
        flag: &'static str,
        variable: &'static str,
    ) -> Result<Option<(Origin, Vec<String>)>, EnvError> {
        if !given.is_empty() {
            return Ok(Some((Origin::Flag(flag), given.to_vec())));
        }
        Ok(self.text(variable)?.map(|(origin, list)| (origin, split(&list))))
    }

    /// The variable's text, else the file's. An empty variable counts as none.
    pub(super) fn text(
        &self,
        variable: &'static str,
    ) -> Result<Option<(Origin, String)>, EnvError> {
        Ok(match env::text(self.env, variable)? {
            Some(text) => Some((Origin::Variable(variable), text)),
            None => self.given(variable).map(|given| (given.origin(), given.text.clone())),
        })
    }

    /// A path: a flag's, else the variable's, which must not be empty if it is set, else the file's.
    pub(super) fn path(
        &self,
        given: &Option<PathBuf>,
        variable: &'static str,
    ) -> Result<Option<PathBuf>, EnvError> {
        if let Some(path) = given {
            return Ok(Some(path.clone()));
        }
        Ok(match env::required(self.env, variable)? {
            Some(path) => Some(path.into()),
            None => self.given(variable).map(|given| self.folder.join(&given.text)),
        })
    }

    /// Whether something is on, by its flag, variable or key.
    pub(super) fn switch(&self, given: bool, variable: &'static str) -> Result<bool, EnvError> {
        if given {
            return Ok(true);
        }
        match env::text(self.env, variable)? {
            Some(_) => env::switch(self.env, variable),
            None => Ok(self.given(variable).is_some_and(|given| given.text == "true")),
        }
    }

    /// Who says something about this.
    pub(super) fn level(&self, by_flag: bool, variable: &'static str) -> u8 {
        if by_flag {
            BY_FLAG
        } else if (self.env)(variable).is_some() {
            BY_VARIABLE
        } else if self.given(variable).is_some() {
            BY_FILE
        } else {
            0
        }
    }

    /// What the file says of it.
    pub(super) fn given(&self, variable: &str) -> Option<&Given> {
        self.file.get(variable)
    }
}

impl Origin {
    /// The error, with its place if this is in the file.
    pub(super) fn here(&self, why: ConfigError) -> ConfigError {
        match self {
            Self::Key { place, .. } => {
                ConfigError::Here { place: place.clone(), why: Box::new(why) }
            }
            Self::Flag(_) | Self::Variable(_) => why,
        }
    }
}

impl Given {
    pub(super) fn origin(&self) -> Origin {
        Origin::Key { place: self.place.clone(), key: self.key }
    }
}

/// The parts of a list in a variable, which commas or blanks separate.
pub(super) fn split(list: &str) -> Vec<String> {
    let parts = list.split(|c: char| c == ',' || c.is_whitespace());
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
