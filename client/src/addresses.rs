//! Tells the user where visitors find the services: on the terminal, and in the file of `--url-file`.

use std::fs;
use std::io;
use std::path::Path;

use log::warn;
use ptth_link::files;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::announced::Board;

/// Tells each service's addresses, by its number, when they come and when they change; `file` gets all of them, one a
/// line. Runs until the services are gone. Cancel safe.
pub async fn publish(
    mut board: watch::Receiver<Board>,
    file: Option<&Path>,
    tell: impl Fn(usize, &str),
) {
    let mut told = vec![Vec::new(); board.borrow().len()];
    loop {
        let mut changed = false;
        let board_now = board.borrow_and_update().clone();
        for (service, (news, told)) in board_now.into_iter().zip(&mut told).enumerate() {
            if news.urls == *told {
                continue;
            }
            news.urls.iter().for_each(|url| tell(service, url));
            if news.more > 0 {
                tell(service, &format!("({} more addresses)", news.more));
            }
            *told = news.urls;
            changed = true;
        }
        if let Some(file) = file.filter(|_| changed) {
            write(file, told.iter().flatten()).await;
        }
        if board.changed().await.is_err() {
            return;
        }
    }
}

async fn write(file: &Path, urls: impl Iterator<Item = &String>) {
    let (path, text) = (file.to_owned(), urls.map(|url| format!("{url}\n")).collect::<String>());
    // A disk may be slow, and this thread has tunnels.
    let writing = spawn_blocking(move || files::replace(&path, &text, false));
    if let Ok(Err(err)) = writing.await {
        warn!("client: the addresses can't be written to {}: {err}", file.display());
    }
}

/// Tries whether `path` can be written, and removes the file of an earlier process: a file always holds all of the
/// addresses, or doesn't exist. Fails if there is something else. Blocks.
pub fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(io::Error::other("it is there, and it is no file"));
        }
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    files::replace(path, "", false)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use ptth_link::crypto;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::announced::{Announced, News};

    /// A folder that goes when the test does.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("2ptth-test-{}", crypto::hex(&crypto::random::<8>()));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_shows_at_once() {
        let folder = Folder::new();
        for bad in ["no/such/folder", ".", "..", ""] {
            assert!(clear(&folder.0.join(bad)).is_err(), "{bad:?}");
        }
        let path = folder.0.join("urls");
        fs::write(&path, "https://stale.test/\n").unwrap();
        clear(&path).unwrap();
        assert!(!path.exists() && folder.names() == 0, "nothing stale stays");
    }

    async fn reads(path: &PathBuf, text: &str) {
        let read = async {
            while fs::read_to_string(path).unwrap_or_default() != text {
                // The write is on a thread of its own, which knows no paused clock.
                spawn_blocking(std::thread::yield_now).await.unwrap();
            }
        };
        timeout(Duration::from_secs(3600), read).await.expect("the text");
    }

    #[tokio::test]
    async fn addresses_are_told_when_they_come_and_when_they_change() {
        let folder = Folder::new();
        let path = folder.0.join("urls");
        clear(&path).unwrap();
        let file = path.clone();
        let (places, board) = Announced::board(2);
        let mut publishing = JoinSet::new();
        publishing.spawn(async move { publish(board, Some(&file), |_, _| {}).await });
        let [one, two] = &places[..] else { panic!("two") };
        let news = |urls: &[&str], more| {
            let urls = urls.iter().map(|url| url.to_string()).collect();
            News { more, urls }
        };
        two.told(news(&["https://two.test/"], 0));
        reads(&path, "https://two.test/\n").await;
        one.told(news(&["https://one.test/", "https://1.test/"], 7));
        reads(&path, "https://one.test/\nhttps://1.test/\nhttps://two.test/\n").await;
        one.told(news(&["https://one.test/"], 0));
        reads(&path, "https://one.test/\nhttps://two.test/\n").await;
        assert_eq!(folder.names(), 1, "nothing else stays");
        drop(places);
        timeout(Duration::from_secs(60), publishing.join_next()).await.expect("the end");
    }
}
