//! Settings of a program. Each is declared once, by [`settings!`](macro@crate::settings), and is then a flag, an
//! environment variable and a key of the configuration file.
//!
//! A flag beats a variable, which beats the file, which beats the default. [`Sources`] finds the value that counts as a
//! [`Given`], whose reader says the type. Every mistake is noted, so that all of them are told at once.
//!
//! The environment is a closure, so that tests need not change the process's own. A variable that is set but
//! empty counts as unset, as in `docker run -e LOG=`; for a [`Mark::Strict`] setting it is a mistake, since
//! going on without it would mean another secret, or none.

mod file;
mod given;
mod mistake;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use crate::files;
use crate::token::begins_like_one;

pub use file::File;
pub use given::Given;
pub use mistake::{ConfigError, Mistake, Mistakes};
pub use value::{LEVEL, NUMBER, PREFIX, Parser, SIZE, TEXT, TIME, TIMEOUT, word};

/// Where variables are looked up: [`std::env::var_os`], or a table in a test.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The flags that were given, by the setting's name.
pub type Flags = BTreeMap<&'static str, DeValue<'static>>;

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in the file, where `-` and `_` are the same. The flag is `--` and the name with dashes.
    pub name: &'static str,
    pub variable: &'static str,
    pub marks: &'static [Mark],
}

/// What else holds for a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// An empty variable is a mistake.
    Strict,
    /// It is on or off, and off where it isn't given.
    Switch,
    /// A change in the file counts from the next start of the program.
    NextStart,
    /// It holds for the whole program: no table of the file has its own.
    Global,
    /// It belongs to one service: where the file has tables of services, it stands there.
    Own,
    /// It is a secret, so it has neither a flag nor a key: only the variable.
    Secret,
    /// It has no flag: it stands on the command line by itself.
    Positional,
}

impl Setting {
    pub fn is(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    pub fn dashed(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// Declares the flags of a program and its settings, one a row: help, what argh makes of it, name and type; and, of a
/// setting, the variable and the marks. Settings in `beside` have no flag.
#[macro_export]
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $args:ident {
            $(
                $(#[$help:meta])*
                $flag:ident $($value:literal)? => $name:ident: $type:ident $(<$inner:ident>)?
                $(, $variable:literal $($mark:ident)*)?;
            )+
        }
        beside { $( $beside:ident, $beside_variable:literal $($beside_mark:ident)*; )* }
    ) => {
        #[derive(argh::ArgsInfo, Debug, Default, argh::FromArgs)]
        $(#[$about])*
        pub struct $args {
            $(
                $(#[$help])*
                #[argh($flag $(, arg_name = $value)?)]
                pub $name: $type $(<$inner>)?,
            )+
        }

        impl $args {
            /// All settings.
            pub const SETTINGS: &'static [$crate::settings::Setting] = &[
                $($( $crate::settings!(@setting $name $variable $($mark)*), )?)+
                $( $crate::settings!(@setting $beside $beside_variable $($beside_mark)*), )*
            ];

            /// The flags that were given.
            pub fn given(&self) -> $crate::settings::Flags {
                let flags = [$( (stringify!($name), $crate::settings!(@flag $type self.$name)), )+];
                flags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
        }
    };
    (@setting $name:ident $variable:literal $($mark:ident)*) => {
        $crate::settings::Setting {
            name: stringify!($name),
            variable: $variable,
            marks: &[$($crate::settings::Mark::$mark),*],
        }
    };
    (@flag bool $flag:expr) => { $flag.then(|| $crate::settings::text("true")) };
    (@flag Option $text:expr) => { $text.as_deref().map($crate::settings::text) };
    (@flag Vec $texts:expr) => { $crate::settings::texts(&$texts) };
}

/// What a flag or a variable gives.
pub fn text(text: &str) -> DeValue<'static> {
    DeValue::String(text.to_owned().into())
}

pub fn texts(texts: &[String]) -> Option<DeValue<'static>> {
    let items = texts.iter().map(|it| Spanned::new(0..0, text(it)));
    (!texts.is_empty()).then(|| DeValue::Array(items.collect()))
}

#[expect(missing_debug_implementations, reason = "of the closure")]
pub struct Sources<'a> {
    pub settings: &'static [Setting],
    pub flags: Flags,
    pub env: &'a Env<'a>,
    /// Tables of the file, the one that counts most first.
    pub tables: Vec<&'a Given<'a>>,
    pub mistakes: &'a Mistakes,
}

/// The level of the file's first table; 0 is the command line's, 1 the environment's. The lowest level counts.
const FILE: usize = 2;

impl<'a> Sources<'a> {
    /// The value of a setting from the source that counts most.
    pub fn get(&self, name: &'static str) -> Option<Given<'a>> {
        (0..FILE + self.tables.len()).find_map(|level| self.at(level, name))
    }

    /// The value of a setting, which a mistake quotes: it must be no secret.
    pub fn value<T>(&self, name: &'static str, parser: &Parser<T>) -> Option<T> {
        self.get(name)?.value(parser)
    }

    pub fn list<T>(&self, name: &'static str, parser: &Parser<T>) -> Option<Vec<T>> {
        Some(self.get(name)?.list(parser))
    }

    pub fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.mistakes.note(self.get(name)?.path())
    }

