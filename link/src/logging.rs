//! The log, to stderr.
//!
//! Lines about the process and tunnels are written at once; those about a single connection or exchange go through
//! [`Lines`], for which no task waits. Both have the same format.

use std::fmt::Write as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::lines::Lines;

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
