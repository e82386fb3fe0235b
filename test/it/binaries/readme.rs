//! The README against `--help`: a fact that stands in two places is compared.

use std::collections::BTreeSet;

use ptth_test::process::run;

use super::{CLIENT, GATEWAY};

/// Flags and variables, as somebody documents them.
#[derive(Debug, Default, Eq, PartialEq)]
struct Documented {
    flags: BTreeSet<String>,
    variables: BTreeSet<String>,
}

fn is_variable(word: &str) -> bool {
    word.len() > 1
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Of `--help`: flags begin lines, variables stand in parentheses.
fn documented_by_help(text: &str) -> Documented {
    let mut documented = Documented::default();
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '%'))
            .map(str::to_owned)
            .collect()
    };
    for line in text.lines() {
        let starts = line.split_whitespace().take(2).map(|word| word.trim_end_matches(','));
        let flags = starts.filter(|word| word.starts_with("--")).map(str::to_owned);
        if line.starts_with("  -") {
            documented.flags.extend(flags);
        }
    }
    for part in text.split('(').skip(1) {
        let inside = part.split(')').next().unwrap_or_default();
        documented.variables.extend(words(inside).into_iter().filter(|word| is_variable(word)));
    }
    documented
}

/// Of the README, below the program's heading: the rows of its table, and what else is quoted there.
fn documented_by_readme(text: &str, program: &str) -> Documented {
    let mut documented = Documented::default();
    let heading = format!("### {program}");
    let section = text.lines().skip_while(|line| *line != heading).skip(1);
    for line in section.take_while(|line| !line.starts_with('#')) {
        let quoted = line.split('`').skip(1).step_by(2);
        for (n, quoted) in quoted.enumerate() {
            let word = quoted.split(' ').next().unwrap_or_default();
            if line.starts_with("| `") && n == 0 && word.starts_with("--") {
                documented.flags.insert(word.to_owned());
            } else if is_variable(word) {
                documented.variables.insert(word.to_owned());
            }
        }
    }
    documented
}

#[tokio::test]
async fn the_readme_and_the_help_tell_of_the_same_flags_and_variables() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    for (program, table) in [("2ptth-server", GATEWAY), ("2ptth-client", CLIENT)] {
        for flag in ["--help", "-h"] {
            let help = run(program, &[flag], &[]).await;
            assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
            let help = documented_by_help(&help.stdout);
            assert_eq!(help, documented_by_readme(&readme, program), "help, then README");
            // And those that this file looks at are among them.
            for (flag, variable, ..) in table {
                assert!(help.flags.contains(*flag) && help.variables.contains(*variable), "{flag}");
            }
        }
        let version = run(program, &["--version"], &[]).await;
        let expected = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((version.code, version.stdout), (Some(0), expected));
    }
}
