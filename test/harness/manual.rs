//! Man pages, and completions for bash, zsh and fish, from the declarations of the settings.
//!
//! In:  what argh knows of the flags of a program, and the [`Setting`]s.
//! Out: the text of each file. Nothing but the words in [`server`] and [`client`] is said a second time here.

use argh::{ArgsInfo, FlagInfo, FlagInfoKind, Optionality};
use ptth_link::settings::{Mark, Setting};

/// What is known of a program.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    synopsis: &'static str,
    about: String,
    notes: Vec<String>,
    options: Vec<Choice>,
    arguments: Option<Choice>,
    /// Words in the place of the first argument, which make it do something else, and what.
    commands: &'static [(&'static str, &'static str)],
    settings: &'static [Setting],
    exits: &'static [(&'static str, &'static str)],
}

/// A flag or an argument.
#[derive(Debug)]
struct Choice {
    /// With its dashes.
    word: String,
    about: String,
    /// What follows a flag, but not a switch: `file`.
    value: Option<String>,
    repeats: bool,
}

/// The gateway.
pub fn server() -> Program {
    Program {
        name: "2ptth-server",
        synopsis: "[options]",
        commands: &[READY, STATUS, DOCTOR],
        exits: &[
            ("0", "it was told to stop, and has"),
            ("1", "it can't start; a sentence on stderr says why"),
        ],
        ..declared::<ptth_server::config::Args>(ptth_server::config::Args::SETTINGS)
    }
}

/// Both ask the running program at its --admin address.
const READY: (&str, &str) =
    ("ready", "exit with 0 if the program that answers at --admin is ready");
const STATUS: (&str, &str) = ("status", "print what the program that answers at --admin does");

/// It takes the program's own arguments, too.
const DOCTOR: (&str, &str) =
    ("doctor", "say what doesn't work, and what to do about it; with --json as an array");

/// The client.
pub fn client() -> Program {
    Program {
        name: "2ptth-client",
        synopsis: "[options] gateway[:port] [origin]",
        commands: &[
            READY,
            STATUS,
            DOCTOR,
            (
                "service print",
                "write a systemd user unit that runs the client with the file of --config to stdout",
            ),
            ("service install", "write that unit to the place where systemd finds it"),
        ],
        exits: &[
            ("0", "it was told to stop, and has"),
            ("1", "it can't start or go on; a sentence on stderr says why"),
            ("77", "the gateway refused it, and would again: a supervisor shouldn't start it anew"),
        ],
        ..declared::<ptth_client::config::Args>(ptth_client::config::Args::SETTINGS)
    }
}

