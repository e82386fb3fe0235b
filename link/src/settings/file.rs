//! The configuration file: TOML whose keys are settings, and tables that each program has for itself.
//!
//! In:  the path of a file, or a text.
//! Out: [`Fields`] of tables, each a [`Given`] with its place.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Env, Given, Mark, Mistake, Mistakes, Parser, Place, Setting, variable};
use crate::{crypto, files};

/// A value of the file and its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// The text of a file, in which mistakes have places.
#[derive(Clone, Debug)]
pub struct File {
    path: Arc<Path>,
    text: String,
    /// The SHA-256 of its bytes.
    pub digest: [u8; 32],
}

impl File {
    /// The file of the flag `--config`, else of the variable CONFIG. Blocks.
    pub fn given(flag: Option<&str>, env: &Env<'_>) -> Result<Option<Self>, Mistake> {
        let path = match flag {
            Some(path) => Some(path.to_owned()),
            None => variable(env, "CONFIG")?,
        };
        path.map(|path| Self::read(Path::new(&path))).transpose()
    }

    fn read(path: &Path) -> Result<Self, Mistake> {
        let bytes = files::read("the configuration file", path).map_err(Mistake::new)?;
        let digest = crypto::sha256(&bytes);
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let of = |text: &str| Self { path: path.into(), text: text.to_owned(), digest };
        str::from_utf8(bytes).map(of).map_err(|err| {
            let before = bytes.get(..err.valid_up_to()).unwrap_or_default();
            let file = of(&String::from_utf8_lossy(before));
            file.wrong(file.text.len(), "this isn't UTF-8 text")
        })
    }

    /// A text that stands for a file of that name.
    pub fn of(path: &str, text: String) -> Self {
        Self { path: Path::new(path).into(), text, digest: [0; 32] }
    }

    /// Relative paths begin there.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The line and column of a byte.
    pub fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }

    pub fn wrong(&self, at: usize, sentence: impl Display) -> Mistake {
        Mistake::new(sentence).at(self.place(at))
    }

    /// The whole document, with underscores in all keys.
    pub fn parse<'a>(&'a self, mistakes: &'a Mistakes) -> Result<Fields<'a>, Mistake> {
        let table = DeTable::parse(&self.text).map_err(|err| {
            let at = err.span().map_or(0, |span| span.start);
            let yaml = self.text.lines().any(|line| line.starts_with("groups:"));
            let hint = "; for reverst's `groups:` see the README's recipe of that name";
            let hint = if yaml { hint } else { "" };
            self.wrong(at, format!("this isn't TOML: {}{hint}", err.message()))
        })?;
        let table = self.with_underscores(table.into_inner(), mistakes);
        Ok(Fields { file: self, mistakes, table, name: "the file", at: 0 })
    }

    fn with_underscores<'a>(&self, table: DeTable<'a>, mistakes: &Mistakes) -> DeTable<'a> {
        let mut renamed = DeTable::new();
        for (key, value) in table {
            let (at, name) = (key.span(), key.get_ref().replace('-', "_"));
            if renamed.contains_key(&*name) {
                let twice = format!("`{}` is given twice", name.escape_debug());
                mistakes.add(self.wrong(at.start, twice));
            }
            let value = self.value_with_underscores(value, mistakes);
            renamed.insert(Spanned::new(at, name.into()), value);
        }
        renamed
    }

    fn value_with_underscores<'a>(&self, value: Value<'a>, mistakes: &Mistakes) -> Value<'a> {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => DeValue::Table(self.with_underscores(table, mistakes)),
            DeValue::Array(items) => {
                let items = items.into_iter();
                let items = items.map(|item| self.value_with_underscores(item, mistakes));
                DeValue::Array(items.collect())
            }
            other => other,
        };
        Spanned::new(span, value)
    }
}

/// A table of the file. Its fields are taken out one by one; [`Self::end`] notes those that are left.
#[expect(missing_debug_implementations, reason = "its values may be secrets")]
pub struct Fields<'a> {
    pub file: &'a File,
    pub mistakes: &'a Mistakes,
    table: DeTable<'a>,
    /// What the sentences call the table.
    name: &'static str,
    pub at: usize,
}

impl<'a> Fields<'a> {
    /// The value as a table, which the sentences call `name`.
    pub fn of(given: Given<'a>, name: &'static str) -> Option<Self> {
        let (file, mistakes, at) = (given.file?, given.mistakes, given.at());
        match given.value.into_inner() {
            DeValue::Table(table) => Some(Self { file, mistakes, table, name, at }),
            _ => {
                let why = format!("`{}` takes a table", name.trim_matches(['[', ']']));
                mistakes.note(Err(file.wrong(at, why)))
            }
        }
    }

    /// Notes a mistake that is about the whole table, in place of a value.
    pub fn refuse<T>(&self, sentence: impl Display) -> Option<T> {
        self.mistakes.note(Err(self.file.wrong(self.at, sentence)))
    }

    pub fn get(&self, key: &str) -> Option<Given<'a>> {
        Some(self.given(key, self.table.get(key)?.clone()))
    }

    fn given(&self, key: &str, value: Value<'a>) -> Given<'a> {
        Given { name: key.to_owned(), file: Some(self.file), mistakes: self.mistakes, value }
    }

    pub fn take(&mut self, key: &str) -> Option<Given<'a>> {
        let value = self.table.remove(key)?;
        Some(self.given(key, value))
    }

    /// Takes a field out, into a table of its own.
    pub fn alone(&mut self, key: &str) -> Option<Given<'a>> {
        let (name, value) = self.table.remove_entry(key)?;
        let span = value.span();
        let table = DeValue::Table([(name, value)].into_iter().collect());
        Some(self.given(key, Spanned::new(span, table)))
    }

    /// The tables of a list, which the sentences call `name`; one table alone needs no brackets.
    pub fn tables(&mut self, key: &str, name: &'static str) -> Vec<Self> {
        let items = self.take(key).map(|given| given.items()).unwrap_or_default();
        items.into_iter().filter_map(|item| Self::of(item, name)).collect()
    }

    pub fn value<T>(&mut self, key: &str, parser: &Parser<T>) -> Option<T> {
        self.take(key)?.value(parser)
    }

    /// Notes each field that is left and is none of the settings.
    pub fn end(&self, settings: &'static [Setting]) {
        let name = self.name;
        for key in self.table.keys() {
            let sentence = match settings.iter().find(|it| it.name == key.get_ref()) {
                Some(Setting { name: secret, variable, marks })
                    if marks.contains(&Mark::Secret) =>
                {
                    format!(
                        "`{secret}` is no key of {name}; give it by `{secret}_file`, or by the variable {variable}"
                    )
                }
                Some(_) => continue,
                None => {
                    // The table of another program that 2ptth replaces.
                    let proxy = key.get_ref() == "proxy";
                    let hint =
                        if proxy { ", or see the README's recipes for `[[proxy]]`" } else { "" };
                    let key = key.get_ref().escape_debug();
                    format!("`{key}` isn't a key of {name}; check its spelling{hint}")
                }
            };
            self.mistakes.add(self.file.wrong(key.span().start, sentence));
        }
    }
}
