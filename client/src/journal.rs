//! One line for each exchange, for the person who watches.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use ptth_link::lines::{Lines, number};
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

    /// `line` appends what there is to tell.
    fn note(&self, line: impl FnOnce(&mut String)) {
        self.lines.note(|text| {
            if let Some(service) = &self.service {
                text.push_str(service);
                text.push(' ');
            }
            line(text);
        });
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

    /// Method and path, as far as they are worth reading, and the status, if there is one.
    fn what(&self, text: &mut String, status: Option<StatusCode>) {
        let path = self.target.as_ref().map_or("", PathAndQuery::path);
        text.push_str(first(self.method.as_str(), LONGEST_METHOD));
        text.push(' ');
        quote(text, first(path, LONGEST_PATH));
        text.push(' ');
        if let Some(status) = status {
            number(text, status.as_u16().into());
            text.push(' ');
        }
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
        journal.note(|text| {
            let whole = begun.elapsed();
            self.what(text, Some(status));
            number(text, bytes);
            text.push_str(" B ");
            millis(text, whole);
            text.push_str(" ms (origin ");
            millis(text, origin);
            text.push_str(", rest ");
            millis(text, whole.saturating_sub(origin));
            text.push(')');
        });
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
        journal.note(|text| {
            self.what(text, Some(status));
            text.push_str("broke off after ");
            millis(text, begun.elapsed());
            text.push_str(" ms (origin ");
            millis(text, origin);
            text.push_str("): ");
            text.push_str(why);
        });
    }

    /// The visitor took it back before there was a response.
    pub fn cancelled(&self, journal: &Journal, begun: Instant) {
        journal.note(|text| {
            self.what(text, None);
            text.push_str("taken back by the visitor after ");
            millis(text, begun.elapsed());
            text.push_str(" ms");
        });
    }
}

/// Appends what a peer chose, in quotes and escaped.
fn quote(text: &mut String, path: &str) {
    if path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')) {
        text.push('"');
        text.push_str(path);
        text.push('"');
    } else {
        // A String takes all that is written.
        let _ = write!(text, "{path:?}");
    }
}

/// The beginning of `text`: so many characters at most.
fn first(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// Appends milliseconds and a tenth, rounded.
fn millis(text: &mut String, duration: Duration) {
    let tenths = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).saturating_add(50) / 100;
    number(text, tenths / 10);
    text.push('.');
    number(text, tenths % 10);
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
            let mut text = String::new();
            millis(&mut text, Duration::from_micros(micros));
            assert_eq!(text, expected);
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
    fn paths_are_quoted_as_the_formatter_does() {
        for path in ["/", "/a'b", "/a\"b", "/a\\b", "/\u{e9}", "/\u{1b}[2J", ""] {
            let mut text = String::new();
            quote(&mut text, path);
            assert_eq!(text, format!("{path:?}"));
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
