//! One line for each exchange, for the person who watches.

use std::fmt::{self, Arguments, Display, Formatter};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use ptth_link::lines::Lines;
use tokio::time::Instant;

/// Takes the lines. Cheap to clone; the default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    lines: Lines,
    service: Option<Arc<str>>,
}

impl Journal {
    /// Writes to `out`, from a thread that ends with the last clone of it.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self { lines: Lines::to(out), service: None }
    }

    /// The same journal, for one service of several: its lines, and what the log says of its tunnels, begin
    /// with this name.
    #[must_use]
    pub fn of(&self, service: &str) -> Self {
        Self { lines: self.lines.clone(), service: Some(service.into()) }
    }

    /// The service's name, where there are several.
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref()
    }

    fn note(&self, line: Arguments<'_>) {
        match &self.service {
            Some(service) => self.lines.note(format_args!("{service} {line}")),
            None => self.lines.note(line),
        }
    }
}

/// One exchange, as it will stand in the journal.
#[derive(Debug)]
pub struct Exchange {
    method: Method,
    target: Option<PathAndQuery>,
}

impl Exchange {
    /// What the request says: never its query, which may hold secrets.
    pub fn new<B>(request: &Request<B>) -> Self {
        Self { method: request.method().clone(), target: request.uri().path_and_query().cloned() }
    }

    /// Method and path, as far as they are worth reading.
    fn what(&self) -> (&str, &str) {
        let path = self.target.as_ref().map_or("", PathAndQuery::path);
        (first(self.method.as_str(), LONGEST_METHOD), first(path, LONGEST_PATH))
    }

    /// It ended well.
    pub fn finish(
        &self,
        journal: &Journal,
        status: StatusCode,
        bytes: u64,
        begun: Instant,
        origin: Duration,
    ) {
        let ((method, path), whole) = (self.what(), begun.elapsed());
        journal.note(format_args!(
            "{method} {path:?} {} {bytes} B {} ms (origin {}, rest {})",
            status.as_u16(),
            Millis(whole),
            Millis(origin),
            Millis(whole.saturating_sub(origin)),
        ));
    }

    /// It broke off after its response had begun.
    pub fn broken(
        &self,
        journal: &Journal,
        status: StatusCode,
        why: &str,
        begun: Instant,
        origin: Duration,
    ) {
        let (method, path) = self.what();
        journal.note(format_args!(
            "{method} {path:?} {} broke off after {} ms (origin {}): {why}",
            status.as_u16(),
            Millis(begun.elapsed()),
            Millis(origin),
        ));
    }

    /// The visitor took it back before there was a response.
    pub fn cancelled(&self, journal: &Journal, begun: Instant) {
        let (method, path) = self.what();
        journal.note(format_args!(
            "{method} {path:?} taken back by the visitor after {} ms",
            Millis(begun.elapsed()),
        ));
    }
}

/// The beginning of `text`: so many characters at most.
fn first(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// Milliseconds and a tenth, rounded. Whole numbers cost a fifth of what a float does.
struct Millis(Duration);

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tenths = (self.0.as_micros() + 50) / 100;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

const LONGEST_PATH: usize = 200;
const LONGEST_METHOD: usize = 20;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Pipe(mpsc::Sender<String>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_one_service_of_several_says_which() {
        let (sender, written) = mpsc::channel();
        let journal = Journal::to(Pipe(sender)).of("blog");
        let request = Request::builder().uri("/a").body(()).unwrap();
        let now = Instant::now();
        Exchange::new(&request).finish(&journal, StatusCode::OK, 3, now, Duration::ZERO);
        let line = written.recv().unwrap();
        assert!(line.contains(" blog GET \"/a\" 200 3 B "), "{line}");
    }

    #[test]
    fn milliseconds_are_rounded_to_a_tenth() {
        let table = [(0, "0.0"), (49, "0.0"), (50, "0.1"), (1_949, "1.9"), (1_000_950, "1001.0")];
        for (micros, expected) in table {
            assert_eq!(Millis(Duration::from_micros(micros)).to_string(), expected);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for (text, most, expected) in
            [("abc", 3, "abc"), ("abcd", 3, "abc"), ("\u{e9}\u{e9}", 1, "\u{e9}")]
        {
            assert_eq!(first(text, most), expected);
        }
    }

    #[test]
    fn a_query_never_shows() {
        let (sender, written) = mpsc::channel();
        let journal = Journal::to(Pipe(sender));
        let request = Request::builder().uri("/a?token=secret").body(()).unwrap();
        let now = Instant::now();
        Exchange::new(&request).finish(&journal, StatusCode::OK, 3, now, Duration::ZERO);
        let line = written.recv().unwrap();
        assert!(line.contains("GET \"/a") && line.contains(" 200 3 B "), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
}
