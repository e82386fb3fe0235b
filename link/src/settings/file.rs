//! The configuration file: TOML whose keys are settings, and tables that each program has for itself.
//!
//! In:  the path of a file, or a text.
//! Out: the document as a [`Given`].

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Place;
use super::{Env, Given, Mistake, Mistakes, variable};
use crate::{crypto, files};

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
            None => variable(env, "CONFIG", false)?,
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

    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The line and column of a byte.
    pub(super) fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (self.path.clone(), before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    pub fn wrong(&self, at: usize, sentence: impl Display) -> Mistake {
        Mistake::new(sentence).at(self.place(at))
    }

    /// The whole document, with underscores in all keys.
    pub fn parse<'a>(&'a self, mistakes: &'a Mistakes) -> Result<Given<'a>, Mistake> {
        let table = DeTable::parse(&self.text).map_err(|err| {
            let at = err.span().map_or(0, |span| span.start);
            let yaml = self.text.lines().any(|line| line.starts_with("groups:"));
            let hint = "; for reverst's `groups:` see the README's recipe of that name";
            let hint = if yaml { hint } else { "" };
            self.wrong(at, format!("this isn't TOML: {}{hint}", err.message()))
        })?;
        let document = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        let value = self.with_underscores(document, mistakes);
        Ok(Given { name: "the file".to_owned(), file: Some(self), mistakes, value })
    }

    fn with_underscores<'a>(&self, value: Value<'a>, mistakes: &Mistakes) -> Value<'a> {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => {
                let mut renamed = DeTable::new();
                for (key, value) in table {
                    let (at, name) = (key.span(), key.get_ref().replace('-', "_"));
                    if renamed.contains_key(&*name) {
                        let twice = format!("`{}` is given twice", name.escape_debug());
                        mistakes.add(self.wrong(at.start, twice));
                    }
                    let value = self.with_underscores(value, mistakes);
                    renamed.insert(Spanned::new(at, name.into()), value);
                }
                DeValue::Table(renamed)
            }
            DeValue::Array(items) => {
                let items = items.into_iter().map(|item| self.with_underscores(item, mistakes));
                DeValue::Array(items.collect())
            }
            other => other,
        };
        Spanned::new(span, value)
    }
}
