//! System calls for each request, by strace: in a turn of their own, since what is traced is slow.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::load::Load;
use crate::process::{Program, signal, until};
use crate::subject::Subject;
use crate::world::{World, words};
use crate::{Values, Void};

/// A strace that counts what one program and its children do, until it is asked.
struct Trace {
    child: Child,
    summary: std::path::PathBuf,
}

impl Trace {
    fn attach(program: &Program, work: &Path) -> Result<Self, Void> {
        let summary = work.join(format!("calls-{}", program.role));
        let mut command = Command::new("strace");
        command.args(["-q", "-f", "-c", "-o"]).arg(&summary);
        let pids = program.pids();
        pids.iter().for_each(|pid| _ = command.args(["-p", &pid.to_string()]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|err| Void(format!("strace: {err}")))?;
        let mut trace = Self { child, summary };
        let traced = || pids.iter().all(|pid| is_traced(*pid));
        until("strace", || traced() || !trace.runs())?;
        if trace.runs() { Ok(trace) } else { Err(Void("strace may not attach".to_owned())) }
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How many calls there were.
    fn count(mut self) -> Result<u64, Void> {
        signal(self.child.id(), "INT");
        self.child.wait().map_err(|err| Void(format!("strace: {err}")))?;
        total(&fs::read_to_string(&self.summary).unwrap_or_default())
            .ok_or_else(|| Void("strace told no sum".to_owned()))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.runs() {
            signal(self.child.id(), "INT");
            let _ = self.child.wait();
        }
    }
}

/// Whether each of its threads is traced.
fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default()).all(
        |status| {
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            tracer.is_some_and(|tracer| tracer.trim() != "0")
        },
    )
}

/// Of a last line like `100.00    0.001234           5       2345        12 total`.
fn total(summary: &str) -> Option<u64> {
    let line = summary.lines().find(|line| line.ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// The version of a strace that may attach to programs here, or why there are no such figures.
pub(crate) fn strace(program: &Program, work: &Path) -> Result<String, String> {
    let version = words("strace", &["-V"]);
    let version = version.lines().next().filter(|line| !line.is_empty());
    let version = version.ok_or("left out: there is no strace")?.to_owned();
    match Trace::attach(program, work) {
        Ok(_) => Ok(version),
        Err(Void(why)) => Err(format!("left out: {why}")),
    }
}

/// Runs `load` once more, and counts.
pub(crate) fn calls(world: &World, subject: &Subject, load: Load) -> Result<Values, Void> {
    let traces = subject.programs.iter().map(|program| Trace::attach(program, &world.work));
    let traces = traces.collect::<Result<Vec<_>, Void>>()?;
    load.run(world, subject)?;
    let each = traces.into_iter().map(|trace| Ok(trace.count()? as f64 / f64::from(load.requests)));
    let each = each.collect::<Result<Vec<_>, Void>>()?;
    let mut values = Values::from([("calls_request", each.iter().sum())]);
    if each.len() > 1 {
        values.extend(["calls_request_gateway", "calls_request_client"].into_iter().zip(each));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_has_errors_or_none() {
        assert_eq!(total("...\n100.00    0.5   5   2345   12 total\n"), Some(2345));
        assert_eq!(total("100.00    0.5   5   77      total"), Some(77));
        assert_eq!(total("strace: nothing"), None);
    }
}
