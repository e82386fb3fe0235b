//! Flags, output on the terminal, and exit codes of both programs.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use argh::{ArgsInfo, EarlyExit, FlagInfo, FlagInfoKind, FromArgs};
use strsim::damerau_levenshtein;

use crate::token;

/// Reads the arguments that follow the program's name. `--flag=value` is the same as `--flag value`. The error has the
/// text of `--help`, or the mistake and the flag that may be meant.
pub fn parse<A: FromArgs + ArgsInfo>(
    program: &str,
    arguments: impl IntoIterator<Item = String>,
) -> Result<A, EarlyExit> {
    let info = A::get_args_info();
    let is_switch = |long: &str| {
        info.flags.iter().any(|flag| flag.long == long && flag.kind == FlagInfoKind::Switch)
    };
    let arguments = split_equals(arguments, is_switch);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    A::from_args(&[program], &arguments).map_err(|exit| {
        let output = match exit.status {
            Ok(()) => with_values(&exit.output, info.flags),
            Err(()) => with_nearest(&exit.output, info.flags),
        };
        EarlyExit { output, ..exit }
    })
}

/// The arguments of this process; else its exit code, after the text for it was printed.
pub fn start<A: FromArgs + ArgsInfo>(program: &str) -> Result<A, ExitCode> {
    let text = std::env::args_os().skip(1).map(OsString::into_string);
    let Ok(arguments) = text.collect::<Result<Vec<_>, _>>() else {
        return Err(fail(program, &"an argument isn't UTF-8 text"));
    };
    read(program, arguments)
}

/// The same, of these arguments.
pub fn read<A: FromArgs + ArgsInfo>(program: &str, arguments: Vec<String>) -> Result<A, ExitCode> {
    parse(program, arguments).map_err(|exit| match exit.status {
        Ok(()) => say(&exit.output),
        Err(()) => fail(program, &exit.output),
    })
}

/// Takes `--flag=value` apart, which argh knows as two arguments only; up to a `--`. A switch takes no
/// value: `--insecure=false` stays in one piece, for argh to refuse.
fn split_equals(
    arguments: impl IntoIterator<Item = String>,
    is_switch: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut ended = false;
    let split = arguments.into_iter().flat_map(|argument| {
        ended |= argument == "--";
        match argument.split_once('=') {
            Some((flag, value)) if !ended && flag.starts_with("--") && !is_switch(flag) => {
                vec![flag.to_owned(), value.to_owned()]
            }
            _ => vec![argument],
        }
    });
    split.collect()
}

/// The text of `--help`, with the argument of each option behind it.
fn with_values(help: &str, flags: &[FlagInfo<'_>]) -> String {
    let with_value = |line: &str| {
        let line = line.strip_prefix("  ")?;
        let (long, description) = line.split_once(' ').unwrap_or((line, ""));
        let flag = flags.iter().find(|flag| flag.long == long)?;
        let FlagInfoKind::Option { arg_name } = flag.kind else { return None };
        let option = format!("  {long} {}", arg_name.to_uppercase());
        // The description keeps its column, or goes to a line of its own.
        let gap = match COLUMN.checked_sub(option.len()) {
            Some(left) if left >= 2 => " ".repeat(left),
            _ => format!("\n{}", " ".repeat(COLUMN)),
        };
        Some(format!("{option}{gap}{}", description.trim_start()).trim_end().to_owned())
    };
    let lines = help.lines().map(|line| with_value(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The error, with the flag that is nearest to an unknown one.
fn with_nearest(what: &str, flags: &[FlagInfo<'_>]) -> String {
    let what = what.trim_end();
    let Some(unknown) = what.strip_prefix("Unrecognized argument: ") else {
        return what.to_owned();
    };
    if !unknown.starts_with('-') {
        return format!("Unrecognized argument: {}; see --help", quotable(unknown));
    }
    let distance = |flag: &&str| damerau_levenshtein(unknown, flag);
    let flags = flags.iter().map(|flag| flag.long);
    match flags.min_by_key(distance).filter(|flag| distance(flag) <= 1 + flag.len() / 4) {
        Some(flag) => format!("{what}; did you mean {flag}?"),
        None => format!("{what}; see --help"),
    }
}

/// What a message may quote of an argument: neither a password nor a token put there by mistake.
pub fn quotable(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None if token::begins_like_one(text) => "2ptth_…".to_owned(),
        None => text.to_owned(),
    }
}

/// Where argh's descriptions begin.
const COLUMN: usize = 20;

pub fn say(text: &dyn Display) -> ExitCode {
    // A closed stdout has no reader.
    let _ = writeln!(io::stdout(), "{}", text.to_string().trim_end());
    ExitCode::SUCCESS
}

pub fn fail(program: &str, why: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "{program}: {}", why.to_string().trim_end());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program.
    #[derive(ArgsInfo, Debug, FromArgs)]
    struct Args {
        /// one that takes a file
        #[argh(option, arg_name = "file")]
        config: Option<String>,
        /// one whose name is long
        #[argh(option, arg_name = "n")]
        how_many_of_them_there_are: Option<u32>,
        /// one that takes nothing
        #[argh(switch)]
        insecure: bool,
    }

    fn said(arguments: &[&str]) -> String {
        let arguments = arguments.iter().map(|it| (*it).to_owned());
        parse::<Args>("it", arguments).expect_err("a text").output
    }

    #[test]
    fn help_says_what_a_flag_takes() {
        let help = said(&["--help"]);
        for line in [
            "  --config FILE     one that takes a file",
            "  --how-many-of-them-there-are N",
            "                    one whose name is long",
            "  --insecure        one that takes nothing",
        ] {
            assert!(help.lines().any(|it| it == line), "{line:?} isn't in:\n{help}");
        }
    }

    #[test]
    fn a_flag_that_there_is_not_is_told_with_the_nearest() {
        for (given, expected) in [
            ("--confg", "did you mean --config?"),
            ("--insecrue", "did you mean --insecure?"),
            ("--Config", "did you mean --config?"),
            ("--x", "see --help"),
        ] {
            let said = said(&[given]);
            assert_eq!(said, format!("Unrecognized argument: {given}; {expected}"));
        }
        assert_eq!(said(&["x"]), "Unrecognized argument: x; see --help");
        for (surplus, secret) in [("2ptth_secret", "secret"), ("http://u:p@x", "u:p")] {
            assert!(!said(&[surplus]).contains(secret));
        }
        let args: Args = parse("it", ["--config=x".to_owned(), "--insecure".to_owned()]).unwrap();
        assert!(args.insecure && args.config.as_deref() == Some("x"));
        assert_eq!(args.how_many_of_them_there_are, None);
    }

    #[test]
    fn flags_with_equals_signs_are_two_arguments() {
        let table: [(&[&str], &[&str]); 5] = [
            (&["--log=debug", "a=b"], &["--log", "debug", "a=b"]),
            (&["--key", "a=b"], &["--key", "a=b"]),
            (&["--key=a=b", "--open"], &["--key", "a=b", "--open"]),
            (&["--", "--log=debug"], &["--", "--log=debug"]),
            (&["--insecure=false"], &["--insecure=false"]),
        ];
        for (given, expected) in table {
            let given = given.iter().map(|text| text.to_string());
            assert_eq!(split_equals(given, |flag| flag == "--insecure"), expected);
        }
    }
}
