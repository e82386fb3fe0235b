//! What can be wrong with a file, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A spot in a file, as editors show it: `client.toml:3:8`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub(super) path: Arc<Path>,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { path: Path::new("").into(), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileError {
    /// It can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// More than one mistake, each with a line of its own.
    Several(Vec<FileError>),
    /// Something in it.
    At {
        /// Where.
        place: Place,
        /// What.
        why: String,
    },
}

impl FileError {
    /// Where it stands, for the order in which several are told.
    pub(super) fn order(&self) -> (usize, usize) {
        match self {
            Self::At { place, .. } => (place.line, place.column),
            Self::Unreadable { .. } | Self::Several(_) => (0, 0),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => {
                write!(f, "the file of --config, {}, can't be read ({why})", path.display())
            }
            Self::Several(all) => {
                let lines: Vec<_> = all.iter().map(Self::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::At { place, why } => write!(f, "{place}: {why}"),
        }
    }
}
