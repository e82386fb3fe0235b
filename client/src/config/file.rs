//! The file of `--config`: what stands in it is behind the flags and the environment.
//!
//! In:  TOML whose keys are the flags' names, and `[[service]]` tables.
//! Out: for each service an environment, in which the variables that aren't set have the file's values. So
//!      there is one hierarchy, flag > variable > service > file > default, and one place that knows it.

mod mistake;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ptth_link::env::{self, Env};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Authorization, Config, ConfigError, Service};

pub use mistake::{FileError, Place};

/// A file that was read. The default is an empty one.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    top: Table,
    services: Vec<Table>,
}

/// What one table says, by the variables that would say it.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<&'static str, Entry>,
    place: Place,
}

#[derive(Clone, Debug)]
struct Entry {
    text: String,
    place: Place,
}

impl File {
    /// Reads a file. Blocks.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let unreadable = |why: String| FileError::Unreadable { path: path.to_owned(), why };
        let bytes = fs::read(path).map_err(|err| unreadable(err.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable("it isn't text".to_owned()))?;
        let text = text.trim_start_matches('\u{feff}');
        let reading = Reading { path: path.into(), text };
        let table = DeTable::parse(text).map_err(|err| {
            let at = err.span().map_or(0, |span| span.start);
            reading.error(at, format!("this is no TOML: {}", err.message()))
        })?;
        reading.file(table.get_ref())
    }

    /// How many services have tables of their own.
    pub(super) fn services(&self) -> usize {
        self.services.len()
    }

    /// The tables that each service looks into, the first one first.
    pub(super) fn layers(&self) -> Vec<Layers<'_>> {
        match self.services.as_slice() {
            [] => vec![Layers([None, Some(&self.top)])],
            several => several.iter().map(|table| Layers([Some(table), Some(&self.top)])).collect(),
        }
    }

    /// Where the whole file says `variable`.
    pub(super) fn place(&self, variable: &str) -> Option<&Place> {
        self.top.entries.get(variable).map(|entry| &entry.place)
    }
}

/// A service's table, and the whole file's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers<'a>([Option<&'a Table>; 2]);

impl<'a> Layers<'a> {
    /// What a table of a service must have: an origin, and something that tells it from those before.
    pub(super) fn check(&self, service: &Service, before: &[Service]) -> Result<(), FileError> {
        let [Some(table), _] = self.0 else { return Ok(()) };
        let twin = before.iter().any(|other| is_twin(&other.config, &service.config));
        let why = match table.entries.contains_key("ORIGIN") {
            false => "this service has no origin",
            true if twin => {
                "another service has the same credential, and one of them asks for all that the other does, so visitors would get either; give each a host, a path or a name"
            }
            true => return Ok(()),
        };
        Err(FileError::At { place: table.place.clone(), why: why.to_owned() })
    }

    /// `env`, and behind it these tables, as if they didn't say `without`.
    pub(super) fn behind<'e>(
        &'e self,
        env: &'e Env<'e>,
        without: Option<&'e Place>,
    ) -> impl Fn(&str) -> Option<OsString> + 'e {
        move |variable| {
            let rivals = RIVALS.iter().find(|group| group.contains(&variable)).copied();
            let rivals = rivals.unwrap_or_default();
            let said = env(variable);
            // Empty is as good as unset, but for those where it would mean another secret.
            if said.as_ref().is_some_and(|said| !said.is_empty() || !rivals.is_empty())
                || rivals.iter().any(|rival| is_set(env, rival))
            {
                return said;
            }
            for table in self.0.iter().flatten() {
                let entry = table.entries.get(variable);
                if let Some(entry) = entry.filter(|entry| Some(&entry.place) != without) {
                    return Some(entry.text.clone().into());
                }
                if rivals.iter().any(|rival| table.entries.contains_key(rival)) {
                    return None;
                }
            }
            said
        }
    }

    /// All places of these tables.
    pub(super) fn places(&self) -> impl Iterator<Item = &'a Place> {
        let entries = self.0.into_iter().flatten().flat_map(|table| table.entries.values());
        entries.map(|entry| &entry.place)
    }
}

