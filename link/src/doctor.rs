//! What `doctor` of either program finds: a step after the other, each with a verdict and, where one is needed, a remedy.
//!
//! In:  the word `doctor` and what follows it.
//! Out: a line a step as it is taken, or all of them as JSON in the end; and the exit code, 1 if a step failed.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

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

/// What is asked of the doctor.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Asked {
    pub json: bool,
    /// How long a connection is left idle, to see whether it survives.
    pub idle: Option<Duration>,
    /// Those of the program.
    pub arguments: Vec<String>,
}

impl Asked {
    /// Reads the arguments of this process. `None` if they don't ask for the doctor; else what is asked, or the exit
    /// code after a mistake or `about` was printed.
    pub fn read(program: &str, about: &str) -> Option<Result<Self, ExitCode>> {
        let mut arguments = env::args_os().skip(1).map(OsString::into_string);
        arguments.next()?.ok().filter(|word| word == "doctor")?;
        let Ok(arguments) = arguments.collect::<Result<Vec<_>, _>>() else {
            return Some(Err(cli::fail(program, &"an argument isn't UTF-8 text")));
        };
        if arguments.iter().any(|it| ["-h", "--help", "help"].contains(&it.as_str())) {
            return Some(Err(cli::say(&about)));
        }
        Some(Self::of(arguments).map_err(|why| cli::fail(program, &why)))
    }

    fn of(arguments: Vec<String>) -> Result<Self, String> {
        let (mut asked, mut left) = (Self::default(), arguments.into_iter());
        while let Some(argument) = left.next() {
            let time = match argument.split_once('=') {
                _ if argument == "--json" => {
                    asked.json = true;
                    continue;
                }
                _ if argument == "--idle" => left.next().unwrap_or_default(),
                Some(("--idle", time)) => time.to_owned(),
                _ => {
                    asked.arguments.push(argument);
                    continue;
                }
            };
            asked.idle = Some(TIME.parse(&time).map_err(|why| format!("--idle {why}"))?);
        }
        Ok(asked)
    }

    pub fn report(&self) -> Report {
        Report { prints: !self.json, ..Report::default() }
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
