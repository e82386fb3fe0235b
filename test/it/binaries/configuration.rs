//! `docs/configuration.md` against the declarations of all settings, and against `--help`: a fact that stands in
//! several places is compared.

use std::collections::BTreeSet;

use ptth_link::settings::{Mark, Setting};
use ptth_test::process::run;

use super::{CLIENT, GATEWAY};

/// A row of the table of settings: the flag, or nothing, and the variable, or nothing.
type Row = (String, String);

/// Flags that are no settings, and their variables.
const GATEWAYS_OTHERS: &[(&str, &str)] =
    &[("--config", "CONFIG"), ("--check", ""), ("--version", ""), ("--help", "")];
const CLIENTS_OTHERS: &[(&str, &str)] =
    &[("--config", "CONFIG"), ("--version", ""), ("--help", "")];

/// What the code declares.
fn declared(settings: &[Setting], others: &[(&str, &str)]) -> BTreeSet<Row> {
    let settings = settings.iter().map(|setting| {
        let flag = !setting.is(Mark::Secret) && !setting.is(Mark::Positional);
        let flag = if flag { format!("--{}", setting.dashed()) } else { String::new() };
        (flag, setting.variable.to_owned())
    });
    let others = others.iter().map(|(flag, variable)| (flag.to_string(), variable.to_string()));
    settings.chain(others).collect()
}

/// The text below the heading of a program.
fn section<'a>(page: &'a str, program: &str) -> &'a str {
    let heading = format!("\n## {program}\n");
    let section = page.split(&heading).nth(1).expect("the program's section");
    section.split("\n## ").next().unwrap_or_default()
}

/// What the page's table documents. Each row is there once.
fn documented(section: &str) -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    for line in section.lines().filter(|line| line.starts_with("| `--") || line.starts_with("| |"))
    {
        let word = |cell: &str| cell.trim().trim_matches('`').split(' ').next().map(str::to_owned);
        let line = line.replace("\\|", "/");
        let mut cells = line.split('|').skip(1).map(|cell| word(cell).unwrap_or_default());
        let row = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        assert!(rows.insert(row), "twice: {line}");
    }
    rows
}

#[test]
fn the_page_has_every_setting_that_is_declared_and_no_other() {
    let page = crate::documents::read("docs/configuration.md");
    let gateway = ptth_server::config::Args::SETTINGS;
    let client = ptth_client::config::Args::SETTINGS;
    for (program, settings, others) in
        [("2ptth-server", gateway, GATEWAYS_OTHERS), ("2ptth-client", client, CLIENTS_OTHERS)]
    {
        let (declared, documented) =
            (declared(settings, others), documented(section(&page, program)));
        let missing: Vec<_> = declared.difference(&documented).collect();
        let wrong: Vec<_> = documented.difference(&declared).collect();
        assert!(missing.is_empty() && wrong.is_empty(), "{program}: {missing:?}, {wrong:?}");
    }
}

#[test]
fn the_page_says_which_changes_wait_for_the_next_start() {
    let page = crate::documents::read("docs/configuration.md");
    let begins = "counts from the next start: ";
    let list = page.split(begins).nth(1).and_then(|rest| rest.split("\n\n").next()).expect("it");
    let documented: Vec<_> = list.split('`').skip(1).step_by(2).collect();
    let settings = ptth_server::config::Args::SETTINGS.iter();
    let declared = settings.filter(|setting| setting.is(Mark::NextStart));
    let declared: BTreeSet<_> = declared.map(|setting| setting.name).collect();
    assert_eq!(documented.iter().copied().collect::<BTreeSet<_>>(), declared);
    assert_eq!(documented.len(), declared.len(), "one is there twice");
}

#[test]
fn the_page_has_every_kind_of_credential() {
    let page = crate::documents::read("docs/configuration.md");
    let section = page.split("\n### Who may serve it\n").nth(1).expect("the section");
    let rows = section.split("\n### ").next().unwrap_or_default().lines();
    let rows: Vec<_> = rows.filter_map(|line| line.strip_prefix("| ")).collect();
    for kind in ptth_server::lab::KINDS {
        let begins = |row: &&&str| {
            let cell = row.split(" | ").next().unwrap_or_default();
            cell.split('`').skip(1).step_by(2).any(|code| code.split(' ').next() == Some(kind))
        };
        assert_eq!(rows.iter().filter(begins).count(), 1, "{kind}");
    }
}

