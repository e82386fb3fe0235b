//! The man pages and completions that go along with the programs.

use std::path::Path;
use std::process::Command;

use ptth_link::settings::LEVEL;
use ptth_test::Folder;
use ptth_test::manual::{LEVELS, Program, client, server};

fn all() -> [(Program, &'static [ptth_link::settings::Setting]); 2] {
    [
        (server(), ptth_server::config::Args::SETTINGS),
        (client(), ptth_client::config::Args::SETTINGS),
    ]
}

/// What a shell or a formatter says to a file; `None` where this machine hasn't got it.
fn said(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn every_setting_is_in_the_man_page_and_every_flag_in_each_completion() {
    for (program, settings) in all() {
        let [(_, page), (_, bash), (_, zsh), (_, fish)] = program.files();
        for setting in settings {
            assert!(page.contains(&format!("\\fB{}\\fR", setting.variable)), "{}", setting.name);
            let flag = format!("--{}", setting.dashed());
            if !page.contains(&format!("\\fB{}\\fR", flag.replace('-', "\\-"))) {
                continue;
            }
            assert!(bash.contains(&flag) && zsh.contains(&flag), "{flag}");
            assert!(fish.contains(&format!(" -l {}", setting.dashed())), "{flag}");
        }
    }
    let level = |text: &&str| (LEVEL.1)(text).is_ok();
    assert!(LEVELS.iter().all(level) && LEVELS.len() == 6);
}

#[test]
fn shells_and_formatters_take_what_is_generated() {
    let folder = Folder::new();
    for (program, _) in all() {
        for (name, text) in program.files() {
            let path = folder.write(&name, text).display().to_string();
            let ending = Path::new(&name).extension().and_then(|it| it.to_str());
            let checked = match ending {
                Some("bash") => said("bash", &["-n", &path]),
                Some("fish") => said("fish", &["--no-execute", &path]),
                Some("1") => said("mandoc", &["-Tlint", "-Werror", &path]),
                _ => said("zsh", &["-n", &path]),
            };
            let wrong = checked.filter(|(fine, text)| !fine || !text.is_empty());
            assert!(wrong.is_none(), "{name}: {wrong:?}");
        }
    }
}

/// As bash calls it, with the words of a line that ends where the cursor is.
#[test]
fn bash_completes_flags_levels_files_and_commands() {
    let folder = Folder::new();
    folder.write("only.toml", "");
    let [_, (name, text), ..] = client().files();
    let file = folder.write(&name, text).display().to_string();
    let config = folder.path("on").display().to_string();
    let whole = folder.path("only.toml").display().to_string();
    for (words, expected) in [
        ("--tok", "--token-file"),
        ("--log de", "debug"),
        ("--log = de", "debug"),
        ("--log =", "off error warn info debug trace"),
        (&format!("--config {config}"), &whole),
        ("ser", "service"),
        ("service pr", "print"),
        ("--via x", ""),
        ("example.com 80", ""),
    ] {
        let script = format!(
            "compopt() {{ :; }}; . {file}; COMP_WORDS=(2ptth-client {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _2ptth_client; echo \"${{COMPREPLY[*]}}\""
        );
        let Some((fine, text)) = said("bash", &["-c", &script]) else { return };
        assert!(fine && text.trim_end() == expected, "{words}: {text}");
    }
}
