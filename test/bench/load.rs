//! Requests by h2load, and what became of them.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::subject::Subject;
use crate::world::World;
use crate::{STUCK, Values, Void, add_cpu};

/// What h2load is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// HTTP/1.1 in place of HTTP/2.
    pub(crate) h1: bool,
    /// Connections.
    pub(crate) connections: u32,
    /// Streams of each.
    pub(crate) streams: u32,
    /// The file.
    pub(crate) path: &'static str,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Requests.
    pub(crate) requests: u32,
}

impl Load {
    fn with(&self, mut command: Command, subject: &Subject) -> Command {
        for (flag, value) in [("-n", self.requests), ("-c", self.connections), ("-m", self.streams)]
        {
            command.args([flag, &value.to_string()]);
        }
        // Windows of 16 MiB and 1 GiB, so that it isn't the visitor who limits a download.
        command.args(["-w", "24", "-W", "30"]);
        if self.h1 {
            command.arg("--h1");
        }
        command.arg(format!("https://{}{}", subject.address, self.path));
        command
    }

    /// Runs it beside whatever is measured, until the child is killed.
    pub(crate) fn beside(&self, subject: &Subject) -> Result<Child, Void> {
        // The program itself: what a wrapper has started outlives it when it is killed.
        let mut command = self.with(Command::new("h2load"), subject);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|err| Void(format!("h2load: {err}")))
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, world: &World, subject: &Subject) -> Result<Values, Void> {
        let log = world.work.join("requests");
        let _ = fs::remove_file(&log);
        // Ended by its time if it hangs, and with it the run is void.
        let mut command = Command::new("timeout");
        command.args([&STUCK.as_secs().to_string(), "h2load"]);
        let mut command = self.with(command, subject);
        command.arg("--log-file").arg(&log);
        let before = subject.cpu();
        let output = command.output().map_err(|err| Void(format!("h2load: {err}")))?;
        let after = subject.cpu();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(TIMED_OUT) {
            return Err(Void(format!("h2load didn't end within {} s", STUCK.as_secs())));
        }
        let count = self.requests;
        let all = format!("{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout");
        if !text.contains(&all) || !text.contains(&format!("status codes: {count} 2xx")) {
            let line = |what| text.lines().find(|line| line.starts_with(what)).unwrap_or("nothing");
            return Err(Void(format!("{}; {}", line("requests:"), line("status codes:"))));
        }
        let rate = rate(&text).ok_or_else(|| Void("h2load told no rate".to_owned()))?;
        let mut values = Values::from([("requests_s", rate)]);
        let (small, per) = if self.size < 1 << 20 {
            (true, count.into())
        } else {
            (false, f64::from(count) * self.size as f64)
        };
        add_cpu(&mut values, &before, &after, if small { "us_request" } else { "ns_byte" }, per);
        values.insert("bytes_s", rate * self.size as f64);
        if small {
            let (p50, p99) = percentiles(times(&fs::read_to_string(&log).unwrap_or_default()));
            values.extend([("p50_us", p50), ("p99_us", p99)]);
        }
        Ok(values)
    }
}

/// What timeout(1) ends with when it ended the other.
const TIMED_OUT: i32 = 124;

/// Of `finished in 1.50s, 39998.21 req/s, 43.26MB/s`.
fn rate(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("finished in"))?;
    line.split(", ").nth(1)?.split(' ').next()?.parse().ok()
}

/// Of lines with begin, status and microseconds.
fn times(log: &str) -> Vec<f64> {
    log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect()
}

/// The 50th and the 99th.
pub(crate) fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    (at(0.5), at(0.99))
}
