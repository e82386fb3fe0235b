//! The log to a syslog server (RFC 5424), from a thread that no line's author waits for.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv6Addr, ToSocketAddrs, UdpSocket};

use log::{Level, Record};
use syslog::{Facility, Formatter5424, LogFormat, LoggerBackend, Severity};

use super::{Lines, Syslog};

pub(super) struct Remote {
    formatter: Formatter5424,
    lines: Lines,
}

impl Remote {
    pub(super) fn new(program: &str, target: &Syslog) -> Self {
        let formatter = Formatter5424 {
            facility: Facility::LOG_DAEMON,
            process: program.to_owned(),
            ..Formatter5424::default()
        };
        Self { formatter, lines: Lines::to(Datagrams { target: target.clone(), to: None }) }
    }

    pub(super) fn send(&self, record: &Record<'_>) {
        self.lines.add(|text| {
            // A line of the queue is one message.
            let message = record.args().to_string().replace('\n', " ");
            let mut bytes = Vec::new();
            // RFC 5424 §6.2.7: the kind of message is the module that writes it.
            let severity = severity(record.level());
            let message = format!("[{}] {message}", record.target());
            if self.formatter.format(&mut bytes, severity, (0, BTreeMap::new(), message)).is_ok() {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        });
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::LOG_ERR,
        Level::Warn => Severity::LOG_WARNING,
        Level::Info => Severity::LOG_INFO,
        Level::Debug | Level::Trace => Severity::LOG_DEBUG,
    }
}

/// Sends each line as a datagram, to a server that may come later or come back.
struct Datagrams {
    target: Syslog,
    to: Option<LoggerBackend>,
}

impl Datagrams {
    fn connect(&self) -> io::Result<LoggerBackend> {
        match &self.target {
            Syslog::Udp(address) => {
                let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
                let any = if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { ANY };
                Ok(LoggerBackend::Udp(UdpSocket::bind((any, 0))?, address))
            }
            #[cfg(unix)]
            Syslog::Unix(path) => {
                let socket = std::os::unix::net::UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(LoggerBackend::Unix(socket))
            }
            #[cfg(not(unix))]
            Syslog::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut to = self.to.take().map_or_else(|| self.connect(), Ok)?;
        to.write_all(message)?;
        self.to = Some(to);
        Ok(())
    }
}

impl Write for Datagrams {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = line.get(..LONGEST).unwrap_or(line);
            // After the server's restart its socket is another one.
            if self.send(line).is_err() {
                let _ = self.send(line);
            }
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const ANY: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
/// What a server should be able to receive (RFC 5424 §6.1).
const LONGEST: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_datagram_of_rfc_5424_with_its_severity() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let remote = Remote::new("2ptth-test", &Syslog::Udp(address));
        let mut buffer = [0; 4096];
        for (level, text, priority) in
            [(Level::Error, "one\ntwo", "<27>1 "), (Level::Warn, "three", "<28>1 ")]
        {
            let mut record = Record::builder();
            remote.send(&record.level(level).target("there").args(format_args!("{text}")).build());
            let (length, _) = server.recv_from(&mut buffer).unwrap();
            let told = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert!(told.starts_with(priority), "{told}");
            let ends = format!(
                " 2ptth-test {} 0 - [there] {}",
                std::process::id(),
                text.replace('\n', " ")
            );
            assert!(told.ends_with(&ends), "{told}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_syslog_server_that_comes_back_is_found_again() {
        use std::os::unix::net::UnixDatagram;

        let path = std::env::temp_dir().join(format!("ptth-syslog-{}", std::process::id()));
        let mut datagrams =
            Datagrams { target: Syslog::Unix(path.to_string_lossy().into_owned()), to: None };
        assert_eq!(datagrams.write(b"lost\n").unwrap(), 5, "without a server, nothing fails");
        for line in ["one", "two"] {
            let server = UnixDatagram::bind(&path).unwrap();
            datagrams.write_all(format!("{line}\n").as_bytes()).unwrap();
            let mut buffer = [0; 16];
            let length = server.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], line.as_bytes());
            std::fs::remove_file(&path).unwrap();
        }
    }
}
