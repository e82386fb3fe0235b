//! What is wrong with the settings of a program, each mistake in one sentence for the person who made it.
//!
//! Invariant: no sentence quotes what may be a secret.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in the configuration file. `Display` is as compilers write it: `gateway.toml:3:8`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// One mistake: where in the file, if it is there, and a sentence.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Mistake {
    place: Option<Place>,
    sentence: String,
}

impl Mistake {
    /// One that isn't in a file.
    pub fn new(sentence: impl fmt::Display) -> Self {
        Self { place: None, sentence: sentence.to_string() }
    }

    /// The same at a place of the file.
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

impl std::error::Error for Mistake {}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// The value, if there is one; else the mistake is noted.
    pub fn note<T>(&self, result: Result<T, Mistake>) -> Option<T> {
        result.map_err(|mistake| self.0.borrow_mut().push(mistake)).ok()
    }

    /// Notes a mistake.
    pub fn add(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    /// How many there were so far.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether there was none so far.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Nothing, if there was no mistake so far. Those in the file are told in its order.
    ///
    /// # Errors
    /// [`ConfigError`], with all of them.
    pub fn end(&self) -> Result<(), ConfigError> {
        let mut all = self.0.take();
        all.sort_by(|one, other| one.place.cmp(&other.place));
        all.dedup();
        if all.is_empty() { Ok(()) } else { Err(ConfigError(all)) }
    }
}

/// Why a program can't start: what is wrong with its settings, a line for each mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError(Vec<Mistake>);

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}
