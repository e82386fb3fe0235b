//! `2ptth-client service install|print`: a systemd unit that runs the client for one user.
//!
//! In:  the arguments of the program, and the file of `--config`, which has all settings of the service.
//! Out: the unit, on stdout or in the user's folder of units. No secret is in it: the file names those that hold one.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};

use ptth_link::files;

use crate::config::{Args, Options};

/// What the unit is made for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unit {
    /// Write it where systemd finds it, instead of to stdout.
    pub installs: bool,
    /// The value of `--config`.
    pub config: Option<PathBuf>,
}

impl Unit {
    /// Reads the arguments that follow the program's name. `None`: they mean something else; `install` or `print` can't
    /// be an origin, which needs a port, so a gateway of the name `service` stays possible.
    pub fn asked(arguments: &[String]) -> Option<Result<Self, String>> {
        let [service, what, rest @ ..] = arguments else { return None };
        let installs = match (service.as_str(), what.as_str()) {
            ("service", "install") => true,
            ("service", "print") => false,
            _ => return None,
        };
        let config = match rest {
            [] => None,
            [flag, file] if flag == "--config" => Some(file.into()),
            [flag] if flag.starts_with("--config=") => flag.split_once('=').map(|it| it.1.into()),
            _ => return Some(Err(format!("service {what} takes --config FILE and nothing else"))),
        };
        Some(Ok(Self { installs, config }))
    }

    /// Checks the file as the service will find it, and returns what is to be said on stdout. Blocks.
    pub fn make(&self) -> Result<String, String> {
        let folder = folder()?;
        let config = self.config.clone().unwrap_or_else(|| folder.join("2ptth/client.toml"));
        let config = absolute(&config).map_err(|err| format!("{}: {err}", config.display()))?;
        let words =
            (quoted(&env::current_exe().map_err(|err| err.to_string())?)?, quoted(&config)?);
        // The variables of this shell aren't those of the service.
        let args = Args { config: config.to_str().map(str::to_owned), ..Args::default() };
        Options::from(args, &|_| None).map_err(|err| err.to_string())?;
        let text = UNIT.replace("COMMAND", &format!("{} --config {}", words.0, words.1));
        if !self.installs {
            return Ok(text);
        }
        let path = folder.join("systemd/user").join(NAME);
        write(&path, &text).map_err(|err| format!("{} can't be written: {err}", path.display()))?;
        Ok(format!("wrote {}\nnow: {NEXT}", path.display()))
    }
}

/// The folder of the user's configuration (XDG Base Directory Specification; systemd.unit(5)).
fn folder() -> Result<PathBuf, String> {
    let of = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let found = of("XDG_CONFIG_HOME").or_else(|| of("HOME").map(|home| home.join(".config")));
    found.ok_or_else(|| "HOME isn't set to an absolute path".to_owned())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    files::replace(path, text, false)
}

/// One word of a command line in a unit (systemd.service(5), "Command lines"; `%` as in systemd.unit(5), "Specifiers").
fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| format!("{path:?} can't stand in a unit"))?;
    let escape = |c| match c {
        '"' | '\\' => format!("\\{c}"),
        '%' | '$' => format!("{c}{c}"),
        _ => c.to_string(),
    };
    Ok(format!("\"{}\"", text.chars().map(escape).collect::<String>()))
}

const NAME: &str = "2ptth-client.service";
const NEXT: &str = "systemctl --user daemon-reload && systemctl --user enable --now 2ptth-client
to have it run without a login: loginctl enable-linger";

/// Without what needs a namespace: where users may have none, a unit with PrivateTmp=, ProtectSystem= and the like
/// doesn't start. 77 is the exit code after a refusal of the gateway.
const UNIT: &str = "\
[Unit]
Description=2ptth client
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=COMMAND
Restart=always
RestartSec=1
RestartPreventExitStatus=77
TimeoutStopSec=40
LimitCORE=0
MemoryMax=1G
UMask=0077

NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
";

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Option<Result<Unit, String>> {
        Unit::asked(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_two_words_ask_for_a_unit() {
        for other in
            ["", "service", "service 8080", "service printer:80", "--log debug service print"]
        {
            assert_eq!(asked(other), None, "{other}");
        }
        let unit =
            |installs, config: Option<&str>| Unit { installs, config: config.map(Into::into) };
        assert_eq!(asked("service print"), Some(Ok(unit(false, None))));
        assert_eq!(asked("service install --config a"), Some(Ok(unit(true, Some("a")))));
        assert_eq!(asked("service install --config=a=b"), Some(Ok(unit(true, Some("a=b")))));
        for wrong in ["--config", "8080", "--token-file a", "--config a b"] {
            assert!(asked(&format!("service print {wrong}")).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_unit() {
        let word = |path: &str| quoted(Path::new(path));
        assert_eq!(word("/a b/50%/$x").unwrap(), r#""/a b/50%%/$$x""#);
        assert_eq!(word(r#"/"\"#).unwrap(), r#""/\"\\""#);
        assert!(word("/a\nExecStartPre=b").is_err());
    }
}
