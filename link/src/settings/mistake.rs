//! What is wrong with the settings of a program, each mistake in one sentence for the person who made it.
//!
//! Invariant: no sentence quotes what may be a secret.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// A place in the configuration file: the path, the line and the column in characters, which count from 1.
pub(super) type Place = (Arc<Path>, usize, usize);

/// One mistake: where in the file, if it is there, as compilers write it (`gateway.toml:3:8`), and a sentence.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[error("{}{sentence}", place.as_ref().map_or_else(String::new, |(path, line, column)| {
    format!("{}:{line}:{column}: ", path.display())
}))]
pub struct Mistake {
    place: Option<Place>,
    sentence: String,
}

impl Mistake {
    pub fn new(sentence: impl Display) -> Self {
        Self { place: None, sentence: sentence.to_string() }
    }

    pub(super) fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// The value, if there is one; else the mistake is noted.
    pub fn note<T>(&self, result: Result<T, Mistake>) -> Option<T> {
        result.map_err(|mistake| self.add(mistake)).ok()
    }

    pub fn add(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// # Errors
    /// All mistakes so far; those in the file in its order.
    pub fn end(&self) -> Result<(), ConfigError> {
        let mut all = self.0.take();
        all.sort_by(|one, other| one.place.cmp(&other.place));
        all.dedup();
        if all.is_empty() { Ok(()) } else { Err(ConfigError(all)) }
    }
}

/// Why a program can't start: what is wrong with its settings, a line for each mistake.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(Vec<Mistake>);

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self(vec![mistake])
    }
}
