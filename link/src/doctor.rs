//! What `doctor` of either program finds: a step after the other, each with a verdict and, where one is needed, a remedy.
//!
//! In:  the word `doctor` and what follows it.
//! Out: a line a step as it is taken, or all of them as JSON in the end; and the exit code, 1 if a step failed.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use serde_json::json;
use tokio::runtime::Builder;

use crate::cli;
use crate::settings::TIME;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Ok,
    /// It works, and may not for long or for all.
    Warn,
    Fail,
    /// It can't be tried, or need not be.
    Skip,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Step {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What to do about it; empty where nothing is to be done.
    pub remedy: String,
}

/// The steps so far.
#[derive(Debug, Default)]
pub struct Report {
    pub steps: Vec<Step>,
    /// Whether each step is printed as it comes.
    prints: bool,
}

impl Report {
    pub fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.note(name, Verdict::Ok, found, "");
    }

    pub fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.note(name, Verdict::Skip, why, "");
    }

    pub fn warn(
        &mut self,
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.note(name, Verdict::Warn, found, remedy);
    }

    pub fn fail(
        &mut self,
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.note(name, Verdict::Fail, found, remedy);
    }

    pub fn note(
        &mut self,
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let step = Step { name, verdict, found: found.into(), remedy: remedy.into() };
        if self.prints {
            cli::say(&line(&step));
        }
        self.steps.push(step);
    }

    pub fn has_failed(&self) -> bool {
        self.steps.iter().any(|step| step.verdict == Verdict::Fail)
    }

    /// Prints what wasn't printed yet.
    pub fn end(self) -> ExitCode {
        if !self.prints {
            let rows = self.steps.iter().map(|Step { name, verdict, found, remedy }| {
                let verdict = verdict.word();
                json!({ "step": name, "verdict": verdict, "found": found, "remedy": remedy })
            });
            cli::say(&format!("{:#}", rows.collect::<serde_json::Value>()));
        }
        if self.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// A step for people: the remedy is on a row of its own.
fn line(Step { name, verdict, found, remedy }: &Step) -> String {
    let arrow = if remedy.is_empty() { String::new() } else { format!("\n{:18}-> {remedy}", "") };
    format!("{:<5} {name:<11} {found}{arrow}", verdict.word())
        .lines()
        .map(printable)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Peers choose some of the words, and a terminal obeys what comes after ESC.
fn printable(line: &str) -> String {
    let quotes = |c: char| matches!(c, '"' | '\'' | '\\');
    let char = |c: char| if quotes(c) { c.to_string() } else { c.escape_debug().to_string() };
    line.chars().map(char).collect()
}

/// Runs `examine` if the arguments of this process begin with the word `doctor`, with those of the program, and with how
/// long a connection is to be left idle. Its error is a mistake in the settings.
pub fn command<A: ArgsInfo + FromArgs>(
    program: &str,
    about: &str,
    examine: impl AsyncFnOnce(A, Option<Duration>, &mut Report) -> Result<(), String>,
) -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    arguments.next().filter(|word| word == "doctor")?;
    let Ok(arguments) = arguments.map(OsString::into_string).collect::<Result<Vec<_>, _>>() else {
        return Some(cli::fail(program, &"an argument isn't UTF-8 text"));
    };
    if arguments.iter().any(|it| ["-h", "--help", "help"].contains(&it.as_str())) {
        return Some(cli::say(&about));
    }
    let asked = Asked::of(arguments).map_err(|why| cli::fail(program, &why));
    let ended = asked.and_then(|Asked { json, idle, arguments }| {
        let args = cli::read::<A>(program, arguments)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| cli::fail(program, &why))?;
        let mut report = Report { prints: !json, ..Report::default() };
        if let Err(mistakes) = runtime.block_on(examine(args, idle, &mut report)) {
            report.fail("settings", mistakes, "correct the settings");
        }
        runtime.shutdown_background();
        Ok(report.end())
    });
    Some(ended.unwrap_or_else(|code| code))
}

/// The doctor's own arguments, and those of the program.
#[derive(Debug, Default)]
struct Asked {
    json: bool,
    idle: Option<Duration>,
    arguments: Vec<String>,
}

impl Asked {
    fn of(arguments: Vec<String>) -> Result<Self, String> {
        let (mut asked, mut left) = (Self::default(), arguments.into_iter());
        while let Some(argument) = left.next() {
            let time = match argument.split_once('=') {
                None if argument == "--idle" => left.next().unwrap_or_default(),
                Some(("--idle", time)) => time.to_owned(),
                None if argument == "--json" => {
                    asked.json = true;
                    continue;
                }
                _ => {
                    asked.arguments.push(argument);
                    continue;
                }
            };
            asked.idle = Some(TIME.parse(&time).map_err(|why| format!("--idle {why}"))?);
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Asked, String> {
        Asked::of(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn the_doctor_takes_its_own_flags_and_leaves_the_programs() {
        let asked = of("--json example.com --pin x --idle 90s 8080").unwrap();
        assert!(asked.json && asked.idle == Some(Duration::from_secs(90)));
        assert_eq!(asked.arguments, ["example.com", "--pin", "x", "8080"]);
        assert_eq!(of("--idle=2m").unwrap().idle, Some(Duration::from_secs(120)));
        for wrong in ["--idle", "--idle x", "--idle="] {
            assert!(of(wrong).unwrap_err().starts_with("--idle "), "{wrong}");
        }
    }

    #[test]
    fn a_step_is_a_line_and_its_remedy_another_one() {
        let mut report = Report::default();
        report.ok("tcp", "192.0.2.1:443 answers");
        assert!(!report.has_failed());
        report.fail("token", "it says \"no\u{1b}[2J\"", "ask");
        let lines: Vec<_> = report.steps.iter().map(line).collect();
        assert_eq!(lines[0], "OK    tcp         192.0.2.1:443 answers");
        let second = "FAIL  token       it says \"no\\u{1b}[2J\"\n                  -> ask";
        assert_eq!(lines[1], second);
        assert!(report.has_failed());
    }
}