fn declared<A: ArgsInfo>(settings: &'static [Setting]) -> Program {
    let info = A::get_args_info();
    let choice = |flag: &FlagInfo<'_>| Choice {
        word: flag.long.to_owned(),
        about: one_line(flag.description),
        value: match flag.kind {
            FlagInfoKind::Switch => None,
            FlagInfoKind::Option { arg_name } => Some(arg_name.to_owned()),
        },
        repeats: flag.optionality == Optionality::Repeating,
    };
    let argument = info.positionals.first().map(|argument| Choice {
        word: argument.name.to_owned(),
        about: one_line(argument.description),
        value: None,
        repeats: true,
    });
    Program {
        name: "",
        synopsis: "",
        about: one_line(info.description),
        notes: info.notes.iter().map(|note| one_line(note)).collect(),
        options: info.flags.iter().filter(|flag| !flag.hidden).map(choice).collect(),
        arguments: argument,
        commands: &[],
        settings,
        exits: &[],
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Choice {
    /// The description without the variable and the default, for a narrow list.
    fn short(&self) -> &str {
        let about = self.about.as_str();
        let ends = about.rmatch_indices(" (").map(|(at, _)| at);
        let variable = |at: &usize| about[at + 2..].starts_with(|c: char| c.is_ascii_uppercase());
        ends.filter(variable).last().map_or(about, |at| &about[..at])
    }

    fn is(&self, value: &str) -> bool {
        self.value.as_deref() == Some(value)
    }
}

impl Program {
    /// Each file: its name and its text.
    pub fn files(&self) -> [(String, String); 4] {
        let name = self.name;
        [
            (format!("{name}.1"), self.man()),
            (format!("{name}.bash"), self.bash()),
            (format!("_{name}"), self.zsh()),
            (format!("{name}.fish"), self.fish()),
        ]
    }

    /// The page of section 1, as man-db and mandoc read it (man(7)).
    fn man(&self) -> String {
        let Self { name, synopsis, about, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        let (title, dashed) = (name.to_uppercase(), roff(name));
        let (brief, rest) = about.split_once(": ").unwrap_or((about, ""));
        let mut page = format!(
            ".TH {title} 1 \"\" \"2ptth {version}\"\n.SH NAME\n{dashed} \\- {}\n.SH SYNOPSIS\n.B {dashed}\n{}\n",
            roff(&brief.to_lowercase()),
            roff(synopsis),
        );
        let mut entry = |text: String| page.push_str(&text);
        for (command, _) in self.commands {
            entry(format!(".br\n.B {dashed} {}\n[\\-\\-config \\fIFILE\\fR]\n", roff(command)));
        }
        entry(format!(".SH DESCRIPTION\n{}: {}\n", roff(brief), roff(rest)));
        self.notes.iter().for_each(|note| entry(format!(".PP\n{}\n", roff(note))));
        if let Some(arguments) = &self.arguments {
            entry(format!(".PP\nThe arguments are {}.\n", roff(&arguments.about)));
        }
        entry(".SH OPTIONS\n".to_owned());
        for Choice { word, about, value, .. } in &self.options {
            let value =
                value.as_ref().map(|value| format!(" \\fI{}\\fR", roff(&value.to_uppercase())));
            let value = value.unwrap_or_default();
            entry(format!(".TP\n\\fB{}\\fR{value}\n{}\n", roff(word), roff(about)));
        }
        if !self.commands.is_empty() {
            entry(".SH COMMANDS\n".to_owned());
        }
        for (command, about) in self.commands {
            entry(format!(".TP\n\\fB{}\\fR\n{}\n", roff(command), roff(about)));
        }
        entry(
            ".SH ENVIRONMENT\nA flag beats its variable, which beats the file of \\-\\-config.\n"
                .to_owned(),
        );
        for setting in self.settings {
            let what = match setting {
                _ if setting.is(Mark::Secret) => "a secret, which has no flag".to_owned(),
                _ if setting.is(Mark::Positional) => "in place of the argument".to_owned(),
                _ if !self.has(setting) => "has no flag".to_owned(),
                _ => format!("as --{}", setting.dashed()),
            };
            entry(format!(".TP\n\\fB{}\\fR\n{}\n", roff(setting.variable), roff(&what)));
        }
        entry(".SH EXIT STATUS\n".to_owned());
        for (code, about) in self.exits {
            entry(format!(".TP\n{code}\n{}\n", roff(about)));
        }
        page
    }

    fn has(&self, setting: &Setting) -> bool {
        self.options.iter().any(|option| option.word == format!("--{}", setting.dashed()))
    }

    /// The words of the options that `fits`.
    fn words(&self, fits: impl Fn(&Choice) -> bool, between: &str) -> String {
        let found = self.options.iter().filter(|option| fits(option));
        found.map(|option| option.word.as_str()).collect::<Vec<_>>().join(between)
    }

    /// The first words of the commands.
    fn first_words(&self) -> Vec<&str> {
        let mut words: Vec<_> =
            self.commands.iter().filter_map(|(command, _)| command.split(' ').next()).collect();
        words.dedup();
        words
    }

    fn bash(&self) -> String {
        let (name, function) = (self.name, format!("_{}", self.name.replace('-', "_")));
        let rows = [
            (self.words(|it| it.is(FILE), "|"), FILES),
            (
                self.words(|it| it.is(FOLDER), "|"),
                "compopt -o filenames; found=$(compgen -d -- \"$word\")",
            ),
            (self.words(|it| it.is(LEVEL), "|"), "found=$(compgen -W \"$levels\" -- \"$word\")"),
            (self.words(|it| it.value.as_deref().is_some_and(|it| !KNOWN.contains(&it)), "|"), ":"),
        ];
        let rows = rows.iter().filter(|(words, _)| !words.is_empty());
        let rows: String =
            rows.map(|(words, act)| format!("        {words}) {act} ;;\n")).collect();
        let mut commands = String::new();
        for first in self.first_words() {
            let second: Vec<_> =
                self.commands.iter().filter_map(|it| it.0.strip_prefix(first)).collect();
            commands += &format!(
                "        {first}) found=$(compgen -W \"{}\" -- \"$word\") ;;\n",
                second.concat().trim()
            );
        }
        let words = [self.first_words().join(" "), self.words(|_| true, " ")].join(" ");
        let (words, levels) = (words.trim(), LEVELS.join(" "));
        format!(
            r#"# bash completion for {name}
{function}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} found= levels="{levels}"
    # bash takes --flag=value for three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    case $before in
{rows}{commands}        *) [[ $word != -* && $COMP_CWORD != 1 ]] || found=$(compgen -W "{words}" -- "$word") ;;
    esac
    COMPREPLY=()
    [[ -z $found ]] || mapfile -t COMPREPLY <<<"$found"
}}
complete -F {function} {name}
"#
        )
    }

    fn zsh(&self) -> String {
        let quoted = |text: &str| {
            let mut out = String::new();
            for c in text.chars() {
                match c {
                    '[' | ']' | ':' | '\\' => out.extend(['\\', c]),
                    '\'' => out.push_str("'\\''"),
                    _ => out.push(c),
                }
            }
            out
        };
        let mut specs = Vec::new();
        for option in &self.options {
            let action = match option.value.as_deref() {
                None => String::new(),
                Some(FILE) => ":file:_files".to_owned(),
                Some(FOLDER) => ":folder:_files -/".to_owned(),
                Some(LEVEL) => format!(":level:({})", LEVELS.join(" ")),
                Some(other) => format!(":{}: ", quoted(other)),
            };
            let star = if option.repeats { "*" } else { "" };
            let equals = if option.value.is_some() { "=" } else { "" };
            specs.push(format!(
                "  '{star}{}{equals}[{}]{action}'",
                option.word,
                quoted(option.short())
            ));
        }
        if self.arguments.is_some() {
            specs.push(format!("  '1:gateway:({})'", self.first_words().join(" ")));
            let second: Vec<_> =
                self.commands.iter().filter_map(|it| it.0.split(' ').nth(1)).collect();
            specs.push(format!("  '2:origin:({})'", second.join(" ")));
        }
        format!("#compdef {}\n_arguments \\\n{}\n", self.name, specs.join(" \\\n"))
    }

    fn fish(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let name = self.name;
        let mut text = format!("# fish completion for {name}\ncomplete -c {name} -f\n");
        for (command, about) in self.commands {
            let (first, second) = command.split_once(' ').unwrap_or((command, ""));
            let (when, word) = match second {
                "" => ("__fish_use_subcommand".to_owned(), first),
                _ => (format!("__fish_seen_subcommand_from {first}"), second),
            };
            text += &format!("complete -c {name} -n '{when}' -a {word} -d '{}'\n", quoted(about));
        }
        for first in self.first_words() {
            text += &format!("complete -c {name} -n __fish_use_subcommand -a {first}\n");
        }
        for option in &self.options {
            let value = match option.value.as_deref() {
                None => String::new(),
                Some(FILE) => " -r -F".to_owned(),
                Some(FOLDER) => " -x -a '(__fish_complete_directories)'".to_owned(),
                Some(LEVEL) => format!(" -x -a '{}'", LEVELS.join(" ")),
                Some(_) => " -x".to_owned(),
            };
            let long = option.word.trim_start_matches('-');
            text +=
                &format!("complete -c {name} -l {long}{value} -d '{}'\n", quoted(option.short()));
        }
        text
    }
}

/// Text in a man page: neither an escape nor, at the begin of a line, a request; and a `-` that can be copied.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// The values that a shell can complete, as the declarations name them.
const KNOWN: [&str; 3] = [FILE, FOLDER, LEVEL];
const FILE: &str = "file";
const FOLDER: &str = "folder";
const LEVEL: &str = "level";
/// What `--log` takes.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const FILES: &str = "compopt -o filenames; found=$(compgen -f -- \"$word\")";
