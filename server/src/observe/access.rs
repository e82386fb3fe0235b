//! The access log: a line for each exchange when it has ended.
//!
//! Invariant: no exchange waits for the file or the pipe ([`Lines`]), and a query, which may hold secrets, is in no line.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Version};
use ptth_link::lock::Mutex;
use ptth_link::logging::{Format, Line, Lines};
use rustls::ProtocolVersion;

use super::record::Told;
use crate::error::RequestId;

/// What a request says of itself.
#[derive(Debug)]
pub(crate) struct Request {
    id: RequestId,
    visitor: IpAddr,
    method: Method,
    host: String,
    path: String,
    version: Version,
    tls: Option<ProtocolVersion>,
}

impl Request {
    pub(crate) fn new(
        (id, visitor): (RequestId, IpAddr),
        tls: Option<ProtocolVersion>,
        host: Option<&str>,
        head: &Parts,
    ) -> Self {
        let host = host.unwrap_or_default().to_owned();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        Self { id, visitor, method, host, path, version: head.version, tls }
    }
}

#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    lines: Lines,
    format: Format,
    file: Option<(PathBuf, Next)>,
}

/// The file that takes the lines from the next one on.
type Next = Arc<Mutex<Option<File>>>;

impl AccessLog {
    /// To a file, or to stdout for `-`.
    pub(super) fn open(path: Option<&Path>, format: Format) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        if path == Path::new("-") {
            return Ok(Self { lines: Lines::of(io::stdout(), format), format, file: None });
        }
        let file = append(path).map_err(|err| {
            io::Error::other(format!("the access log {} can't be opened: {err}", path.display()))
        })?;
        let next = Next::default();
        let lines = Lines::of(Rotated { file, next: next.clone() }, format);
        Ok(Self { lines, format, file: Some((path.to_owned(), next)) })
    }

    pub(super) fn is_kept(&self) -> bool {
        self.lines.are_kept()
    }

    /// Opens the file again, which may have been renamed; the old one stays where that fails. Blocks.
    pub(crate) fn reopen(&self) -> Result<(), String> {
        let Some((path, next)) = &self.file else { return Ok(()) };
        let file =
            append(path).map_err(|err| format!("{} can't be opened: {err}", path.display()))?;
        *next.lock() = Some(file);
        Ok(())
    }

    /// Waits for what was told, as [`Lines::flush`]. Blocks.
    pub(crate) fn flush(&self) {
        self.lines.flush();
    }

    pub(super) fn tell(&self, request: &Request, told: &Told, whole: Duration) {
        self.lines.add(|text| write(text, self.format, request, told, whole));
    }
}

fn write(text: &mut String, format: Format, request: &Request, told: &Told, whole: Duration) {
    let Request { id, visitor, method, host, path, version, tls } = request;
    let mut line = Line::new(text, format);
    line.word("id", &id.to_string());
    line.word("visitor", &visitor.to_string());
    line.text("method", method.as_str(), LONGEST_METHOD);
    line.text("host", host, LONGEST_HOST);
    line.text("path", path, LONGEST_PATH);
    line.word("http", http(*version));
    if let Some(tls) = tls.and_then(tls_text) {
        line.word("tls", tls);
    }
    if let Some(status) = told.status {
        line.number("status", status.as_u16().into());
    }
    for (name, bytes) in ["bytes_in", "bytes_out"].into_iter().zip(told.bytes) {
        line.number(name, bytes);
    }
    for (name, time) in [("queue_ms", told.queue), ("head_ms", told.head), ("ms", Some(whole))] {
        time.iter().for_each(|time| line.time(name, *time));
    }
    if !told.route.name.is_empty() {
        line.text("route", &told.route.name, usize::MAX);
    }
    if let Some(tunnel) = told.tunnel {
        line.word("tunnel", &tunnel.to_string());
    }
    line.word("end", told.end.name());
    if let Some(failure) = told.failure {
        line.word("code", failure.code());
    }
    line.end();
}

fn http(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn tls_text(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

/// A pipe is opened for reading, too: else this would wait for its reader.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        // It names visitors: not for every user of the machine.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    }
    options.open(path)
}

/// Writes to the file of the last [`AccessLog::reopen`].
struct Rotated {
    file: File,
    next: Next,
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(next) = self.next.lock().take() {
            self.file = next;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl fmt::Debug for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotated")
    }
}

/// Browsers' paths are shorter, but for what is generated. The queue of lines is bounded by their number.
const LONGEST_PATH: usize = 1024;
/// RFC 1035 §2.3.4
const LONGEST_HOST: usize = 255;
const LONGEST_METHOD: usize = 20;
