//! A value that was given for a setting, or that a table of the file has; also a whole table.

use std::borrow::Cow;
use std::fmt::Display;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::file::{File, Value};
use super::value::PATH;
use super::{Mark, Mistake, Mistakes, Parser, Setting, TEXT, text, word};

#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it may be a secret")]
pub struct Given<'a> {
    /// The flag with its dashes, the variable, or the key; of a table, what the sentences call it.
    pub name: String,
    /// `None`: a flag or a variable gave it.
    pub file: Option<&'a File>,
    pub mistakes: &'a Mistakes,
    pub value: Value<'a>,
}

impl<'a> Given<'a> {
    pub fn line(&self) -> usize {
        self.file.map_or(0, |file| file.place(self.value.span().start).1)
    }

    /// # Errors
    /// A sentence that quotes the value, which must be no secret, but not one of another type, which may be one.
    pub fn read<T>(&self, parser: &Parser<T>) -> Result<T, Mistake> {
        match self.scalar() {
            Some(text) => parser.parse(&text).map_err(|why| self.wrong(why)),
            None => Err(self.here(format!("`{}` takes {}", self.name, parser.0))),
        }
    }

    pub fn text(&self) -> Result<String, Mistake> {
        self.read(&TEXT)
    }

    fn scalar(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.trim().to_owned()),
            DeValue::Integer(it) if it.radix() == 10 => Some(it.as_str().replace('_', "")),
            DeValue::Float(number) => Some(number.as_str().replace('_', "")),
            _ => None,
        }
    }

    /// The same; a mistake is noted.
    pub fn value<T>(&self, parser: &Parser<T>) -> Option<T> {
        self.mistakes.note(self.read(parser))
    }

    /// In the file, a relative path begins at the file's folder.
    pub fn path(&self) -> Result<PathBuf, Mistake> {
        let path = PathBuf::from(self.read(&PATH)?);
        Ok(self.file.map_or(path.clone(), |file| file.folder().join(path)))
    }

    pub fn switch(&self) -> Option<bool> {
        let on = [("1", true), ("true", true), ("yes", true), ("on", true)];
        let off = [("0", false), ("false", false), ("no", false), ("off", false)];
        let read = match self.value.get_ref() {
            DeValue::Boolean(on) => Ok(*on),
            DeValue::String(text) if self.file.is_none() => {
                word(&text.trim().to_ascii_lowercase(), &[on, off].concat())
                    .map_err(|_| self.wrong(format!("{text:?} must be 1 or 0")))
            }
            _ => Err(self.here(format!("`{}` takes true or false", self.name))),
        };
        self.mistakes.note(read)
    }

    /// The parts of a list: an array, or a text where commas or blanks separate them. Anything else is one part.
    pub fn items(&self) -> Vec<Self> {
        let of = |value| self.field(&self.name, value);
        match self.value.get_ref() {
            DeValue::Array(items) => items.iter().cloned().map(of).collect(),
            DeValue::String(list) => {
                let parts = list.split(|c: char| c == ',' || c.is_whitespace());
                let parts = parts.filter(|part| !part.is_empty());
                parts.map(|part| of(Spanned::new(self.value.span(), text(part)))).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// The parts of a list. A malformed one is noted and left out.
    pub fn list<T>(&self, parser: &Parser<T>) -> Vec<T> {
        self.items().iter().filter_map(|item| item.value(parser)).collect()
    }

    /// The parts of a list, separated by commas, to compare or to parse in one; nothing in place of what is no text.
    pub fn joined(&self) -> String {
        let texts: Vec<_> = self.items().iter().filter_map(Self::scalar).collect();
        texts.join(",")
    }

    /// A mistake in the value; the sentence goes on behind the name of the flag, variable or key.
    pub fn wrong(&self, why: impl Display) -> Mistake {
        self.here(format!("{} {why}", self.name))
    }

    /// A mistake that shows here, in a sentence of its own.
    pub fn here(&self, sentence: impl Display) -> Mistake {
        self.placed(Mistake::new(sentence))
    }

    /// The mistake, with its place if this is in the file.
    pub fn placed(&self, mistake: Mistake) -> Mistake {
        match self.file {
            Some(file) => mistake.at(file.place(self.value.span().start)),
            None => mistake,
        }
    }

    /// Notes a mistake that shows here, in place of a value.
    pub fn refuse<T>(&self, sentence: impl Display) -> Option<T> {
        self.mistakes.note(Err(self.here(sentence)))
    }
}

/// A table. Its fields are taken out one by one; [`Self::end`] notes those that are left.
impl<'a> Given<'a> {
    /// The same, if it is a table, which the sentences call `name`.
    pub fn table(self, name: &str) -> Option<Self> {
        match self.value.get_ref().is_table() {
            true => Some(Self { name: name.to_owned(), ..self }),
            false => self.refuse(format!("`{}` takes a table", self.name)),
        }
    }

    fn field(&self, key: &str, value: Value<'a>) -> Self {
        Self { name: key.to_owned(), file: self.file, mistakes: self.mistakes, value }
    }

    pub fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.get_ref().get(key)?;
        Some(self.field(key, value.clone()))
    }

    fn remove(&mut self, key: &str) -> Option<(Spanned<Cow<'a, str>>, Value<'a>)> {
        match self.value.get_mut() {
            DeValue::Table(table) => table.remove_entry(key),
            _ => None,
        }
    }

    pub fn take(&mut self, key: &str) -> Option<Self> {
        let (_, value) = self.remove(key)?;
        Some(self.field(key, value))
    }

    /// All fields of a table whose keys are no settings.
    pub fn fields(&self) -> Vec<Self> {
        let table = self.value.get_ref().as_table();
        let fields = table.into_iter().flat_map(|table| table.iter());
        fields.map(|(key, value)| self.field(key.get_ref(), value.clone())).collect()
    }

    /// Takes a field out, into a table of its own.
    pub fn alone(&mut self, key: &str) -> Option<Self> {
        let (name, value) = self.remove(key)?;
        let span = value.span();
        let table = DeValue::Table([(name, value)].into_iter().collect());
        Some(self.field(key, Spanned::new(span, table)))
    }

    /// The tables of a list, which the sentences call `name`; one table alone needs no brackets.
    pub fn tables(&mut self, key: &str, name: &str) -> Vec<Self> {
        let items = self.take(key).map(|given| given.items()).unwrap_or_default();
        items.into_iter().filter_map(|item| item.table(name)).collect()
    }

    pub fn take_value<T>(&mut self, key: &str, parser: &Parser<T>) -> Option<T> {
        self.take(key)?.value(parser)
    }

    /// Notes each field that is left and is none of the settings.
    pub fn end(&self, settings: &'static [Setting]) {
        let (name, table) = (&self.name, self.value.get_ref().as_table());
        for key in table.into_iter().flat_map(|table| table.keys()) {
            let text = key.get_ref();
            let sentence = match settings.iter().find(|setting| setting.name == text) {
                Some(setting) if setting.is(Mark::Secret) => format!(
                    "`{text}` is no key of {name}; give it by `{text}_file`, or by the variable {}",
                    setting.variable
                ),
                Some(_) => continue,
                // The table of another program that 2ptth replaces.
                None if text == "proxy" => format!(
                    "`proxy` isn't a key of {name}; check its spelling, or see the README's recipes for `[[proxy]]`"
                ),
                None => {
                    let key = text.escape_debug();
                    format!("`{key}` isn't a key of {name}; check its spelling")
                }
            };
            self.field(text, Spanned::new(key.span(), DeValue::Boolean(false)))
                .refuse::<()>(sentence);
        }
    }
}
