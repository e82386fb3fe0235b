//! The log, to stderr, and to a syslog server.
//!
//! Lines about the process and tunnels are written at once; those about a single connection or exchange go through
//! [`Lines`], for which no task waits. Both have the same format: a line begins with `2026-01-31T12:34:56.789Z`, or it is
//! a JSON object. Where stderr is the journal's, a line's priority stands in front of it (sd-daemon(3)).

mod line;
mod lines;
#[cfg(all(unix, feature = "syslog"))]
mod syslog;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::settings::{LEVEL, Parser, Sources};

pub use line::{FORMAT, Format, Line, date_time, first, millis, number};
pub use lines::Lines;

/// What the operator says of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    pub level: LevelFilter,
    pub format: Format,
    pub syslog: Option<Syslog>,
}

impl Settings {
    /// Of the settings `log`, `log_format` and `syslog`, which the program declares.
    pub fn read(sources: &Sources<'_>) -> Self {
        let default = Self::default();
        Self {
            level: sources.value("log", &LEVEL).unwrap_or(default.level),
            format: sources.value("log_format", &FORMAT).unwrap_or(default.format),
            syslog: sources.value("syslog", &SYSLOG),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: LevelFilter::Info, format: Format::Text, syslog: None }
    }
}

/// Where a syslog server takes messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Syslog {
    /// By UDP (RFC 5426).
    Udp(String),
    /// A socket in the file system, like /dev/log.
    Unix(String),
}

pub const SYSLOG: Parser<Syslog> = Parser("a host and port for UDP, or `unix:/path`", |text| {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') { Ok(Syslog::Unix(path.to_owned())) } else { Err(None) };
    }
    if cfg!(not(all(unix, feature = "syslog"))) {
        return Err(Some("can't be used: this program was built without syslog".to_owned()));
    }
    let (host, port) = text.rsplit_once(':').ok_or(None)?;
    let fits = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    fits.then(|| Syslog::Udp(text.to_owned())).ok_or(None)
});

/// To be called once, by a binary, with its name.
pub fn start(program: &str, settings: &Settings) {
    let Settings { level, format, .. } = *settings;
    let logger = SimpleLogger::new().with_level(level).with_utc_timestamps();
    log::set_max_level(logger.max_level());
    let details =
        if level >= Level::Debug { Lines::of(io::stderr(), format) } else { Lines::default() };
    #[cfg(all(unix, feature = "syslog"))]
    let remote = settings.syslog.as_ref().map(|target| syslog::Remote::new(program, target));
    #[cfg(not(all(unix, feature = "syslog")))]
    let _ = program;
    let journal = is_journal();
    let logger = Logger {
        logger,
        format,
        journal,
        details,
        #[cfg(all(unix, feature = "syslog"))]
        remote,
    };
    // Fails only if there is a logger already, which stays.
    let _ = log::set_boxed_logger(Box::new(logger));
}

struct Logger {
    logger: SimpleLogger,
    format: Format,
    journal: bool,
    details: Lines,
    #[cfg(all(unix, feature = "syslog"))]
    remote: Option<syslog::Remote>,
}

impl Logger {
    /// The line without date and time, or as an object with them.
    fn append(&self, text: &mut String, record: &Record<'_>) {
        if self.journal {
            text.extend(["<", priority(record.level()), ">"]);
        }
        match self.format {
            Format::Text => {
                line::clock(text);
                // A String takes all that is written.
                let _ =
                    write!(text, " {:5} [{}] {}", record.level(), record.target(), record.args());
                text.truncate(text.trim_end().len());
            }
            Format::Json => {
                let mut line = Line::new(text, Format::Json);
                line.word("level", record.level().as_str());
                line.word("target", record.target());
                line.text("message", &record.args().to_string(), usize::MAX);
                line.end();
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        #[cfg(all(unix, feature = "syslog"))]
        self.remote.iter().for_each(|remote| remote.send(record));
        if record.level() >= Level::Debug {
            self.details.add(|text| self.append(text, record));
        } else if self.journal || self.format == Format::Json {
            let mut text = String::new();
            self.append(&mut text, record);
            text.push('\n');
            // A closed terminal is no reason to stop serving.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        } else {
            // simple_logger panics when stderr is gone, which isn't one either.
            let _ = catch_unwind(AssertUnwindSafe(|| self.logger.log(record)));
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// As syslog counts (RFC 5424 §6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    }
}

/// Whether systemd says that stderr leads to its journal (systemd.exec(5), JOURNAL_STREAM), and it still does.
#[cfg(unix)]
fn is_journal() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let said = std::env::var("JOURNAL_STREAM");
    let file = io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let here = file.and_then(|file| file.metadata());
    let here = here.map(|here| format!("{}:{}", here.dev(), here.ino()));
    said.is_ok_and(|said| here.is_ok_and(|here| here == said))
}

#[cfg(not(unix))]
fn is_journal() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syslog_server_has_a_port_or_a_path() {
        for (text, expected) in [
            ("unix:/dev/log", Some(Syslog::Unix("/dev/log".to_owned()))),
            ("127.0.0.1:514", Some(Syslog::Udp("127.0.0.1:514".to_owned()))),
            ("[::1]:514", Some(Syslog::Udp("[::1]:514".to_owned()))),
            ("logs.example:514", Some(Syslog::Udp("logs.example:514".to_owned()))),
            ("logs.example", None),
            (":514", None),
            ("logs.example:0", None),
            ("unix:log", None),
        ] {
            assert_eq!(SYSLOG.parse(text).ok(), expected, "{text}");
        }
    }
}
