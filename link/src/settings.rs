//! Settings of a program. Each is declared once, by [`settings!`](macro@crate::settings), and is then a flag, an
//! environment variable and a key of the configuration file.
//!
//! A flag beats a variable, which beats the file, which beats the default. [`Sources`] knows that order, and
//! notes every mistake, so that all of them are told at once.
//!
//! The environment is a closure, so that tests need not change the process's own. A variable that is set but
//! empty counts as unset, as in `docker run -e LOG=`; for a [`Mark::Strict`] setting it is a mistake, since
//! going on without it would mean another secret, or none.

mod file;
mod mistake;
mod token;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub use file::{Fields, File, Table, Value};
pub use mistake::{ConfigError, Mistake, Mistakes, Place};
pub use token::{TokenSource, read_token_file};
pub use value::{As, Prefix, Scalar, Timeout, split};

/// Where variables are looked up: [`std::env::var_os`], or a table in a test.
pub type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The flags that were given: the texts of each, by the setting's name.
pub type Flags = BTreeMap<&'static str, Vec<String>>;

/// The declaration of a setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in the file, where `-` and `_` are the same. The flag is `--` and the name with dashes.
    pub name: &'static str,
    pub variable: &'static str,
    pub kind: Kind,
    pub marks: &'static [Mark],
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Text,
    /// Texts: the flag repeats, the variable separates them by commas or blanks, the file has an array.
    List,
    /// The same, where the flag separates them by commas, too.
    Commas,
    Number,
    Time,
    /// A path. In the file, a relative one begins at the file's folder.
    Path,
    Switch,
}

/// What else holds for a setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// An empty variable is a mistake.
    Strict,
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

