//! The log: to stderr, for the life of the process and of tunnels.

use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// Starts logging at `level`. To be called once, by a binary.
pub fn start(level: LevelFilter) {
    let logger = SimpleLogger::new().with_level(level).with_utc_timestamps();
    log::set_max_level(logger.max_level());
    // Fails only if somebody logs already; then that goes on.
    let _ = log::set_boxed_logger(Box::new(Steady(logger)));
}

/// simple_logger panics when stderr is gone, which is no reason to stop serving.
struct Steady(SimpleLogger);

impl Log for Steady {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
    }

    fn flush(&self) {
        self.0.flush();
    }
}
