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

    /// The time from which an order for this name may be made, if that isn't now.
    pub(super) fn until(&self, name: &str, dynamic: bool, now: i64) -> Option<i64> {
        let full = |most: usize, counts: &dyn Fn(&Recent) -> bool| {
            let counted: Vec<_> = self.recent(now).filter(|it| counts(it)).collect();
            counted.len().checked_sub(most).and_then(|over| Some(counted.get(over)?.at + HOUR))
        };
        let own = |it: &Recent| it.name == name;
        match dynamic {
            true => full(1, &own).max(full(MOST_DYNAMIC, &|it| it.dynamic)),
            false => full(MOST_OF_A_NAME, &own),
        }
    }

    /// Notes an order that is about to be made. Blocks.
    ///
    /// # Errors
    /// The file can't be written, so a restart would forget it.
    pub(super) fn note(&self, name: &str, dynamic: bool, now: i64) -> io::Result<()> {
        let order = Recent { name: name.to_owned(), at: now, dynamic };
        let recent: Vec<_> = self.recent(now).chain([&order]).collect();
        files::replace(&self.path, serde_json::to_string(&recent)?, true)
    }

    /// One of the future was noted before the clock was set back.
    fn recent(&self, now: i64) -> impl Iterator<Item = &Recent> {
        self.recent.iter().filter(move |it| (now - HOUR + 1..=now).contains(&it.at))
    }
}

const HOUR: i64 = 3600;
/// Of all names together that backends chose: with so many new ones an hour a directory's limits aren't reached.
const MOST_DYNAMIC: usize = 5;
/// Of a name of the configuration: some operators restart often while they set up.
const MOST_OF_A_NAME: usize = 4;
