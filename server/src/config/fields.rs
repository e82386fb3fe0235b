//! Tables of the configuration file, taken apart key by key.
//!
//! Invariant: what is said about a value never quotes one that may be a secret, as the messages of a
//! deserializer would.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use ptth_link::token;

use super::ConfigError;
use super::mistake::Mistake;
use super::several::Several;
use super::source::Place;
use crate::auth::Settings;

/// The text of the file.
pub(super) struct Text {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A value and where it stands.
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table, of which each key is taken once.
pub(super) struct Fields<'a> {
    text: &'a Text,
    /// As messages call it.
    name: &'static str,
    fields: BTreeMap<String, (Range<usize>, Spanned<DeValue<'a>>)>,
    /// Of the table.
    pub(super) span: Range<usize>,
}

impl Text {
    /// The place of a byte.
    pub(super) fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Place {
            file: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }

    /// The line of a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        self.place(at).line
    }

    /// The error of a mistake at some bytes.
    pub(super) fn wrong(&self, span: &Range<usize>, why: Mistake) -> ConfigError {
        ConfigError::At { place: self.place(span.start), why }
    }

    /// The whole document.
    pub(super) fn parse(&self) -> Result<Fields<'_>, ConfigError> {
        let table = DeTable::parse(&self.text).map_err(|err| {
            let span = err.span().unwrap_or_default();
            let yaml = self.text.lines().any(|line| line.starts_with("groups:"));
            let hint = if yaml {
                "; for reverst's `groups:` see the README's recipe of that name"
            } else {
                ""
            };
            self.wrong(&span, Mistake::Syntax(format!("{}{hint}", err.message())))
        })?;
        let span = table.span();
        Fields::new(self, "the file", Spanned::new(span, DeValue::Table(table.into_inner())))
    }

    /// A credential: a table whose one key is its kind.
    pub(super) fn credential(
        &self,
        value: Spanned<DeValue<'_>>,
    ) -> Result<At<Settings>, ConfigError> {
        let only = match value.get_ref() {
            DeValue::Table(table) if table.len() == 1 => table.iter().next(),
            _ => None,
        };
        let Some((kind, inner)) = only else {
            return Err(self.wrong(&value.span(), Mistake::Credential));
        };
        let (kind, name) = (kind.get_ref().to_string(), kind.span());
        let span = inner.span();
        // What can't be read is quoted as a path; this isn't one.
        if kind.ends_with("file") && inner.get_ref().as_str().is_some_and(token::begins_like_one) {
            let wanted = "the path of a file, not the token itself";
            return Err(self.wrong(&span, Mistake::Type { key: kind, wanted }));
        }
        let value = self.spelt(value)?;
        let settings = Settings::deserialize(ValueDeserializer::from(value)).map_err(|err| {
            // About the kind's name, about something inside, or about the whole.
            let inside =
                |at: &Range<usize>| at.start > name.start || err.message().contains("variant");
            let at = err.span().filter(|at| !at.is_empty()).filter(inside);
            let at = at.as_ref().unwrap_or(&span);
            self.wrong(at, Mistake::Settings { kind, why: unquoted(err.message()) })
        })?;
        Ok(At { value: settings, span })
    }

    /// With underscores in the keys, however deep.
    fn spelt<'a>(&self, value: Spanned<DeValue<'a>>) -> Result<Spanned<DeValue<'a>>, ConfigError> {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => {
                let mut spelt = DeTable::new();
                for (key, value) in table {
                    let name = key.get_ref().replace('-', "_");
                    let key = Spanned::new(key.span(), name.clone().into());
                    let at = key.span();
                    if spelt.insert(key, self.spelt(value)?).is_some() {
                        return Err(self.wrong(&at, Mistake::KeyTwice(name)));
                    }
                }
                DeValue::Table(spelt)
            }
            DeValue::Array(array) => {
                DeValue::Array(array.into_iter().map(|v| self.spelt(v)).collect::<Result<_, _>>()?)
            }
            other => other,
        };
        Ok(Spanned::new(span, value))
    }
}

