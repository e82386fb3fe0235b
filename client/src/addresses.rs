//! Tells the user where visitors find the services: on the terminal, and in the file of `--url-file`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use log::warn;
use ptth_link::files;
use tokio::select;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::announced::{Board, News};

/// A service, as far as its addresses go.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub label: Option<String>,
    /// Where it must be, if the gateway doesn't say.
    pub guess: Option<String>,
    pub origin: String,
}

/// Tells each service's addresses when its first tunnel is up, and again when they change. Runs until the
/// services are gone. Cancel safe.
pub async fn publish(
    services: &[Known],
    mut board: watch::Receiver<Board>,
    file: Option<UrlFile>,
    tell: impl Fn(&Known, &str),
) {
    let mut told = vec![Vec::new(); services.len()];
    loop {
        let news = board.borrow_and_update().clone();
        let mut wake = None;
        let mut changed = false;
        for ((service, news), told) in services.iter().zip(&news).zip(&mut told) {
            match addresses(service, news) {
                Ok(urls) if urls != *told => {
                    urls.iter().for_each(|url| tell(service, url));
                    if news.more > 0 {
                        tell(service, &format!("({} more addresses)", news.more));
                    }
                    *told = urls;
                    changed = true;
                }
                Ok(_) => {}
                Err(later) => wake = wake.into_iter().chain(later).min(),
            }
        }
        if let Some(file) = file.as_ref().filter(|_| changed) {
            write(file, told.iter().flatten()).await;
        }
        select! {
            changed = board.changed() => if changed.is_err() { return },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
}

/// A service's addresses, or when to ask again.
fn addresses(service: &Known, news: &News) -> Result<Vec<String>, Option<Instant>> {
    match news.up.map(|up| up + PATIENCE) {
        _ if !news.urls.is_empty() => Ok(news.urls.clone()),
        Some(over) if over <= Instant::now() => Ok(service.guess.iter().cloned().collect()),
        later => Err(later),
    }
}

async fn write(file: &UrlFile, urls: impl Iterator<Item = &String>) {
    let (file, text) = (file.clone(), urls.map(|url| format!("{url}\n")).collect::<String>());
    // A disk may be slow, and this thread has tunnels.
    let writing =
        spawn_blocking(move || files::replace(&file.0, &text, false).map_err(|err| (file, err)));
    if let Ok(Err((file, err))) = writing.await {
        warn!("client: the addresses can't be written to {}: {err}", file.0.display());
    }
}

/// A file that always holds all of the addresses, one a line, or doesn't exist.
#[derive(Clone, Debug)]
pub struct UrlFile(PathBuf);

impl UrlFile {
    /// Tries whether `path` can be written, and removes the file of an earlier process. Fails if there is something
    /// else. Blocks.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        match fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => {
                return Err(io::Error::other("it is there, and it is no file"));
            }
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        files::replace(&path, "", false)?;
        fs::remove_file(&path)?;
        Ok(Self(path))
    }
}

/// For a gateway's announcement, which it makes at once. One that makes none leaves us with a guess.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use ptth_link::crypto;
    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::announced::Announced;

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
            assert!(UrlFile::new(folder.0.join(bad)).is_err(), "{bad:?}");
        }
        let path = folder.0.join("urls");
        fs::write(&path, "https://stale.test/\n").unwrap();
        UrlFile::new(path.clone()).unwrap();
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
        let file = UrlFile::new(path.clone()).unwrap();
        let (places, board) = Announced::board(2);
        let services = vec![Known::default(), Known::default()];
        let mut publishing = JoinSet::new();
        publishing.spawn(async move { publish(&services, board, Some(file), |_, _| {}).await });
        let [one, two] = &places[..] else { panic!("two") };
        let news = |urls: &[&str], more| {
            let urls = urls.iter().map(|url| url.to_string()).collect();
            News { up: None, more, urls }
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

    #[tokio::test(start_paused = true)]
    async fn the_guess_is_for_gateways_that_say_nothing() {
        let known = Known { guess: Some("https://guess.test/".to_owned()), ..Known::default() };
        let mut news = News::default();
        assert_eq!(addresses(&known, &news), Err(None), "no tunnel is up");
        news.up = Some(Instant::now());
        assert_eq!(addresses(&known, &news), Err(news.up.map(|up| up + PATIENCE)));
        sleep(PATIENCE).await;
        assert_eq!(addresses(&known, &news), Ok(vec!["https://guess.test/".to_owned()]));
        assert_eq!(addresses(&Known::default(), &news), Ok(vec![]), "nobody knows");
        news.urls = vec!["https://told.test/".to_owned()];
        assert_eq!(addresses(&known, &news), Ok(news.urls.clone()));
    }
}
