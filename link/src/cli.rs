//! What both programs say on the terminal, and the exit code that goes with it.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Says what was asked for, on stdout.
pub fn say(text: &dyn Display) -> ExitCode {
    // Whoever closed our stdout doesn't want to read it.
    let _ = writeln!(io::stdout(), "{}", text.to_string().trim_end());
    ExitCode::SUCCESS
}

/// Says what is wrong, on stderr, with the program's name in front.
pub fn fail(program: &str, why: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "{program}: {}", why.to_string().trim_end());
    ExitCode::FAILURE
}