/// What `read` makes of the tables behind `env`. A mistake that is gone without one of their values is told
/// with its place.
pub(super) fn blaming<T>(
    layers: Layers<'_>,
    env: &Env<'_>,
    read: impl Fn(&Env<'_>) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let err = match read(&layers.behind(env, None)) {
        Ok(value) => return Ok(value),
        Err(err) => err,
    };
    let is_guilty = |place: &&Place| match read(&layers.behind(env, Some(place))) {
        Ok(_) => true,
        // Without a gateway that is the only mistake that shows.
        Err(ConfigError::NoGateway) => matches!(err, ConfigError::Gateway { .. }),
        Err(other) => other != err,
    };
    Err(match layers.places().find(is_guilty) {
        Some(place) => FileError::At { place: place.clone(), why: err.to_string() }.into(),
        None => err,
    })
}

/// Whether one asks for all that the other asks for.
fn covers(one: &Config, other: &Config) -> bool {
    let asks = |config: &Config| (config.asked_host.clone(), config.name.clone());
    let all = asks(one) == (None, None);
    (all || asks(one) == asks(other)) && (one.path.is_none() || one.path == other.path)
}

/// Whether the gateway would have both answer for the same.
fn is_twin(one: &Config, other: &Config) -> bool {
    let same_authorization = match (&one.authorization, &other.authorization) {
        (None, None) => true,
        (Some(Authorization::File(one)), Some(Authorization::File(other))) => one == other,
        (Some(Authorization::Command(one)), Some(Authorization::Command(other))) => one == other,
        (Some(Authorization::Fixed(one)), Some(Authorization::Fixed(other))) => one == other,
        _ => false,
    };
    let same_credential = same_authorization && one.token == other.token;
    let gateway = |config: &Config| (config.gateway.clone(), config.via);
    same_credential && gateway(one) == gateway(other) && (covers(one, other) || covers(other, one))
}

fn is_set(env: &Env<'_>, variable: &'static str) -> bool {
    match variable {
        "INSECURE" => env::switch(env, variable).unwrap_or(true),
        _ => env(variable).is_some(),
    }
}

/// One reading of one file.
struct Reading<'t> {
    path: Arc<Path>,
    text: &'t str,
}

impl Reading<'_> {
    fn file(&self, table: &DeTable<'_>) -> Result<File, FileError> {
        let (mut file, mut wrong) = (File::default(), Vec::new());
        for (key, value) in table {
            if key.get_ref() != "service" {
                let at = key.span().start;
                wrong.extend(self.entry(&mut file.top, false, key.get_ref(), at, value).err());
                continue;
            }
            let tables = value.get_ref().as_array().map(|tables| tables.iter());
            for service in tables.ok_or_else(|| self.error(key.span().start, NO_ARRAY.into()))? {
                let at = service.span().start;
                let entries = service.get_ref().as_table();
                let entries = entries.ok_or_else(|| self.error(at, NO_ARRAY.into()))?;
                let mut table = Table { place: self.place(at), ..Table::default() };
                for (key, value) in entries {
                    let at = key.span().start;
                    wrong.extend(self.entry(&mut table, true, key.get_ref(), at, value).err());
                }
                file.services.push(table);
            }
        }
        wrong.sort_by_key(FileError::order);
        match wrong.len() {
            0 => {}
            1 => return Err(wrong.remove(0)),
            _ => return Err(FileError::Several(wrong)),
        }
        match (file.services.as_slice(), ["PUBLIC_HOST", "PUBLIC_PATH", "NAME", "ORIGIN"]) {
            ([], _) => Ok(file),
            (_, own) => match own.iter().find_map(|own| file.place(own)) {
                Some(place) => Err(FileError::At {
                    place: place.clone(),
                    why: "this belongs into a [[service]], where there are some".to_owned(),
                }),
                None => Ok(file),
            },
        }
    }

    fn entry(
        &self,
        table: &mut Table,
        service: bool,
        key: &str,
        at: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), FileError> {
        let name = key.replace('-', "_");
        let Some(known) = KEYS.iter().find(|known| known.name == name) else {
            let hint = match name.as_str() {
                "token" => "; give the token by token_file, or by the variable TOKEN",
                "authorization" => "; give it by authorization_file or authorization_command",
                _ => "",
            };
            return Err(self.error(at, format!("there is no setting {key:?}{hint}")));
        };
        if service && !known.service {
            return Err(self.error(at, format!("{key:?} holds for all services; move it up")));
        }
        let place = value.span().start;
        let text = match (known.kind, value.get_ref()) {
            (Kind::Text | Kind::Path, DeValue::String(text)) if !text.trim().is_empty() => {
                text.to_string()
            }
            (Kind::Text | Kind::Path, DeValue::String(_)) => {
                return Err(self.error(place, format!("{key:?} is empty")));
            }
            (Kind::Text, _) => {
                return Err(self.error(place, format!("{key:?} must be text, in quotation marks")));
            }
            (Kind::Path, _) => {
                return Err(
                    self.error(place, format!("{key:?} must be a path, in quotation marks"))
                );
            }
            (Kind::Number, DeValue::Integer(number)) => number.to_string(),
            (Kind::Number, _) => {
                return Err(self.error(place, format!("{key:?} must be a whole number")));
            }
            (Kind::Switch, DeValue::Boolean(on)) => on.to_string(),
            (Kind::Switch, _) => {
                return Err(self.error(place, format!("{key:?} must be true or false")));
            }
        };
        let text = if known.kind == Kind::Path { self.beside(&text) } else { text };
        let entry = Entry { text, place: self.place(place) };
        match table.entries.insert(known.variable, entry) {
            None => Ok(()),
            Some(_) => {
                Err(self.error(at, format!("{key:?} stands here twice, once with -, once with _")))
            }
        }
    }

    /// A path, from the file's folder where it is relative.
    fn beside(&self, path: &str) -> String {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(path).to_str().map_or_else(|| path.to_owned(), str::to_owned)
    }

    fn error(&self, at: usize, why: String) -> FileError {
        FileError::At { place: self.place(at), why }
    }

    fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { path: self.path.clone(), line, column }
    }
}

