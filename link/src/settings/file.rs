//! The configuration file: TOML whose keys are settings, and tables that each program has for itself.
//!
//! In:  the path of a file, or a text.
//! Out: [`Fields`] of tables: settings as a [`Table`], and other values by their type, each with its place.
//!
//! Invariant: no sentence quotes a value of the wrong type, which may be a secret.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Given, Kind, Mark, Mistake, Mistakes, Place, Scalar, Setting};
use crate::{crypto, files};

/// A value of the file and its place.
pub type Value<'a> = Spanned<DeValue<'a>>;

/// The text of a file, in which mistakes have places.
#[derive(Clone, Debug)]
pub struct File {
    path: Arc<Path>,
    text: String,
    /// The SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// The settings in one table of the file, by name.
pub type Table = BTreeMap<&'static str, Given>;

impl File {
    /// Blocks.
    pub fn read(path: &Path) -> Result<Self, Mistake> {
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
    pub fn parse<'a>(&'a self, mistakes: &'a Mistakes) -> Option<Fields<'a>> {
        let table = DeTable::parse(&self.text).map_err(|err| {
            let at = err.span().map_or(0, |span| span.start);
            let yaml = self.text.lines().any(|line| line.starts_with("groups:"));
            let hint = "; for reverst's `groups:` see the README's recipe of that name";
            let hint = if yaml { hint } else { "" };
            self.wrong(at, format!("this isn't TOML: {}{hint}", err.message()))
        });
        let table = mistakes.note(table)?;
        let document = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        Fields::of(self, mistakes, self.with_underscores(document, mistakes), "the file")
    }

    fn with_underscores<'a>(&self, value: Value<'a>, mistakes: &Mistakes) -> Value<'a> {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => {
                let mut renamed = DeTable::new();
                for (key, value) in table {
                    let (at, name) = (key.span(), key.get_ref().replace('-', "_"));
                    let value = self.with_underscores(value, mistakes);
                    let twice = format!("`{}` is given twice", name.escape_debug());
                    let start = at.start;
                    if renamed.insert(Spanned::new(at, name.into()), value).is_some() {
                        mistakes.add(self.wrong(start, twice));
                    }
                }
                DeValue::Table(renamed)
            }
            DeValue::Array(array) => {
                let items = array.into_iter().map(|item| self.with_underscores(item, mistakes));
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
    file: &'a File,
    pub mistakes: &'a Mistakes,
    table: DeTable<'a>,
    /// What the sentences call the table.
    name: &'static str,
    pub at: usize,
}

impl<'a> Fields<'a> {
    fn of(
        file: &'a File,
        mistakes: &'a Mistakes,
        value: Value<'a>,
        name: &'static str,
    ) -> Option<Self> {
        let at = value.span().start;
        let DeValue::Table(table) = value.into_inner() else {
            let why = format!("`{}` takes a table", name.trim_matches(['[', ']']));
            return mistakes.note(Err(file.wrong(at, why)));
        };
        Some(Self { file, mistakes, table, name, at })
    }

    /// The line and column of a byte.
    pub fn place(&self, at: usize) -> Place {
        self.file.place(at)
    }

    /// Notes a mistake at a byte of the file.
    pub fn wrong(&self, at: usize, sentence: impl Display) {
        self.mistakes.add(self.file.wrong(at, sentence));
    }

    /// The same, in place of a value.
    pub fn refuse<T>(&self, at: usize, sentence: impl Display) -> Option<T> {
        self.wrong(at, sentence);
        None
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub fn take(&mut self, key: &str) -> Option<Value<'a>> {
        self.table.remove(key)
    }

    /// Takes a field out, into a table of its own.
    pub fn alone(&mut self, key: &str) -> Option<Value<'a>> {
        let (key, value) = self.table.remove_entry(key)?;
        Some(Spanned::new(value.span(), DeValue::Table([(key, value)].into_iter().collect())))
    }

    /// A value as a table, which the sentences call `name`.
    pub fn table(&self, value: Value<'a>, name: &'static str) -> Option<Self> {
        Self::of(self.file, self.mistakes, value, name)
    }

