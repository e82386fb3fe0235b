//! One line for each exchange, for the person who watches.
//!
//! Invariant: nobody waits for the terminal. Lines go through a bounded queue to a thread of their own;
//! what doesn't fit is dropped and counted.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use http::{Request, StatusCode};
use tokio::time::Instant;

/// Takes the lines. Cheap to clone; the default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Journal(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    lines: SyncSender<String>,
    dropped: AtomicU64,
}

impl Journal {
    /// Writes to `out`, from a thread that ends with the last clone of the journal.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let (lines, receiver) = sync_channel(QUEUE);
        let queue = Arc::new(Queue { lines, dropped: AtomicU64::new(0) });
        let weak = Arc::downgrade(&queue);
        let dropped = move || weak.upgrade().map_or(0, |q| q.dropped.swap(0, Ordering::Relaxed));
        thread::spawn(move || write(&receiver, out, dropped));
        Self(Some(queue))
    }

    fn note(&self, line: impl fmt::Display) {
        if let Some(queue) = &self.0
            && queue.lines.try_send(format!("{} {line}\n", Clock(SystemTime::now()))).is_err()
        {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(lines: &Receiver<String>, mut out: impl Write, dropped: impl Fn() -> u64) {
    for line in lines {
        // A closed terminal is no reason to stop serving; the lines are then lost, as was wanted.
        let _ = out.write_all(line.as_bytes());
        let lost = dropped();
        if lost > 0 {
            let note = format!("({lost} lines more than could be written)\n");
            let _ = out.write_all(note.as_bytes());
        }
        let _ = out.flush();
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

/// The time of day, UTC.
struct Clock(SystemTime);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since.as_secs() % 86_400, since.subsec_millis());
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(f, "{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
    }
}

/// A screen scrolls by faster than this is read; a pipe takes it in one gulp.
const QUEUE: usize = 1024;
const LONGEST_PATH: usize = 200;
const LONGEST_METHOD: usize = 20;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Pipe(mpsc::Sender<String>, Receiver<()>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.1.recv();
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_stands_still_delays_nobody_and_the_loss_is_told() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let journal = Journal::to(Pipe(sender, wait));
        for n in 0..QUEUE + 100 {
            journal.note(n);
        }
        for _ in 0..QUEUE + 100 {
            let _ = go.send(());
        }
        let first = written.recv().unwrap();
        assert!(first.ends_with(" 0\n"), "{first}");
        let second = written.recv().unwrap();
        assert!(second.contains("lines more than could be written"), "{second}");
    }

    #[test]
    fn a_query_never_shows() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let journal = Journal::to(Pipe(sender, wait));
        go.send(()).unwrap();
        let request = Request::builder().uri("https://h/a\u{7f}?token=secret");
        let Ok(request) =
            request.body(()).or_else(|_| Request::builder().uri("/a?token=secret").body(()))
        else {
            unreachable!()
        };
        let now = Instant::now();
        Exchange::new(&request).finish(&journal, StatusCode::OK, 3, now, Duration::ZERO);
        let line = written.recv().unwrap();
        assert!(line.contains("GET \"/a") && line.contains(" 200 3 B "), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }

    #[test]
    fn the_clock_reads_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_000 + 3_723_004);
        assert_eq!(Clock(time).to_string(), "01:02:03.004");
    }
}