/// Declares the arguments of a program and its settings, one a row: help, name, type of the flag, kind, variable,
/// marks. Fields in `with` are flags that are no settings; settings in `beside` have no flag.
#[macro_export]
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $args:ident {
            $(
                $(#[$help:meta])*
                $name:ident: $type:ident $(<$inner:ident>)? => $kind:ident $variable:literal $($mark:ident)*;
            )+
        }
        with { $( $(#[$more_help:meta])* $more:ident: $more_type:ident $(<$more_inner:ident>)?; )* }
        beside { $( $beside:ident => $beside_kind:ident $beside_variable:literal $($beside_mark:ident)*; )* }
    ) => {
        $(#[$about])*
        pub struct $args {
            $( $(#[$help])* pub $name: $type $(<$inner>)?, )+
            $( $(#[$more_help])* pub $more: $more_type $(<$more_inner>)?, )*
        }

        impl $args {
            /// All settings.
            pub const SETTINGS: &'static [$crate::settings::Setting] = &[
                $( $crate::settings!(@setting $name $kind $variable $($mark)*), )+
                $( $crate::settings!(@setting $beside $beside_kind $beside_variable $($beside_mark)*), )*
            ];

            /// The texts of each flag.
            pub fn given(&self) -> $crate::settings::Flags {
                [$( (stringify!($name), $crate::settings!(@texts $type self.$name)), )+].into()
            }
        }
    };
    (@setting $name:ident $kind:ident $variable:literal $($mark:ident)*) => {
        $crate::settings::Setting {
            name: stringify!($name),
            variable: $variable,
            kind: $crate::settings::Kind::$kind,
            marks: &[$($crate::settings::Mark::$mark),*],
        }
    };
    (@texts bool $flag:expr) => { $flag.then(|| "true".to_owned()).into_iter().collect() };
    (@texts $texts:ident $flag:expr) => { $flag.iter().cloned().collect() };
}

/// Where settings are looked up.
#[expect(missing_debug_implementations, reason = "of the closure")]
pub struct Sources<'a> {
    pub settings: &'static [Setting],
    pub flags: Flags,
    pub env: &'a Env<'a>,
    /// Tables of the file, the one that counts most first.
    pub tables: Vec<&'a Table>,
    pub mistakes: &'a Mistakes,
}

/// The level of the file's first table; 0 is the command line's, 1 the environment's. The lowest level counts.
const FILE: usize = 2;

/// A value that was given for a setting.
#[derive(Clone, Debug)]
pub struct Given {
    /// The flag with its dashes, the variable, or the key.
    pub name: String,
    pub is_flag: bool,
    /// Where the key is, if the file has it.
    pub place: Option<Place>,
    /// Never empty. Only a list has more than one.
    pub texts: Vec<String>,
}

impl Given {
    /// The text; of a list all of them, separated by commas.
    pub fn text(&self) -> String {
        self.texts.join(",")
    }

    /// A mistake in the value; the sentence goes on behind the name of the flag, variable or key.
    pub fn wrong(&self, why: impl fmt::Display) -> Mistake {
        self.here(format!("{} {why}", self.name))
    }

    /// A mistake that shows here, in a sentence of its own.
    pub fn here(&self, sentence: impl fmt::Display) -> Mistake {
        self.placed(Mistake::new(sentence))
    }

    /// The mistake, with its place if this is in the file.
    pub fn placed(&self, mistake: Mistake) -> Mistake {
        match &self.place {
            Some(place) => mistake.at(place.clone()),
            None => mistake,
        }
    }
}

impl Sources<'_> {
    /// The value of a setting from the source that counts most.
    pub fn get(&self, name: &'static str) -> Option<Given> {
        (0..FILE + self.tables.len()).find_map(|level| self.at(level, name))
    }

    /// The value of a setting, which a mistake quotes: it must be no secret.
    pub fn value<T: Scalar>(&self, name: &'static str) -> Option<T> {
        self.read(&self.get(name)?)
    }

    fn read<T: Scalar>(&self, given: &Given) -> Option<T> {
        self.mistakes.note(T::parse(given.text().trim()).map_err(|why| given.wrong(why)))
    }

    pub fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.get(name).map(|given| given.text().into())
    }

    /// Off where it isn't given.
    pub fn switch(&self, name: &'static str) -> bool {
        self.value(name).unwrap_or(false)
    }

    /// The parts of a list, and the value that they were in.
    pub fn list(&self, name: &'static str) -> Option<(Given, Vec<String>)> {
        let given = self.get(name)?;
        let apart = given.is_flag && self.setting(name).kind == Kind::List;
        let parts =
            given.texts.iter().map(|text| if apart { vec![text.clone()] } else { split(text) });
        let parts = parts.flatten().collect();
        Some((given, parts))
    }

    /// The values of `names` at the level that counts most of those where any of them has one. A switch that is off
    /// counts as none.
    pub fn nearest(&self, names: &[&'static str]) -> Vec<(&'static str, Given)> {
        let is_said = |name: &str, given: &Given| {
            self.setting(name).kind != Kind::Switch || self.read(given).unwrap_or(false)
        };
        let said = (0..FILE + self.tables.len()).map(|level| {
            let given = names.iter().filter_map(|name| Some((*name, self.at(level, name)?)));
            given.filter(|(name, given)| is_said(name, given)).collect::<Vec<_>>()
        });
        said.into_iter().find(|said| !said.is_empty()).unwrap_or_default()
    }

    /// The first value that a flag or a variable gives for a setting marked so.
    pub fn outside_file(&self, mark: Mark) -> Option<Given> {
        let mut marked = self.settings.iter().filter(|setting| setting.is(mark));
        marked.find_map(|setting| self.get(setting.name).filter(|given| given.place.is_none()))
    }

    fn setting(&self, name: &str) -> &'static Setting {
        let found = self.settings.iter().find(|setting| setting.name == name);
        found.expect("a setting that the program declares")
    }

    /// The value of a setting at one level.
    fn at(&self, level: usize, name: &'static str) -> Option<Given> {
        let setting = self.setting(name);
        let (name, texts) = match level {
            0 => {
                let texts = self.flags.get(name).filter(|texts| !texts.is_empty())?.clone();
                let name = match setting.is(Mark::Positional) {
                    true => setting.variable.to_owned(),
                    false => format!("--{}", setting.dashed()),
                };
                (name, texts)
            }
            1 => {
                let strict = setting.is(Mark::Strict);
                let text = variable_as(self.env, setting.variable, strict);
                (setting.variable.to_owned(), vec![self.mistakes.note(text).flatten()?])
            }
            _ => return self.tables.get(level - FILE)?.get(name).cloned(),
        };
        Some(Given { name, is_flag: level == 0, place: None, texts })
    }
}

/// The text of a variable, or `None` where it is unset or empty.
pub fn variable(env: &Env<'_>, name: &'static str) -> Result<Option<String>, Mistake> {
    variable_as(env, name, false)
}

/// The same; where it is `strict`, one that is set but empty or blank is a mistake.
fn variable_as(env: &Env<'_>, name: &'static str, strict: bool) -> Result<Option<String>, Mistake> {
    let mistake = |why| Mistake::new(format!("the variable {name} {why}"));
    let Some(value) = env(name) else { return Ok(None) };
    let value = value.into_string().map_err(|_| mistake("isn't UTF-8 text"))?;
    if strict && value.trim().is_empty() {
        return Err(mistake("is set but empty; give it a value or unset it"));
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests;
