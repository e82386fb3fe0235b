//! One line for each exchange, for the person who watches.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
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
    method: String,
    path: String,
}

impl Exchange {
    /// What the request says: never its query, which may hold secrets.
    pub fn new<B>(request: &Request<B>) -> Self {
        let path: String = request.uri().path().chars().take(LONGEST_PATH).collect();
        let method: String = request.method().as_str().chars().take(LONGEST_METHOD).collect();
        Self { method, path }
    }

    /// It ended well.
    pub fn finish(
        &mut self,
        journal: &Journal,
        status: StatusCode,
        bytes: u64,
        begun: Instant,
        origin: Duration,
    ) {
        let rest = begun.elapsed().saturating_sub(origin);
        journal.note(format_args!(
            "{} {:?} {} {bytes} B {:.1} ms (origin {:.1}, rest {:.1})",
            self.method,
            self.path,
            status.as_u16(),
            millis(begun.elapsed()),
            millis(origin),
            millis(rest),
        ));
    }

    /// It broke off after its response had begun.
    pub fn broken(
        &mut self,
        journal: &Journal,
        status: StatusCode,
        why: &str,
        begun: Instant,
        origin: Duration,
    ) {
        journal.note(format_args!(
            "{} {:?} {} broke off after {:.1} ms (origin {:.1}): {why}",
            self.method,
            self.path,
            status.as_u16(),
            millis(begun.elapsed()),
            millis(origin),
        ));
    }

    /// The visitor took it back before there was a response.
    pub fn cancelled(&mut self, journal: &Journal, begun: Instant) {
        journal.note(format_args!(
            "{} {:?} taken back by the visitor after {:.1} ms",
            self.method,
            self.path,
            millis(begun.elapsed()),
        ));
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
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
