//! The public addresses of this process's services, as the gateway tells them.
//!
//! In:  `OPTIONS *` with `2ptth-url` fields, on a tunnel, from the gateway itself; or the same fields in its
//!      answer to a registration. Visitors can't send either: fields of that name don't cross our gateway.
//! Out: a [`Board`] that can be watched, the terminal, and the file of `--url-file`.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, Method, Request, Uri};
use log::warn;
use ptth_link::files;
use ptth_link::limits::ANNOUNCED_URLS;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

pub type Board = Vec<News>;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct News {
    /// How many more addresses there are than are told.
    pub more: u64,
    /// Where visitors find it. Each is safe to print.
    pub urls: Vec<String>,
}

/// A service's place on a [`Board`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Announced {
    board: Arc<watch::Sender<Board>>,
    service: usize,
}

impl Default for Announced {
    fn default() -> Self {
        Self { board: Arc::new(watch::Sender::new(vec![News::default()])), service: 0 }
    }
}

impl Announced {
    pub fn board(services: usize) -> (Vec<Self>, watch::Receiver<Board>) {
        let (sender, receiver) = watch::channel(vec![News::default(); services]);
        let board = Arc::new(sender);
        let places = (0..services).map(|service| Self { board: board.clone(), service });
        (places.collect(), receiver)
    }

    pub fn watch(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    /// Where visitors find the service, as far as it is known.
    pub(crate) fn urls(&self) -> Vec<String> {
        let board = self.board.borrow();
        board.get(self.service).map(|news| news.urls.clone()).unwrap_or_default()
    }

    /// The gateway told addresses. None at all say nothing.
    pub(crate) fn told(&self, told: News) {
        self.change(told, |news, told| !told.urls.is_empty() && news != told);
    }

    /// The gateway was silent; this is where the service must be.
    pub(crate) fn guess(&self, url: String) {
        self.change(News { urls: vec![url], more: 0 }, |news, _| news.urls.is_empty());
    }

    fn change(&self, told: News, differs: impl FnOnce(&News, &News) -> bool) {
        self.board.send_if_modified(|board| {
            let news = board.get_mut(self.service).filter(|news| differs(news, &told));
            news.map(|news| *news = told).is_some()
        });
    }
}

/// What a request tells that is the gateway's own announcement.
pub(crate) fn announcement<B>(request: &Request<B>) -> Option<News> {
    let path = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str);
    let is_own = request.method() == Method::OPTIONS && path == Some("*");
    (is_own && request.headers().contains_key(URL)).then(|| News::of(request.headers()))
}

impl News {
    /// The addresses that these fields tell. What is no address is passed over.
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        let more = fields.get(MORE).and_then(|more| more.to_str().ok()?.parse().ok());
        let texts = fields.get_all(URL).iter().filter_map(|url| url.to_str().ok());
        let mut urls = Vec::new();
        for url in texts.filter(|url| is_address(url)).take(ANNOUNCED_URLS).map(str::to_owned) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        Self { more: more.unwrap_or_default(), urls }
    }
}

/// Whether it is a URL that a terminal, a file of lines and a browser take for one.
fn is_address(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    text.len() <= LONGEST
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

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

const URL: HeaderName = HeaderName::from_static("2ptth-url");
const MORE: HeaderName = HeaderName::from_static("2ptth-more-urls");
/// As browsers take them.
const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use ptth_link::crypto;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn only_the_gateways_own_request_is_an_announcement() {
        let request = |method: &str, uri: &str, urls: &[&str]| {
            let mut request = Request::builder().method(method).uri(uri);
            for url in urls {
                request = request.header("2ptth-url", *url);
            }
            announcement(&request.body(()).unwrap())
        };
        let urls = ["https://a.test/", "https://b.test/"];
        let told = request("OPTIONS", "*", &urls).map(|news| news.urls);
        assert_eq!(told, Some(urls.map(str::to_owned).to_vec()));
        assert_eq!(request("OPTIONS", "*", &[]), None);
        assert_eq!(request("GET", "https://a.test/", &urls), None);
        assert_eq!(request("OPTIONS", "https://a.test/*", &urls), None);
    }

    #[test]
    fn what_is_no_address_is_passed_over() {
        let place = Announced::default();
        let mut board = place.watch();
        let told = |board: &mut watch::Receiver<Board>| board.borrow_and_update()[0].urls.clone();
        let long = format!("https://a.test/{}", "x".repeat(LONGEST));
        let bad = ["", "a.test", "javascript:alert(1)", "https://u@a.test/", "/x", &long];
        for bad in bad.into_iter().chain(["https://a.test/\u{1b}[2J", "https://a.test/ x"]) {
            assert!(!is_address(bad), "{bad:?}");
        }
        let of =
            |urls: &[&str]| News::of(&urls.iter().map(|url| (URL, url.parse().unwrap())).collect());
        place.told(of(&bad));
        assert!(!board.has_changed().unwrap());
        place.guess("https://guess.test/".to_owned());
        assert_eq!(told(&mut board), ["https://guess.test/"]);
        let good = ["https://a.test/", "http://[::1]:8080/a/", "https://a.test/"];
        place.told(of(&good));
        assert!(board.has_changed().unwrap());
        assert_eq!(told(&mut board), good[..2]);
        place.told(of(&good));
        place.told(News::default());
        place.guess("https://guess.test/".to_owned());
        assert!(!board.has_changed().unwrap(), "nothing new");
    }

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