impl<'a> Fields<'a> {
    /// The fields of a table. `-` and `_` in their keys are the same.
    pub(super) fn new(
        text: &'a Text,
        name: &'static str,
        value: Spanned<DeValue<'a>>,
    ) -> Result<Self, ConfigError> {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else {
            let key = name.trim_matches(['[', ']']).to_owned();
            return Err(text.wrong(&span, Mistake::Type { key, wanted: "a table" }));
        };
        let mut fields = BTreeMap::new();
        for (key, value) in table {
            let (at, key) = (key.span(), key.get_ref().replace('-', "_"));
            if fields.insert(key.clone(), (at.clone(), value)).is_some() {
                return Err(text.wrong(&at, Mistake::KeyTwice(key)));
            }
        }
        Ok(Self { text, name, fields, span })
    }

    /// A value as it is.
    pub(super) fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        self.fields.remove(key).map(|(_, value)| value)
    }

    /// A table, if that is what it is.
    pub(super) fn table(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        let (_, value) = self.fields.get(key)?;
        value.get_ref().as_table()?;
        self.take(key)
    }

    /// A text, or a number as one.
    pub(super) fn scalar(
        &mut self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<At<String>>, ConfigError> {
        self.take(key).map(|value| self.text_of(key, &value, wanted)).transpose()
    }

    /// On or off.
    pub(super) fn switch(&mut self, key: &str) -> Result<Option<At<bool>>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        match value.get_ref() {
            DeValue::Boolean(value) => Ok(Some(At { value: *value, span })),
            _ => Err(self.mistyped(key, &span, "true or false")),
        }
    }

    /// A list of texts; one alone needs no brackets.
    pub(super) fn list(
        &mut self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<At<Vec<At<String>>>>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        let texts = match value.get_ref() {
            DeValue::Array(array) => {
                let texts = array.iter().map(|value| self.text_of(key, value, wanted));
                texts.collect::<Result<_, _>>()?
            }
            _ => vec![self.text_of(key, &value, wanted)?],
        };
        Ok(Some(At { value: texts, span }))
    }

    /// A list of tables; one alone needs no brackets.
    pub(super) fn tables(
        &mut self,
        key: &str,
    ) -> Result<Option<At<Vec<Spanned<DeValue<'a>>>>>, ConfigError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        let tables = match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            table @ DeValue::Table(_) => vec![Spanned::new(span.clone(), table)],
            _ => return Err(self.mistyped(key, &span, "a list of tables")),
        };
        Ok(Some(At { value: tables, span }))
    }

    /// Every field that wasn't taken, each as a table of its own.
    pub(super) fn rest(&mut self) -> Vec<Spanned<DeValue<'a>>> {
        let fields = std::mem::take(&mut self.fields).into_iter();
        fields
            .map(|(key, (span, value))| {
                let mut table = DeTable::new();
                table.insert(Spanned::new(span.clone(), key.into()), value);
                Spanned::new(span, DeValue::Table(table))
            })
            .collect()
    }

    /// An error for each field that wasn't taken.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let mut several = Several::default();
        for (key, (span, _)) in self.fields {
            let unknown = Mistake::Unknown { key, table: self.name };
            several.note(Err::<(), _>(self.text.wrong(&span, unknown)));
        }
        several.end(())
    }

    fn text_of(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &'static str,
    ) -> Result<At<String>, ConfigError> {
        let span = value.span();
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
            DeValue::Float(number) => number.as_str().replace('_', ""),
            _ => return Err(self.mistyped(key, &span, wanted)),
        };
        Ok(At { value: text, span })
    }

    fn mistyped(&self, key: &str, span: &Range<usize>, wanted: &'static str) -> ConfigError {
        self.text.wrong(span, Mistake::Type { key: key.to_owned(), wanted })
    }
}

/// A deserializer's message without the value that it quotes: a password where a table should be is
/// nothing for a log.
fn unquoted(message: &str) -> String {
    let cut =
        ["invalid type: ", "invalid value: "].iter().find(|start| message.starts_with(**start));
    match (cut, message.rfind(", expected ")) {
        (Some(_), Some(at)) => {
            let wanted = message.get(at..).unwrap_or_default();
            format!("this has the wrong type{wanted}")
        }
        _ => message.replace("unknown variant", "unknown key, or unknown kind of credential,"),
    }
}
