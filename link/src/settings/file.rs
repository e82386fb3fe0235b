//! The configuration file: TOML whose keys are settings, and tables that each program has for itself.
//!
//! In:  the path of a file, or a text.
//! Out: a [`Table`] of settings, and the other tables as the values of a schema, each with its place.
//!
//! Invariant: no sentence quotes a value of the wrong type, which may be a secret, as the messages of a
//! deserializer would.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::{Given, Kind, Mark, Mistake, Mistakes, Place, Setting};
use crate::crypto;

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
        let bytes = fs::read(path).map_err(|err| {
            Mistake::new(format!(
                "the configuration file {} can't be read ({err}); check its path and that this user may read it",
                path.display()
            ))
        })?;
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

    pub fn wrong(&self, at: usize, sentence: impl std::fmt::Display) -> Mistake {
        Mistake::new(sentence).at(self.place(at))
    }

    /// The document, with underscores in all keys.
    pub fn parse(&self, mistakes: &Mistakes) -> Option<Value<'_>> {
        let table = DeTable::parse(&self.text).map_err(|err| {
            let at = err.span().map_or(0, |span| span.start);
            let yaml = self.text.lines().any(|line| line.starts_with("groups:"));
            let hint = "; for reverst's `groups:` see the README's recipe of that name";
            let hint = if yaml { hint } else { "" };
            self.wrong(at, format!("this isn't TOML: {}{hint}", err.message()))
        });
        let table = mistakes.note(table)?;
        let document = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        Some(self.with_underscores(document, mistakes))
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

    /// The settings among the keys of a table, which are taken out of it.
    pub fn settings(
        &self,
        value: &mut Value<'_>,
        settings: &'static [Setting],
        mistakes: &Mistakes,
    ) -> Table {
        let mut table = Table::default();
        for setting in settings.iter().filter(|setting| !setting.is(Mark::Secret)) {
            let Some(value) = take(value, setting.name) else { continue };
            let at = value.span().start;
            match texts(setting.kind, &value) {
                Ok(mut texts) => {
                    if setting.kind == Kind::Path {
                        for path in &mut texts {
                            *path = self.folder().join(&*path).to_str().unwrap_or(path).to_owned();
                        }
                    }
                    let (name, place) = (setting.dashed(), Some(self.place(at)));
                    table.insert(setting.name, Given { name, is_flag: false, place, texts });
                }
                Err((at, why)) => {
                    mistakes.add(self.wrong(at, format!("`{}` {why}", setting.name)));
                }
            }
        }
        table
    }

    /// The tables below a key; one alone needs no brackets.
    pub fn tables<'a>(
        &self,
        value: &mut Value<'a>,
        key: &str,
        mistakes: &Mistakes,
    ) -> Option<(Range<usize>, Vec<Value<'a>>)> {
        let value = take(value, key)?;
        let span = value.span();
        let tables = match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            table @ DeValue::Table(_) => vec![Spanned::new(span.clone(), table)],
            _ => {
                mistakes.add(self.wrong(span.start, format!("`{key}` takes a list of tables")));
                return None;
            }
        };
        Some((span, tables))
    }

    /// Notes each key that a table still has. The sentences call the table `name`.
    pub fn unknown(
        &self,
        value: Value<'_>,
        name: &str,
        settings: &'static [Setting],
        mistakes: &Mistakes,
    ) {
        let DeValue::Table(table) = value.into_inner() else { return };
        for key in table.keys() {
            let secret = settings.iter().find(|it| it.is(Mark::Secret) && it.name == key.get_ref());
            let sentence = match secret {
                Some(Setting { name: secret, variable, .. }) => format!(
                    "`{secret}` is no key of {name}; give it by `{secret}_file`, or by the variable {variable}"
                ),
                None => is_unknown(key.get_ref(), name),
            };
            mistakes.add(self.wrong(key.span().start, sentence));
        }
    }

    /// A table by its schema, in which each field is optional. The sentences call the table `name`. A malformed field
    /// is noted and left out, so that all mistakes of the table are found.
    pub fn schema<T: DeserializeOwned>(
        &self,
        mut value: Value<'_>,
        name: &str,
        mistakes: &Mistakes,
    ) -> Option<T> {
        let span = value.span();
        if !value.get_ref().is_table() {
            let key = name.trim_matches(['[', ']']);
            mistakes.add(self.wrong(span.start, format!("`{key}` takes a table")));
            return None;
        }
        loop {
            let err = match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(read) => return Some(read),
                Err(err) => err,
            };
            let at = err.span().map_or(span.start, |span| span.start);
            let key = take_at(&mut value, at);
            let key_text = key.as_deref().unwrap_or_default();
            mistakes.add(self.wrong(at, sentence(err.message(), key_text, name)));
            key?;
        }
    }
}

