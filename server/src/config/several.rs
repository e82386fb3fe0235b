//! Mistakes, gathered: who wrote a file mends all of them before the next try.

use super::ConfigError;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Several(Vec<ConfigError>);

impl Several {
    /// The value, if there is one; else its mistakes are noted.
    pub(super) fn note<T>(&mut self, result: Result<T, impl Into<ConfigError>>) -> Option<T> {
        match result.map_err(Into::into) {
            Ok(value) => return Some(value),
            Err(ConfigError::Several(more)) => self.0.extend(more),
            Err(err) => self.0.push(err),
        }
        None
    }

    /// Whether there was none so far.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value, if there was no mistake. Those in a file are told in its order.
    pub(super) fn end<T>(mut self, value: T) -> Result<T, ConfigError> {
        self.0.sort_by_key(|err| err.place().map(|place| (place.line, place.column)));
        self.0.dedup();
        match self.0.pop() {
            None => Ok(value),
            Some(only) if self.0.is_empty() => Err(only),
            Some(last) => {
                self.0.push(last);
                Err(ConfigError::Several(self.0))
            }
        }
    }
}
