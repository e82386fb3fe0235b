//! The real binaries, as child processes.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::soon;

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
    cargo.args(["build", "--quiet", "-p", "ptth-server", "-p", "ptth-client"]);
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
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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

    /// Everything that it wrote so far: stdout, then stderr.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout.text(), self.stderr.text())
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
        let look = async {
            loop {
                let mut more = std::pin::pin!(self.0.1.notified());
                more.as_mut().enable();
                let found = self.lock().iter().find(|line| line.contains(text)).cloned();
                match found {
                    Some(line) => return line,
                    None => more.await,
                }
            }
        };
        match tokio::time::timeout(crate::DEADLINE, look).await {
            Ok(line) => line,
            Err(_) => panic!("no line with {text:?} in:\n{}", self.text()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.lock().iter().map(|line| format!("{line}\n")).collect()
    }
}