/// Takes a field out of a table.
pub fn take<'a>(value: &mut Value<'a>, key: &str) -> Option<Value<'a>> {
    match value.get_mut() {
        DeValue::Table(table) => table.remove(key),
        _ => None,
    }
}

/// Takes a field out of a table, if its value is a table itself.
pub fn take_table<'a>(value: &mut Value<'a>, key: &str) -> Option<Value<'a>> {
    value.get_ref().get(key).filter(|value| value.get_ref().is_table())?;
    take(value, key)
}

/// Takes a field, or one item of its array, out of a table, by the place of a byte. Returns the field's key.
fn take_at(value: &mut Value<'_>, at: usize) -> Option<String> {
    let DeValue::Table(table) = value.get_mut() else { return None };
    let is_there = |span: Range<usize>| span.contains(&at) || span.start == at;
    let (key, value) =
        table.iter_mut().find(|(key, value)| is_there(key.span()) || is_there(value.span()))?;
    let name = key.get_ref().to_string();
    if let DeValue::Array(array) = value.get_mut()
        && array.iter().any(|item| is_there(item.span()))
    {
        let items = std::mem::replace(array, DeArray::new()).into_iter();
        *array = items.filter(|item| !is_there(item.span())).collect();
    } else {
        table.remove(name.as_str());
    }
    Some(name)
}

/// A deserializer's message as a sentence for the operator, without the quoted value, which may be a password.
fn sentence(message: &str, key: &str, table: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        return is_unknown(rest.split('`').next().unwrap_or(key), table);
    }
    match message.rsplit_once(", expected ") {
        Some((quoted, wanted)) if quoted.starts_with("invalid ") => {
            let wanted = if wanted == "a boolean" { "true or false" } else { wanted };
            format!("`{key}` takes {wanted}")
        }
        _ => format!("{key} {message}"),
    }
}

fn is_unknown(key: &str, table: &str) -> String {
    // Of a program that came before this one.
    let hint = if key == "proxy" { ", or see the README's recipes for `[[proxy]]`" } else { "" };
    format!("`{}` isn't a key of {table}; check its spelling{hint}", key.escape_debug())
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
    let text = |value: &Value<'_>| {
        let text = match (kind, value.get_ref()) {
            (Kind::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
            (Kind::Switch, _) => None,
            (_, DeValue::String(text)) => Some(text.to_string()),
            (Kind::Path, _) => None,
            (_, DeValue::Integer(it)) if it.radix() == 10 => Some(it.as_str().replace('_', "")),
            (_, DeValue::Float(number)) => Some(number.as_str().replace('_', "")),
            _ => None,
        };
        text.ok_or((value.span().start, wanted))
    };
    match (kind, value.get_ref()) {
        (Kind::List | Kind::Commas, DeValue::Array(items)) => items.iter().map(text).collect(),
        _ => match text(value)? {
            text if text.trim().is_empty() => Err((value.span().start, "is empty")),
            text => Ok(vec![text]),
        },
    }
}
