//! The orders of the last hour, kept on disk, so that no restart and no backend makes the gateway order without end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ptth_link::files;
use serde::{Deserialize, Serialize};

/// The orders with one directory.
#[derive(Debug)]
pub(super) struct Orders {
    path: PathBuf,
    recent: Vec<Recent>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Recent {
    name: String,
    /// Seconds since 1970.
    at: i64,
    /// Whether a backend chose the name.
    dynamic: bool,
}

impl Orders {
    /// A file that can't be read counts as empty: it only bounds what a directory bounds, too. Blocks.
    pub(super) fn load(folder: &Path) -> Self {
        let path = folder.join("orders.json");
        let text = fs::read(&path).unwrap_or_default();
        Self { path, recent: serde_json::from_slice(&text).unwrap_or_default() }
    }

    /// Notes an order, which is to be made then. Blocks.
    ///
    /// # Errors
    /// The time from which it may be made; or the file can't be written.
    pub(super) fn note(
        &mut self,
        name: &str,
        dynamic: bool,
        now: i64,
    ) -> io::Result<Result<(), i64>> {
        // An order of the future was noted before the clock was set back.
        self.recent.retain(|it| (now - HOUR + 1..=now).contains(&it.at));
        let of = |count: fn(&Recent, &str) -> bool, most: usize| {
            let counted: Vec<_> = self.recent.iter().filter(|it| count(it, name)).collect();
            let over = (counted.len() + 1).checked_sub(most).filter(|over| *over > 0);
            over.and_then(|over| Some(counted.get(over - 1)?.at + HOUR))
        };
        let until = match dynamic {
            true => of(|it, name| it.name == name, 1).max(of(|it, _| it.dynamic, MOST_DYNAMIC)),
            false => of(|it, name| it.name == name, MOST_OF_A_NAME),
        };
        if let Some(until) = until {
            return Ok(Err(until));
        }
        self.recent.push(Recent { name: name.to_owned(), at: now, dynamic });
        let text = serde_json::to_string(&self.recent)?;
        files::replace(&self.path, &text, true).map(Ok)
    }
}

const HOUR: i64 = 3600;
/// Of all names together that backends chose: with so many new ones an hour a directory's limits aren't reached.
const MOST_DYNAMIC: usize = 5;
/// Of a name of the configuration: some operators restart often while they set up.
const MOST_OF_A_NAME: usize = 4;