    /// The values of a list of tables, and its place; one table alone needs no brackets.
    pub fn values(&mut self, key: &str) -> Option<(usize, Vec<Value<'a>>)> {
        let value = self.take(key)?;
        let span = value.span();
        let values = match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            table @ DeValue::Table(_) => vec![Spanned::new(span.clone(), table)],
            _ => return self.refuse(span.start, format!("`{key}` takes a list of tables")),
        };
        Some((span.start, values))
    }

    /// The tables of such a list, which the sentences call `name`.
    pub fn tables(&mut self, key: &str, name: &'static str) -> Vec<Self> {
        let values = self.values(key).map(|(_, values)| values).unwrap_or_default();
        values.into_iter().filter_map(|value| self.table(value, name)).collect()
    }

    /// The settings among the fields.
    pub fn settings(&mut self, settings: &'static [Setting]) -> Table {
        let mut table = Table::default();
        for setting in settings.iter().filter(|setting| !setting.is(Mark::Secret)) {
            let Some(value) = self.take(setting.name) else { continue };
            match texts(setting.kind, &value) {
                Ok(mut texts) => {
                    if setting.kind == Kind::Path {
                        for path in &mut texts {
                            let whole = self.file.folder().join(&*path);
                            *path = whole.to_str().unwrap_or(path).to_owned();
                        }
                    }
                    let (name, place) = (setting.dashed(), Some(self.place(value.span().start)));
                    table.insert(setting.name, Given { name, is_flag: false, place, texts });
                }
                Err((at, why)) => self.wrong(at, format!("`{}` {why}", setting.name)),
            }
        }
        table
    }

    /// A scalar and its place.
    pub fn scalar<T: Scalar>(&mut self, key: &str) -> Option<(usize, T)> {
        let value = self.take(key)?;
        self.read(key, &value, "")
    }

    /// Reads a scalar into its place, if there is one.
    pub fn set<T: Scalar>(&mut self, key: &str, value: &mut T) {
        if let Some((_, read)) = self.scalar(key) {
            *value = read;
        }
    }

    /// The same for `true` and `false`, which are no scalars.
    pub fn set_switch(&mut self, key: &str, on: &mut bool) {
        let Some(value) = self.take(key) else { return };
        match value.get_ref() {
            DeValue::Boolean(read) => *on = *read,
            _ => self.wrong(value.span().start, format!("`{key}` takes true or false")),
        }
    }

    /// The scalars of an array, and its place; one scalar alone needs no brackets. A malformed one is left out.
    pub fn list<T: Scalar>(&mut self, key: &str) -> Option<(usize, Vec<(usize, T)>)> {
        let value = self.take(key)?;
        let items = match value.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| self.read(key, item, "")).collect()
            }
            _ => vec![self.read(key, &value, ", or an array of such")?],
        };
        Some((value.span().start, items))
    }

    /// A value that must be a scalar, `or` what else the field takes.
    pub fn read<T: Scalar>(&self, key: &str, value: &Value<'_>, or: &str) -> Option<(usize, T)> {
        let at = value.span().start;
        let read = match text(Kind::Text, value.get_ref()) {
            Some(text) => T::parse(&text).map_err(|why| format!("{key} {why}")),
            None => Err(format!("`{key}` takes {}{or}", T::WANTED)),
        };
        Some((at, self.mistakes.note(read.map_err(|why| self.file.wrong(at, why)))?))
    }

    /// Notes each field that is left.
    pub fn end(&self, settings: &'static [Setting]) {
        let name = self.name;
        for key in self.table.keys() {
            let secret = settings.iter().find(|it| it.is(Mark::Secret) && it.name == key.get_ref());
            let sentence = match secret {
                Some(Setting { name: secret, variable, .. }) => format!(
                    "`{secret}` is no key of {name}; give it by `{secret}_file`, or by the variable {variable}"
                ),
                None => {
                    // The table of another program that 2ptth replaces.
                    let proxy = key.get_ref() == "proxy";
                    let hint =
                        if proxy { ", or see the README's recipes for `[[proxy]]`" } else { "" };
                    let key = key.get_ref().escape_debug();
                    format!("`{key}` isn't a key of {name}; check its spelling{hint}")
                }
            };
            self.wrong(key.span().start, sentence);
        }
    }
}

/// The texts of a value, as in a variable; or the place of the mistake, and the sentence's end.
fn texts(kind: Kind, value: &Value<'_>) -> Result<Vec<String>, (usize, &'static str)> {
    let wanted = match kind {
        Kind::Text => "takes a text",
        Kind::List | Kind::Commas => "takes a text, or a list of texts",
        Kind::Number => "takes a number",
        Kind::Time => "takes a time like \"10s\", or a number of seconds",
        Kind::Path => "takes a path",
        Kind::Switch => "takes true or false",
    };
    let text = |value: &Value<'_>| text(kind, value.get_ref()).ok_or((value.span().start, wanted));
    match (kind, value.get_ref()) {
        (Kind::List | Kind::Commas, DeValue::Array(items)) => items.iter().map(text).collect(),
        _ => match text(value)? {
            text if text.trim().is_empty() => Err((value.span().start, "is empty")),
            text => Ok(vec![text]),
        },
    }
}

/// The text of one value, as in a variable.
fn text(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
        (Kind::Switch, _) => None,
        (_, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Path, _) => None,
        (_, DeValue::Integer(it)) if it.radix() == 10 => Some(it.as_str().replace('_', "")),
        (_, DeValue::Float(number)) => Some(number.as_str().replace('_', "")),
        _ => None,
    }
}
