//! The real binaries, as child processes.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ptth_link::crypto;
use ptth_link::token::Token;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::{Certificate, Folder, soon};

/// The path of one of our binaries, built if need be.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let mut folder = std::env::current_exe().expect("a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    // Always, and not only where it is missing: an old one would be tested in place of this one.
    BUILT.get_or_init(|| build(&folder));
    let path = folder.join(name);
    assert!(path.exists(), "{} was built", path.display());
    path
}

fn build(folder: &std::path::Path) {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    // Without `-p`: with the features that demo and manual are built with, too.
    cargo.args(["build", "--quiet", "--bin", "2ptth-server", "--bin", "2ptth-client"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let target = folder.parent().expect("the target folder");
    cargo.env("CARGO_TARGET_DIR", target);
    assert!(cargo.status().expect("cargo runs").success(), "the binaries build");
}

/// A running program whose output is kept. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    #[allow(dead_code, reason = "held for its drop")]
    reading: JoinSet<()>,
}

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Process {
    /// Starts one of our binaries with these arguments and, of the environment, these variables only.
    pub fn start<A: AsRef<OsStr>>(name: &str, arguments: &[A], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary(name));
        command.args(arguments).env_clear().envs(variables.iter().copied());
        Self::spawn(command)
    }

    /// Starts `command`.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::adopt(command)
    }

    /// The same, with the stdin that it has.
    pub fn adopt(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let mut reading = JoinSet::new();
        reading.spawn(stdout.clone().gather(child.stdout.take().expect("a pipe")));
        reading.spawn(stderr.clone().gather(child.stderr.take().expect("a pipe")));
        Self { child, stdout, stderr, reading }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Waits for a line on stdout that contains `text`.
    pub async fn says(&self, text: &str) -> String {
        self.stdout.find(text).await
    }

    /// Waits for a line on stderr that contains `text`.
    pub async fn logs(&self, text: &str) -> String {
        self.stderr.find(text).await
    }

    /// Waits until so many lines on stderr contain `text`.
    pub async fn logs_times(&self, text: &str, count: usize) {
        self.stderr.find_times(text, count).await;
    }

    /// Everything that it wrote so far: stdout, then stderr.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
    }

    /// What it wrote to stdout so far.
    pub fn stdout_so_far(&self) -> String {
        self.stdout.text()
    }

    /// Closes the pipes that it writes to.
    pub fn deafen(&mut self) {
        self.reading = JoinSet::new();
    }

    /// Sends a signal: `TERM`, `HUP`, `INT`, `KILL`, `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill")
            .args([format!("-{name}"), self.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success(), "a process that runs takes SIG{name}");
    }

    /// Waits for its end and for the end of its output.
    pub async fn ended(mut self) -> Output {
        let status = soon("the end of a process", self.child.wait()).await;
        let status: ExitStatus = status.expect("its status");
        soon("the end of its output", async { while self.reading.join_next().await.is_some() {} })
            .await;
        Output { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }
}

/// Runs one of our binaries to its end.
pub async fn run<A: AsRef<OsStr>>(
    name: &str,
    arguments: &[A],
    variables: &[(&str, &str)],
) -> Output {
    Process::start(name, arguments, variables).ended().await
}

/// A gateway and what its clients and visitors need to know, as child process.
#[derive(Debug)]
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    arguments: Vec<String>,
    /// What its clients are admitted by.
    pub token: Token,
    certificate: Certificate,
    folder: Folder,
}

impl Gateway {
    /// With a certificate for `example.test` in a file, and a token of its own.
    pub async fn start(flags: &[&str]) -> Self {
        let folder = Folder::new();
        let token = Token::generate();
        let certificate = Certificate::of(&["example.test", "127.0.0.1"]);
        let (cert, key) = certificate.write(&folder);
        let keys = folder.write("tokens", token.public().to_string());
        let mut arguments = vec!["--log".to_owned(), "debug".to_owned()];
        for (flag, path) in [("--cert", cert), ("--key", key), ("--token-file", keys)] {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        let process = Self::begin(&arguments, "127.0.0.1:0");
        let address = address_of(&process).await;
        Self { process, address, arguments, token, certificate, folder }
    }

    fn begin(arguments: &[String], listen: &str) -> Process {
        let listen = ["--listen".to_owned(), listen.to_owned()];
        Process::start("2ptth-server", &[&listen, arguments].concat(), &[])
    }

    /// Puts another certificate in the place of its own, on disk.
    pub fn replace(&self, certificate: &Certificate) {
        certificate.write(&self.folder);
    }

    /// Kills it, and waits until it is gone.
    pub async fn kill(self) -> Killed {
        let Self { process, address, arguments, token, certificate, folder } = self;
        process.kill().await;
        Killed { address, arguments, token, certificate, folder }
    }

    /// A client for it, with these arguments behind its address.
    pub fn client(&self, arguments: &[&str]) -> Process {
        client(self.address, &self.certificate, &self.token, arguments)
    }
}

fn client(
    address: SocketAddr,
    certificate: &Certificate,
    token: &Token,
    arguments: &[&str],
) -> Process {
    let gateway = address.to_string();
    let pin = crypto::pin_text(&certificate.pin());
    let arguments = [&["--pin", &pin, &gateway], arguments].concat();
    Process::start("2ptth-client", &arguments, &[("TOKEN", &token.reveal())])
}

/// A gateway between two lives, as after a power failure.
#[derive(Debug)]
pub struct Killed {
    address: SocketAddr,
    arguments: Vec<String>,
    token: Token,
    certificate: Certificate,
    folder: Folder,
}

impl Killed {
    /// Starts it again, on the same port.
    pub async fn restart(self) -> Gateway {
        let Self { address, arguments, token, certificate, folder } = self;
        let process = Gateway::begin(&arguments, &address.to_string());
        assert_eq!(address_of(&process).await, address);
        Gateway { process, address, arguments, token, certificate, folder }
    }

    /// A client for it, with these arguments behind its address.
    pub fn client(&self, arguments: &[&str]) -> Process {
        client(self.address, &self.certificate, &self.token, arguments)
    }
}

/// The address of a gateway that was told to listen on port 0.
pub async fn address_of(gateway: &Process) -> SocketAddr {
    let line = gateway.says("listening on ").await;
    line.trim_start_matches("listening on ").parse().expect("an address")
}

/// The lines of one pipe, as they come.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<(Mutex<VecDeque<String>>, Notify)>);

impl Lines {
    async fn gather(self, pipe: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(line);
            self.0.1.notify_waiters();
        }
        self.0.1.notify_waiters();
    }

    async fn find(&self, text: &str) -> String {
        self.find_times(text, 1).await
    }

    /// Waits for the line that is the `count`th with `text`.
    async fn find_times(&self, text: &str, count: usize) -> String {
        let look = async {
            loop {
                let mut more = std::pin::pin!(self.0.1.notified());
                more.as_mut().enable();
                let found =
                    self.lock().iter().filter(|line| line.contains(text)).nth(count - 1).cloned();
                match found {
                    Some(line) => return line,
                    None => more.await,
                }
            }
        };
        match tokio::time::timeout(crate::DEADLINE, look).await {
            Ok(line) => line,
            Err(_) => panic!("not {count} lines with {text:?} in:\n{}", self.text()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.lock().iter().map(|line| format!("{line}\n")).collect()
    }
}
