//! One line for each exchange, for the person who watches.

use std::time::Duration;

use http::{Request, StatusCode};
pub use ptth_link::lines::Lines as Journal;
use tokio::time::Instant;

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
    use std::io::Write;
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