    /// Off where it isn't given.
    pub fn switch(&self, name: &'static str) -> bool {
        self.get(name).and_then(|given| given.switch()).unwrap_or(false)
    }

    /// The values of `names` at the level that counts most of those where any of them has one. A switch that is off
    /// counts as none.
    pub fn nearest(&self, names: &[&'static str]) -> Vec<(&'static str, Given<'a>)> {
        let is_said = |name: &str, given: &Given<'_>| {
            !self.setting(name).is(Mark::Switch) || given.switch().unwrap_or(false)
        };
        let said = (0..FILE + self.tables.len()).map(|level| {
            let given = names.iter().filter_map(|name| Some((*name, self.at(level, name)?)));
            given.filter(|(name, given)| is_said(name, given)).collect::<Vec<_>>()
        });
        said.into_iter().find(|said| !said.is_empty()).unwrap_or_default()
    }

    fn setting(&self, name: &str) -> &'static Setting {
        let found = self.settings.iter().find(|setting| setting.name == name);
        found.expect("a setting that the program declares")
    }

    fn at(&self, level: usize, name: &'static str) -> Option<Given<'a>> {
        let setting = self.setting(name);
        let (name, value) = match level {
            0 => match setting.is(Mark::Positional) {
                true => (setting.variable.to_owned(), self.flags.get(name)?.clone()),
                false => (format!("--{}", setting.dashed()), self.flags.get(name)?.clone()),
            },
            1 => {
                let text = variable(self.env, setting.variable, setting.is(Mark::Strict));
                (setting.variable.to_owned(), self::text(&self.mistakes.note(text).flatten()?))
            }
            _ if setting.is(Mark::Secret) => return None,
            _ => {
                let given = self.tables.get(level - FILE)?.get(name)?;
                let text = given.value.get_ref().as_str();
                return match text.is_some_and(|text| text.trim().is_empty()) {
                    true => given.refuse(format!("`{name}` is empty")),
                    false => Some(given),
                };
            }
        };
        Some(Given { name, file: None, mistakes: self.mistakes, value: Spanned::new(0..0, value) })
    }
}

/// The text of a variable, or `None` where it is unset or empty. Where it is `strict`, one that is set but empty or
/// blank is a mistake.
pub fn variable(env: &Env<'_>, name: &str, strict: bool) -> Result<Option<String>, Mistake> {
    let mistake = |why| Mistake::new(format!("the variable {name} {why}"));
    let Some(value) = env(name) else { return Ok(None) };
    let value = value.into_string().map_err(|_| mistake("isn't UTF-8 text"))?;
    if strict && value.trim().is_empty() {
        return Err(mistake("is set but empty; give it a value or unset it"));
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// What `parse` makes of the text in the variable TOKEN, or in the file that `token_file` names; and that file. The
/// program declares both settings. Blocks.
pub fn token<T>(
    sources: &Sources<'_>,
    parse: impl FnOnce(&str, Option<&Path>) -> Result<T, String>,
) -> Result<Option<(T, Option<PathBuf>)>, Mistake> {
    let mut said = sources.nearest(&["token", "token_file"]);
    let Some((name, given)) = said.pop() else { return Ok(None) };
    if !said.is_empty() {
        let why = "the variables TOKEN and TOKEN_FILE are both set; unset one of them";
        return Err(Mistake::new(why));
    }
    let text = given.text()?;
    if name == "token" {
        let wrong = |why| Mistake::new(format!("the variable TOKEN: {why}"));
        return parse(&text, None).map(|it| Some((it, None))).map_err(wrong);
    }
    let path = given.path()?;
    if begins_like_one(&text) && !path.exists() {
        return Err(given.here(
            "--token-file (TOKEN_FILE) takes a path, not the token itself; give the token by the variable TOKEN, where other users don't see it",
        ));
    }
    let wrong = |why| given.here(format!("the token file {}: {why}", path.display()));
    let text = read_token_file(&path).map_err(|why| given.here(why))?;
    let parsed = parse(&text, Some(&path)).map_err(wrong)?;
    Ok(Some((parsed, Some(path))))
}

/// Blocks. The error is a sentence for the operator.
pub fn read_token_file(path: &Path) -> Result<String, String> {
    String::from_utf8(files::read("the token file", path)?)
        .map_err(|_| format!("the token file {} isn't UTF-8 text", path.display()))
}

#[cfg(test)]
mod tests;
