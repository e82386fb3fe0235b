//! Programs that are measured: started, sampled by way of /proc, and stopped by id.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Void;

/// A program and its children. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Program {
    /// What it is in the tables: `gateway`, `client`.
    pub(crate) role: &'static str,
    child: Child,
}

impl Program {
    /// Starts `command`, whose output goes to nobody but for what it says on stderr.
    pub(crate) fn start(
        role: &'static str,
        mut command: Command,
        work: &Path,
    ) -> Result<Self, Void> {
        let log = OpenOptions::new().create(true).append(true).open(work.join("log"));
        let log = log.map_err(|err| Void(format!("no log: {err}")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|err| Void(format!("{role} doesn't start: {err}")))?;
        let pids = OpenOptions::new().create(true).append(true).open(work.join("pids"));
        if let Ok(mut pids) = pids {
            // For the script, should this process be killed.
            let _ = writeln!(pids, "{}", child.id());
        }
        Ok(Self { role, child })
    }

    /// Its processes: nginx and HAProxy do their work in children.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // After the name, which may contain anything: the state, the parent.
            let rest = stat.rsplit(')').next().unwrap_or_default();
            let parent = rest.split_whitespace().nth(1).and_then(|text| text.parse().ok());
            if parent == Some(self.child.id()) {
                pids.push(pid);
            }
        }
        pids
    }

    /// Nanoseconds that its threads ran so far.
    pub(crate) fn cpu(&self) -> u64 {
        let tasks = self.pids().into_iter().flat_map(|pid| {
            fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten()
        });
        tasks.map(|task| first_number(&task.path().join("schedstat"))).sum()
    }

    /// Bytes of its memory that are resident. Pages that its processes share count once.
    pub(crate) fn resident(&self) -> u64 {
        let kib = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
            let rss = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            let shared = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let pss = shared.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            (rss.unwrap_or(0), pss.unwrap_or(0))
        };
        let pids = self.pids();
        let alone = pids.len() == 1;
        pids.into_iter().map(kib).map(|(rss, pss)| 1024 * if alone { rss } else { pss }).sum()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        let deadline = Instant::now() + PATIENCE;
        while self.runs() && Instant::now() < deadline {
            // Once more: a second one doesn't wait for what still runs.
            signal(self.child.id(), "TERM");
            sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process `name`, like `TERM`.
pub(crate) fn signal(pid: u32, name: &str) {
    let kill = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    drop(kill);
}

fn first_number(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Waits until `ready` says so.
pub(crate) fn until(what: &str, mut ready: impl FnMut() -> bool) -> Result<(), Void> {
    let deadline = Instant::now() + START;
    while !ready() {
        if Instant::now() > deadline {
            return Err(Void(format!("{what}: not within {} s", START.as_secs())));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(10);
