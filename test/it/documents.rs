//! Holds the documents to the code and to each other: links lead somewhere, guarantees name tests that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ptth_link::failure::Failure;

/// README.md is the first look; whatever goes beyond has a page in `docs/`.
const LONGEST_README: usize = 220;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of a file, by its path from the workspace's root.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// README.md and all of `docs/`.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs")).expect("docs/");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    let docs = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let mut pages: Vec<_> = docs.collect();
    pages.push("README.md".to_owned());
    pages
}

/// The lines of a page that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchors of a page's headings, as GitHub makes them: lower case, blanks as dashes, and of all else only letters,
/// digits, `-` and `_`.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let anchor = |title: String| -> String {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let mut anchors = BTreeSet::new();
    for anchor in titles.map(anchor) {
        assert!(anchors.insert(anchor.clone()), "two headings are #{anchor}");
    }
    anchors
}

/// The targets of the links of a page, `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let text: Vec<_> = prose(text).collect();
    let text = text.join("\n");
    // What stands between back-quotes is no link.
    let text: String = text.split('`').step_by(2).collect();
    for part in text.split("](").skip(1) {
        links.extend(part.split(')').next().map(str::to_owned));
    }
    links
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(&page).parent().unwrap_or(Path::new(""));
            let target = if path.is_empty() { PathBuf::from(&page) } else { folder.join(path) };
            assert!(root().join(&target).exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let text = read(&target.to_string_lossy());
                assert!(anchors(&text).contains(anchor), "{page}: no heading for {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed} links");
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let readme = read("README.md");
    for page in pages().iter().filter(|page| page.starts_with("docs/")) {
        assert!(readme.contains(&format!("]({page})")), "{page}");
    }
    assert!(readme.lines().count() <= LONGEST_README, "the README is long: move a part to docs/");
}

/// The names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in crate::tidy::sources(&["server/src", "client/src", "link/src", "test"]) {
        let mut test = false;
        for line in source.text.lines().map(str::trim) {
            match function(line) {
                Some(name) if test => {
                    found.insert(name.to_owned());
                    test = false;
                }
                Some(_) => test = false,
                None => test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
            }
        }
    }
    found
}

/// The name of the function that this line begins.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// The guarantees by their numbers, each with what it names as its proof: the words in back-quotes behind
/// "Shown by".
fn guarantees(page: &str) -> BTreeMap<(u32, u32), Vec<String>> {
    let mut found = BTreeMap::new();
    for paragraph in page.split("\n\n") {
        let Some(rest) = paragraph.trim_start().strip_prefix("**") else { continue };
        let Some((number, text)) = rest.split_once("**") else { continue };
        let Some((group, number)) = number.split_once('.') else { continue };
        let (Ok(group), Ok(number)) = (group.parse(), number.parse()) else { continue };
        let proof = text.split("Shown by").nth(1).unwrap_or_default();
        let names = proof.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let other = found.insert((group, number), names);
        assert!(other.is_none(), "{group}.{number} is there twice");
    }
    found
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let (page, tests) = (read("docs/guarantees.md"), tests());
    let guarantees = guarantees(&page);
    assert!(guarantees.len() > 30, "{}", guarantees.len());
    let mut last = (0, 0);
    for ((group, number), names) in guarantees {
        let follows = (last.0, last.1 + 1) == (group, number) || (last.0 + 1, 1) == (group, number);
        assert!(follows, "{group}.{number} comes after {}.{}", last.0, last.1);
        last = (group, number);
        let of_tests = names.iter().filter(|name| !name.contains('/'));
        assert!(of_tests.count() > 0, "{group}.{number} names no test");
        for name in names {
            let exists = if name.contains('/') {
                root().join(&name).is_file()
            } else {
                tests.contains(&name)
            };
            assert!(exists, "{group}.{number}: there is no {name}");
        }
    }
}

/// The steps of a request's way name functions, by a module of the gateway, of the client, or of both.
#[test]
fn the_functions_on_a_requests_way_exist() {
    let page = read("docs/design.md");
    let steps = page.split("\n## A request's way, ").skip(1).map(|rest| rest.split("\n## ").next());
    let parts = ["server/src", "client/src"];
    let mut named = 0;
    for (steps, part) in steps.flatten().zip(parts) {
        let sources = crate::tidy::sources(&[part]);
        let paths = steps.split('`').skip(1).step_by(2).filter(|code| code.contains("::"));
        for path in paths.filter(|path| !path.contains(' ')) {
            let (module, function) = path.rsplit_once("::").expect("a path");
            if !function.starts_with(|c: char| c.is_ascii_lowercase()) || module == "quota" {
                continue;
            }
            let file = format!("{part}/{}", module.replace("::", "/"));
            let fits = |path: &str| {
                let bare = path.trim_end_matches(".rs").trim_end_matches("/mod");
                bare == file || bare.starts_with(&format!("{file}/"))
            };
            let begins = format!("fn {function}");
            let found = sources.iter().filter(|source| fits(&source.path)).any(|source| {
                let after = source.text.split(&begins).skip(1);
                after.into_iter().any(|after| after.starts_with(['(', '<']))
            });
            assert!(found, "{path}: {file} has no function of that name");
            named += 1;
        }
    }
    assert!(named >= 15, "{named}");
}

/// Each section names a code of the table, in the table's order, and begins with its status, party and sentence.
#[test]
fn the_page_of_errors_is_the_table_of_failures() {
    let page = read("docs/errors.md");
    let told: Vec<_> = page.split("\n## ").skip(1).collect();
    let rows = Failure::ALL.iter().map(|failure| failure.row());
    let expected: Vec<_> = rows
        .map(|row| {
            let (status, party) = (row.status.as_u16(), row.party.name());
            format!("{}\n\n{status}, {party}: {}\n\n", row.code, row.sentence)
        })
        .collect();
    assert_eq!(told.len(), expected.len());
    for (section, head) in told.iter().zip(expected) {
        assert!(section.starts_with(&head), "{section:?} isn't {head:?}");
        assert!(section.len() > head.len() + 40, "no advice: {section}");
    }
}