/// The fields of the struct of this name, in the gateway's file whose path ends so: the keys of a table.
fn fields(path: &str, name: &str) -> BTreeSet<String> {
    let sources = crate::tidy::sources(&["server/src"]);
    let source = sources.iter().find(|source| source.path.ends_with(path)).expect(path);
    let begins = format!("struct {name} {{\n");
    let body = source.text.split(&begins).nth(1).and_then(|rest| rest.split("\n}").next());
    let lines = body.expect(name).lines().map(str::trim);
    let fields = lines.filter(|line| !line.starts_with(['/', '#']));
    fields.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
}

/// The words that stand as texts in the function of this name, in the gateway's file whose path ends so: the keys that
/// it takes out of a table.
fn taken(path: &str, function: &str) -> BTreeSet<String> {
    let sources = crate::tidy::sources(&["server/src"]);
    let source = sources.iter().find(|source| source.path.ends_with(path)).expect(path);
    let body = source.text.split(&format!("fn {function}")).nth(1).expect(function);
    let texts = body.split("fn ").next().unwrap_or_default().split('"').skip(1).step_by(2);
    let is_key = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    texts.filter(|text| !text.is_empty()).filter(is_key).map(str::to_owned).collect()
}

/// The words in back-quotes in the first cell of each row of the section below this heading.
fn keys(page: &str, heading: &str) -> BTreeSet<String> {
    let section = page.split(&format!("\n### {heading}\n")).nth(1).expect(heading);
    let rows = section.split("\n### ").next().unwrap_or_default().lines();
    let cells = rows.filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    cells.flat_map(|cell| cell.split(['`', ',', ' '])).map(str::to_owned).collect()
}

#[test]
fn the_page_has_every_key_of_routes_names_and_credentials() {
    let page = crate::documents::read("docs/configuration.md");
    for (heading, path, function) in
        [("`[[route]]`", "config/routes.rs", "route<"), ("`[names]`", "config/names.rs", "names(")]
    {
        let (mut declared, both) = (taken(path, function), taken("config/routes.rs", "backends("));
        assert!(declared.len() > 3 && both.len() > 5, "{declared:?} {both:?}");
        declared.extend(both);
        let documented: BTreeSet<_> =
            keys(&page, heading).into_iter().filter(|key| !key.is_empty()).collect();
        assert_eq!(documented, declared, "{heading}");
    }
    let of_gate = ["gate(", "forward("].map(|function| taken("config/gate.rs", function));
    let mut documented = keys(&page, "The gate of a route");
    documented.remove("");
    assert_eq!(documented, of_gate.into_iter().flatten().collect(), "[route.gate]");
    let documented = keys(&page, "Who may serve it");
    let kinds = [("shared_secret", "Basic"), ("jwt", "Settings"), ("external", "Settings")];
    let missing = kinds.map(|(file, name)| {
        let path = format!("auth/{file}.rs");
        // Of a password either way will do, and the second one stands beside the first.
        let apart = |key: &String| key == "password_sha256" && page.contains("`password_sha256`");
        let declared = fields(&path, name).into_iter();
        declared.filter(|key| !documented.contains(key) && !apart(key)).collect::<Vec<_>>()
    });
    assert_eq!(missing.concat(), Vec::<String>::new(), "keys of credentials");
}

/// The flags of `--help`, which begin lines.
fn flags_of_help(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with("  -"));
    let words = lines.flat_map(|line| line.split_whitespace().take(2));
    let words = words.map(|word| word.trim_end_matches(','));
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_help_tells_of_the_same_flags_and_variables_as_the_page() {
    let page = crate::documents::read("docs/configuration.md");
    for (program, table) in [("2ptth-server", GATEWAY), ("2ptth-client", CLIENT)] {
        let documented = documented(section(&page, program));
        for flag in ["--help", "-h"] {
            let help = run(program, &[flag], &[]).await;
            assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
            let flags: BTreeSet<_> = documented.iter().map(|(flag, _)| flag.clone()).collect();
            let flags: BTreeSet<_> = flags.into_iter().filter(|flag| !flag.is_empty()).collect();
            assert_eq!(flags_of_help(&help.stdout), flags, "help, then the page");
            for (flag, variable) in documented.iter().filter(|(flag, _)| !flag.is_empty()) {
                assert!(help.stdout.contains(variable), "{flag}: {variable}");
            }
            // And those that this file looks at are among them.
            for (flag, variable, ..) in table {
                assert!(documented.contains(&(flag.to_string(), variable.to_string())), "{flag}");
            }
        }
        let version = run(program, &["--version"], &[]).await;
        let expected = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((version.code, version.stdout), (Some(0), expected));
    }
}