/// A key that a file may have.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The variable that it stands in for.
    pub(super) variable: &'static str,
    /// Whether a service may have its own.
    service: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Text,
    Path,
    Number,
    Switch,
}

const fn key(name: &'static str, variable: &'static str, service: bool, kind: Kind) -> Key {
    Key { name, variable, service, kind }
}

/// All of them.
pub(super) const KEYS: &[Key] = &[
    key("gateway", "GATEWAY", true, Kind::Text),
    key("origin", "ORIGIN", true, Kind::Text),
    key("host", "PUBLIC_HOST", true, Kind::Text),
    key("path", "PUBLIC_PATH", true, Kind::Text),
    key("name", "NAME", true, Kind::Text),
    key("token_file", "TOKEN_FILE", true, Kind::Path),
    key("authorization_file", "AUTHORIZATION_FILE", true, Kind::Path),
    key("authorization_command", "AUTHORIZATION_COMMAND", true, Kind::Text),
    key("via", "VIA", true, Kind::Text),
    key("all_addresses", "ALL_ADDRESSES", true, Kind::Switch),
    key("ca", "CA", true, Kind::Path),
    key("pin", "PIN", true, Kind::Text),
    key("insecure", "INSECURE", true, Kind::Switch),
    key("any_host", "ANY_HOST", true, Kind::Switch),
    key("standby", "STANDBY", true, Kind::Switch),
    key("tunnels", "TUNNELS", true, Kind::Number),
    key("host_header", "HOST_HEADER", true, Kind::Text),
    key("forwarded", "FORWARDED", true, Kind::Text),
    key("origin_ca", "ORIGIN_CA", true, Kind::Path),
    key("origin_name", "ORIGIN_NAME", true, Kind::Text),
    key("alpn", "ALPN", true, Kind::Text),
    key("url_file", "URL_FILE", false, Kind::Path),
    key("log", "LOG", false, Kind::Text),
];

/// Of these one speaks for all: what is said closer hides all that is said behind.
const RIVALS: &[&[&str]] = &[
    &["TOKEN", "TOKEN_FILE"],
    &["AUTHORIZATION", "AUTHORIZATION_FILE", "AUTHORIZATION_COMMAND"],
    &["CA", "PIN", "INSECURE"],
];

const NO_ARRAY: &str = "a service is a table of its own, below a line [[service]]";
