//! A bounded queue of lines to a thread that writes them.
//!
//! Invariant: no task waits for a terminal, a pipe or a disk. Lines without room are dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::line::{Format, Line, clock};

/// Takes the lines. Cheap to clone; the default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Lines(Option<(SyncSender<Item>, Arc<AtomicU64>)>);

#[derive(Debug)]
enum Item {
    Line(String),
    /// Is dropped when all before it is written.
    Mark(#[allow(dead_code, reason = "held for its drop")] SyncSender<()>),
}

impl Lines {
    /// Whether they are kept at all.
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes to `out`, from a thread that ends with the last clone of it.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self::of(out, Format::Text)
    }

    /// The same; what it says of lines that were dropped has this format.
    pub fn of(out: impl Write + Send + 'static, format: Format) -> Self {
        let (lines, receiver) = sync_channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let lost = dropped.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the last clone; an exit waits for no terminal longer than flush"
        )]
        thread::spawn(move || write(&receiver, out, (&lost, format)));
        Self(Some((lines, dropped)))
    }

    /// Adds a line, with date and time in front, if there is room for it. `line` appends it.
    // Not by `Display`: the formatter costs a line of ten parts 3,000 instructions.
    pub fn note(&self, line: impl FnOnce(&mut String)) {
        self.add(|text| {
            clock(text);
            text.push(' ');
            line(text);
        });
    }

    /// The same without date and time.
    pub fn add(&self, line: impl FnOnce(&mut String)) {
        let Some((lines, dropped)) = &self.0 else { return };
        // Growing it would be five allocations.
        let mut text = String::with_capacity(LINE);
        line(&mut text);
        text.push('\n');
        if lines.try_send(Item::Line(text)).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the lines so far are written, a second at most. Blocks.
    pub fn flush(&self) {
        let Some((lines, _)) = &self.0 else { return };
        let (mark, written) = sync_channel(0);
        if lines.try_send(Item::Mark(mark)).is_ok() {
            let _ = written.recv_timeout(LAST);
        }
    }
}

/// Each line goes out at once, unless so many come that a wake-up and a system call for each would cost more
/// than the rest of an exchange's line; then those of a [`PAUSE`] go together.
fn write(lines: &Receiver<Item>, mut out: impl Write, (dropped, format): (&AtomicU64, Format)) {
    let (mut since, mut written) = (Instant::now(), 0);
    while let Ok(first) = lines.recv() {
        if since.elapsed() > PAUSE {
            (since, written) = (Instant::now(), 0);
        }
        let (mut text, mut marks) = (String::new(), Vec::new());
        for item in [first].into_iter().chain(lines.try_iter().take(QUEUE)) {
            written += 1;
            match item {
                Item::Line(line) if text.is_empty() => text = line,
                Item::Line(line) => text.push_str(&line),
                Item::Mark(mark) => marks.push(mark),
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            match format {
                Format::Text => {
                    text.push_str(&format!("({lost} lines more than could be written)"));
                }
                Format::Json => {
                    let mut line = Line::new(&mut text, format);
                    line.number("lines_dropped", lost);
                    line.end();
                }
            }
            text.push('\n');
        }
        // A closed terminal is no reason to stop serving.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
        drop(marks);
        if written > MANY {
            thread::sleep(PAUSE);
        }
    }
}

/// Most lines are shorter.
const LINE: usize = 160;
/// The lines of a [`PAUSE`] at 100,000 exchanges a second.
const QUEUE: usize = 2048;
/// How long an end waits for a terminal.
const LAST: Duration = Duration::from_secs(1);
/// Too short to notice.
const PAUSE: Duration = Duration::from_millis(20);
/// More lines within a pause can't be read as they come.
const MANY: usize = 64;

#[cfg(test)]
mod tests {
    use std::io;
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
            lines.note(|text| crate::logging::number(text, n));
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
    fn what_was_noted_is_written_before_an_end() {
        let (sender, written) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let lines = Lines::to(Pipe(sender, wait));
        lines.note(|text| text.push_str("last"));
        thread::scope(|scope| {
            let flushing = scope.spawn(|| lines.flush());
            let _ = go.send(());
            assert!(flushing.join().is_ok());
        });
        assert!(written.try_recv().unwrap().ends_with(" last\n"));
        // One that stands still is given up.
        lines.note(|text| text.push_str("never"));
        let begun = Instant::now();
        lines.flush();
        assert!(written.try_recv().is_err() && begun.elapsed() >= LAST);
    }
}
