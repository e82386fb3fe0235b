//! The log, to stderr.
//!
//! Lines about the process and tunnels are written at once; those about a single connection or exchange go through
//! [`Lines`], for which no task waits. Both have the same format: a line begins with `2026-01-31T12:34:56.789Z`.
//!
//! Invariant: no exchange waits for the terminal. Lines go through a bounded queue to a thread of their own; lines without
//! room are dropped and counted.

use std::fmt::Write as _;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use time::OffsetDateTime;

/// To be called once, by a binary.
pub fn start(level: LevelFilter) {
    let logger = SimpleLogger::new().with_level(level).with_utc_timestamps();
    log::set_max_level(logger.max_level());
    let details = if level >= Level::Debug { Lines::to(io::stderr()) } else { Lines::default() };
    // Fails only if there is a logger already, which stays.
    let _ = log::set_boxed_logger(Box::new(Logger { logger, details }));
}

struct Logger {
    logger: SimpleLogger,
    details: Lines,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() < Level::Debug {
            // simple_logger panics when stderr is gone, which is no reason to stop serving.
            let _ = catch_unwind(AssertUnwindSafe(|| self.logger.log(record)));
        } else if self.enabled(record.metadata()) {
            self.details.note(|text| {
                // A String takes all that is written.
                let _ =
                    write!(text, "{:5} [{}] {}", record.level(), record.target(), record.args());
                text.truncate(text.trim_end().len());
            });
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Takes the lines. Cheap to clone; the default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Lines(Option<(SyncSender<String>, Arc<AtomicU64>)>);

impl Lines {
    /// Writes to `out`, from a thread that ends with the last clone of it.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let (lines, receiver) = sync_channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let lost = dropped.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the last clone; an exit waits for no terminal"
        )]
        thread::spawn(move || write(&receiver, out, &lost));
        Self(Some((lines, dropped)))
    }

    /// Adds a line, with date and time in front, if there is room for it. `line` appends it.
    // Not by `Display`: the formatter costs a line of ten parts 3,000 instructions.
    pub fn note(&self, line: impl FnOnce(&mut String)) {
        let Some((lines, dropped)) = &self.0 else { return };
        // Growing it would be five allocations.
        let mut text = String::with_capacity(LINE);
        clock(&mut text, SystemTime::now());
        text.push(' ');
        line(&mut text);
        text.push('\n');
        if lines.try_send(text).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Each line goes out at once, unless so many come that a wake-up and a system call for each would cost more
/// than the rest of an exchange's line; then those of a [`PAUSE`] go together.
fn write(lines: &Receiver<String>, mut out: impl Write, dropped: &AtomicU64) {
    let (mut since, mut written) = (Instant::now(), 0);
    while let Ok(mut text) = lines.recv() {
        if since.elapsed() > PAUSE {
            (since, written) = (Instant::now(), 0);
        }
        written += 1;
        for line in lines.try_iter().take(QUEUE) {
            text.push_str(&line);
            written += 1;
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            text.push_str(&format!("({lost} lines more than could be written)\n"));
        }
        // A closed terminal is no reason to stop serving.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        if written > MANY {
            thread::sleep(PAUSE);
        }
    }
}

/// Appends date and time, UTC (RFC 3339).
fn clock(text: &mut String, now: SystemTime) {
    let now = OffsetDateTime::from(now);
    let (hour, minute, second, millis) = now.to_hms_milli();
    let date = (now.year().unsigned_abs(), u8::from(now.month()).into(), now.day().into());
    for (value, digits, behind) in [
        (date.0, 4, '-'),
        (date.1, 2, '-'),
        (date.2, 2, 'T'),
        (hour.into(), 2, ':'),
        (minute.into(), 2, ':'),
        (second.into(), 2, '.'),
        (millis.into(), 3, 'Z'),
    ] {
        let digits = (0..digits).rev().map(|power| (value / 10_u32.pow(power) % 10) as u8);
        text.extend(digits.map(|digit| char::from(b'0' + digit)));
        text.push(behind);
    }
}

pub fn number(text: &mut String, number: u64) {
    if number >= 10 {
        self::number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// Most lines are shorter.
const LINE: usize = 160;
/// The lines of a [`PAUSE`] at 100,000 exchanges a second.
const QUEUE: usize = 2048;
/// Too short to notice.
const PAUSE: Duration = Duration::from_millis(20);
/// More lines within a pause can't be read as they come.
const MANY: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Pipe(mpsc::Sender<String>, Receiver<()>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.recv();
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_stands_still_delays_nobody_and_the_loss_is_told() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let lines = Lines::to(Pipe(sender, wait));
        // The thread may have taken one queue's worth before it stands still.
        for n in 0..3 * QUEUE as u64 {
            lines.note(|text| number(text, n));
        }
        for _ in 0..3 * QUEUE {
            let _ = go.send(());
        }
        let first = written.recv().unwrap();
        assert!(first.contains(" 0\n"), "{first}");
        let told = |text: &String| text.contains("lines more than could be written");
        assert!(told(&first) || written.iter().any(|text| told(&text)));
    }

    #[test]
    fn the_clock_reads_utc() {
        for (millis, expected) in [
            (86_400_000 + 3_723_004, "1970-01-02T01:02:03.004Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_743_000_120, "2026-11-27T01:30:00.120Z"),
        ] {
            let mut text = String::new();
            clock(&mut text, SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for n in [0, 7, 10, 1_002, u64::MAX] {
            let mut text = String::new();
            number(&mut text, n);
            assert_eq!(text, n.to_string());
        }
    }
}
