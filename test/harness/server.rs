//! The built gateway as a process of its own, whose memory and descriptors can be watched.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use ptth_client::config as client;
use ptth_link::crypto;
use ptth_link::token::Token;

use crate::process::binary;

/// A running `2ptth-server`. Dropping it ends it.
#[derive(Debug)]
pub struct ServerProcess {
    /// Where it listens.
    pub address: SocketAddr,
    /// What admits a backend.
    pub token: Token,
    pin: [u8; 32],
    child: Child,
}

impl ServerProcess {
    /// Starts it on a port of its own, with a fresh token and these further flags.
    pub fn start(flags: &[&str]) -> Self {
        Self::limited(None, flags)
    }

    /// The same, with so many descriptors at most.
    pub fn limited(descriptors: Option<usize>, flags: &[&str]) -> Self {
        let token = Token::generate();
        let limit = descriptors.map_or(String::new(), |count| format!("ulimit -n {count}; "));
        let child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" \"$@\"")])
            .arg(binary("2ptth-server"))
            .args(["--self-signed", "--listen", "127.0.0.1:0", "--log", "error"])
            .args(flags)
            .env("TOKEN", token.public().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("the gateway starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut value = |before: &str| loop {
            let line = lines.next().expect("a greeting").expect("text");
            if let Some(value) = line.strip_prefix(before) {
                return value.to_owned();
            }
        };
        let address = value("listening on ").parse().expect("an address");
        let pin = crypto::parse_pin(&value("certificate pin ")).expect("a pin");
        Self { address, token, pin, child }
    }

    /// What a client needs to know to hold tunnels to it.
    pub fn client_config(&self) -> client::Config {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let mut config = client::Config::new(client::Gateway { host, port });
        config.trust = client::Trust::Pin(self.pin);
        config.token = Some(self.token.clone());
        config
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        kib.expect("a number") * 1024
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        open.expect("it lives").count()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
