//! The tables that only the file has: `[[certificate]]`, `[[route]]` and `[names]`, checked one by one and
//! against each other.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use ptth_client::config::OriginAddress;
use ptth_link::settings::file::{self, Value};
use ptth_link::settings::{
    self, As, Env, File, List, Mistake, Mistakes, Prefix, Scalar, Table, Whole, split,
};
use ptth_link::token;

use super::names::names;
use super::route::{HOLD_REQUESTS, Hold, Names, NoBackend, RESPOND_LIMIT, Respond, Route};
use super::scalars::{Size, Status};
use super::{Args, CertificateSource};
use crate::auth::{Credential, Files, Settings};
use crate::router::{self, HostPattern};

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) settings: Table,
    pub(super) certificates: Vec<CertificateSource>,
    pub(super) routes: Vec<Route>,
    pub(super) names: Option<Names>,
}

pub(super) struct Reader<'a> {
    pub(super) file: &'a File,
    pub(super) files: &'a mut Files,
    pub(super) mistakes: &'a Mistakes,
}

/// A route, and the places of its parts in the file.
pub(super) struct Read {
    pub(super) route: Route,
    /// Of the table.
    pub(super) at: usize,
    name: usize,
    pub(super) hosts: Vec<usize>,
}

/// A table of the file. Its fields are taken out one by one; [`Self::end`] tells those that are left.
pub(super) struct Fields<'a> {
    file: &'a File,
    mistakes: &'a Mistakes,
    pub(super) value: Value<'a>,
    /// What the sentences call the table.
    name: &'static str,
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    /// A field by its schema. What can't be read is noted and left out.
    pub(super) fn field<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let alone = self.alone(key)?;
        let read: Option<HashMap<String, T>> = self.file.schema(alone, self.name, self.mistakes);
        read?.remove(key)
    }

    /// Takes a field out, into a table of its own.
    pub(super) fn alone(&mut self, key: &str) -> Option<Value<'a>> {
        let DeValue::Table(table) = self.value.get_mut() else { return None };
        let (key, value) = table.remove_entry(key)?;
        Some(Spanned::new(value.span(), DeValue::Table([(key, value)].into_iter().collect())))
    }

    /// A scalar and its place.
    pub(super) fn scalar<T: Scalar>(&mut self, key: &str) -> Option<(usize, T)> {
        let read: Spanned<As<T>> = self.field(key)?;
        Some((read.span().start, read.into_inner().0))
    }

    /// Reads a scalar into its place, if there is one.
    pub(super) fn set<T: Scalar>(&mut self, key: &str, value: &mut T) {
        if let Some((_, read)) = self.scalar(key) {
            *value = read;
        }
    }

    pub(super) fn end(self) {
        self.file.unknown(self.value, self.name, &[], self.mistakes);
    }
}

impl Tables {
    /// Reads the whole file, and the secret files that it names.
    pub(super) fn read(file: &File, files: &mut Files, mistakes: &Mistakes) -> Self {
        let mut read = Self::default();
        let Some(mut document) = file.parse(mistakes) else { return read };
        read.settings = file.settings(&mut document, Args::SETTINGS, mistakes);
        let mut tables =
            |key| file.tables(&mut document, key, mistakes).map(|it| it.1).unwrap_or_default();
        let (routes, certificates) = (tables("route"), tables("certificate"));
        let names_table = file::take(&mut document, "names");
        file.unknown(document, "the file", Args::SETTINGS, mistakes);
        let mut reader = Reader { file, files, mistakes };
        read.certificates =
            certificates.into_iter().filter_map(|it| reader.certificate(it)).collect();
        let only = routes.len() == 1;
        let routes: Vec<_> = routes.into_iter().filter_map(|it| reader.route(it, only)).collect();
        mistakes.note(reader.differ(&routes));
        read.names = names_table.and_then(|table| names(&mut reader, table, &routes));
        read.routes = routes.into_iter().map(|read| read.route).collect();
        read
    }
}

/// What variables say that have no flag: dynamic names, as the file would have them.
pub(super) fn names_of_variables(env: &Env<'_>) -> Result<Option<File>, Mistake> {
    let mut table = String::new();
    if let Some(domain) = settings::variable(env, "NAMES_DOMAIN")? {
        table.push_str(&format!("domain = {:?}\n", domain.trim()));
    }
    if let Some(hosts) = settings::variable(env, "NAMES_PATH_HOSTS")? {
        table.push_str(&format!("path_hosts = {:?}\n", split(&hosts)));
    }
    if table.is_empty() {
        return Ok(None);
    }
    let secrets = ["NAMES_JWT_SECRET_A", "NAMES_JWT_SECRET_B"];
    let secrets = secrets.into_iter().filter(|it| env(it).is_some_and(|it| !it.is_empty()));
    let secrets: Vec<_> = secrets.collect();
    let claim = settings::variable(env, "NAMES_JWT_CLAIM")?.unwrap_or_else(|| "tid".to_owned());
    let audience = settings::variable(env, "NAMES_JWT_AUDIENCE")?;
    let audience = audience.map_or_else(String::new, |it| format!(", audience = {it:?}"));
    let jwt = format!("jwt = {{ hs256_env = {secrets:?}, name_claim = {claim:?}{audience} }}\n");
    Ok(Some(File::of("NAMES_DOMAIN", format!("[names]\n{table}{jwt}"))))
}

impl<'a> Reader<'a> {
    /// Notes a mistake at a byte of the file.
    pub(super) fn wrong(&self, at: usize, sentence: impl Display) {
        self.mistakes.add(self.file.wrong(at, sentence));
    }

    /// The same, in place of a value.
    pub(super) fn refuse<T>(&self, at: usize, sentence: impl Display) -> Option<T> {
        self.mistakes.note(Err(self.file.wrong(at, sentence)))
    }

    pub(super) fn fields(&self, value: Value<'a>, name: &'static str) -> Option<Fields<'a>> {
        let at = value.span().start;
        if !value.get_ref().is_table() {
            return self.refuse(at, format!("`{}` takes a table", name.trim_matches(['[', ']'])));
        }
        Some(Fields { file: self.file, mistakes: self.mistakes, value, name, at })
    }

    fn certificate(&mut self, table: Value<'a>) -> Option<CertificateSource> {
        let mut fields = self.fields(table, "[[certificate]]")?;
        let mut path = |key| {
            let (_, path) = fields.scalar::<String>(key).filter(|(_, path)| !path.is_empty())?;
            Some(self.file.folder().join(path))
        };
        let (cert, key, at) = (path("cert"), path("key"), fields.at);
        fields.end();
        match (cert, key) {
            (Some(cert), Some(key)) => Some(CertificateSource::Files { cert, key }),
            (None, _) => self.refuse(at, "`[[certificate]]` needs `cert`"),
            (_, None) => self.refuse(at, "`cert` needs `key`"),
        }
    }

    fn route(&mut self, table: Value<'a>, only: bool) -> Option<Read> {
        let before = self.mistakes.count();
        let mut fields = self.fields(table, "[[route]]")?;
        let at = fields.at;
        if fields.value.get_ref().get("hosts").is_none() && !only {
            self.wrong(at, "this route needs `hosts`, since it isn't the only one");
        }
        let (patterns, hosts) = match fields.field::<List<HostPattern>>("hosts") {
            Some(list) if !list.items.is_empty() => {
                list.items.into_iter().map(|(at, host)| (host, at.start)).unzip()
            }
            list => {
                if let Some(list) = list.filter(|_| self.mistakes.is_empty()) {
                    let why = "`hosts` is empty, so this route would never be used";
                    self.wrong(list.span.start, why);
                }
                (vec![HostPattern::Any], vec![at])
            }
        };
        let mut route = Route::new("", patterns);
        if let Some((_, Prefix(path))) = fields.scalar("path") {
            route.path = path;
        }
        let (name_at, name) = fields.scalar("name").unwrap_or_else(|| (at, named(&route)));
        if name.is_empty() || name.chars().any(char::is_control) {
            self.wrong(name_at, "`name` is empty, but logs call the route by it");
        }
        route.name = name;
        route.strip = fields.field("strip").unwrap_or(route.strip);
        fields.set("when_taken", &mut route.when_taken);
        fields.set("queue", &mut route.queue);
        route.hold = self.hold(&mut fields);
        route.respond = fields
            .scalar("respond")
            .map(|(_, Status(status))| Respond { status, limit: RESPOND_LIMIT });
        match (&mut route.respond, fields.scalar("respond_limit")) {
            (Some(respond), Some((_, Size(limit)))) => respond.limit = limit,
            (None, Some((at, _))) => self.wrong(at, "`respond_limit` needs `respond`"),
            (_, None) => {}
        }
        if let Some(no_backend) = self.no_backend(&mut fields) {
            if route.respond.is_some() && matches!(no_backend, NoBackend::Origin(_)) {
                // What is delivered later waits for its backend.
                self.wrong(at, "an `origin` in `no_backend` needs a route without `respond`");
            }
            route.no_backend = no_backend;
        }
        if let Some((span, tables)) = self.file.tables(&mut fields.value, "allow", self.mistakes) {
            if tables.is_empty() {
                self.wrong(span.start, format!("`allow` is empty, {NOBODY}"));
            }
            route.allow = Some(tables.into_iter().filter_map(|it| self.credential(it)).collect());
        }
        fields.end();
        let fine = self.mistakes.count() == before;
        fine.then_some(Read { route, at, name: name_at, hosts })
    }

    /// Whether requests wait for a backend to come.
    pub(super) fn hold(&self, fields: &mut Fields<'_>) -> Option<Hold> {
        let time = fields.scalar("hold");
        let requests = fields.scalar("hold_requests");
        if let (None, Some((at, _))) = (time, requests) {
            self.wrong(at, "`hold_requests` needs `hold`");
        }
        let (_, time) = time?;
        let hold =
            Hold { time, requests: requests.map_or(HOLD_REQUESTS, |(_, Whole(number))| number) };
        // "0s" switches it off for a while.
        (!hold.time.is_zero()).then_some(hold)
    }

    /// What a visitor gets where no backend is: a scalar, or a table.
    pub(super) fn no_backend(&mut self, fields: &mut Fields<'a>) -> Option<NoBackend> {
        let Some(table) = file::take_table(&mut fields.value, "no_backend") else {
            return fields.scalar("no_backend").map(|(_, answer)| answer);
        };
        let mut fields = self.fields(table, "no_backend")?;
        let (page, origin) = (fields.scalar::<String>("page"), fields.scalar::<String>("origin"));
        let at = fields.at;
        fields.end();
        if let Some((at, path)) = page {
            let text = self.files.text(Path::new(&path));
            let content = self.mistakes.note(text.map_err(|why| self.file.wrong(at, why)))?;
            let html = [".html", ".htm"].iter().any(|end| path.to_ascii_lowercase().ends_with(end));
            return Some(NoBackend::Page { content: content.into(), html });
        }
        let Some((at, text)) = origin else {
            return self.refuse(at, "`no_backend` needs `page` or `origin`");
        };
        match OriginAddress::parse(&text) {
            Ok(address @ (OriginAddress::Http { .. } | OriginAddress::Https { .. })) => {
                Some(NoBackend::Origin(address))
            }
            _ => self.refuse(
                at,
                format!("origin {text:?} must be a URL like \"http://127.0.0.1:8081\""),
            ),
        }
    }

    /// A credential: a table whose one key is its kind. Reads the files that it names.
    pub(super) fn credential(&mut self, value: Value<'_>) -> Option<Arc<dyn Credential>> {
        let only = match value.get_ref() {
            DeValue::Table(table) if table.len() == 1 => table.iter().next(),
            _ => None,
        };
        let Some((kind, inner)) = only else {
            return self.refuse(value.span().start, "a credential is a table with one kind, like `{ key = \"2ptth_pub_…\" }` or `{ bearer_file = \"…\" }`");
        };
        let (kind, name, span) = (kind.get_ref().to_string(), kind.span(), inner.span());
        // What can't be read is quoted as a path; this isn't one.
        if kind.ends_with("file") && inner.get_ref().as_str().is_some_and(token::begins_like_one) {
            let why = format!("`{kind}` takes the path of a file, not the token itself");
            return self.refuse(span.start, why);
        }
        let kind = kind.escape_debug();
        let read = Settings::deserialize(ValueDeserializer::from(value)).map_err(|err| {
            // About the kind's name, about something inside, or about the whole.
            let inside =
                |at: &Range<usize>| at.start > name.start || err.message().contains("variant");
            let at = err.span().filter(|at| !at.is_empty()).filter(inside);
            let at = at.unwrap_or_else(|| span.clone());
            self.file.wrong(at.start, format!("`{kind}`: {}", unquoted(err.message())))
        });
        let loaded = self.mistakes.note(read)?.load(self.files);
        self.mistakes.note(loaded.map_err(|why| self.file.wrong(span.start, why)))
    }

    /// No two routes may have one name, or take the same requests.
    fn differ(&self, routes: &[Read]) -> Result<(), Mistake> {
        let mut names: HashMap<&str, &Read> = HashMap::new();
        let mut table: router::Table<&Read> = router::Table::default();
        for read in routes {
            let Route { name, hosts, path, .. } = &read.route;
            for (host, at) in hosts.iter().zip(&read.hosts) {
                if let Err(first) = table.insert(host, path, read) {
                    let (line, first) = (self.file.place(first.at).line, &first.route.name);
                    return Err(self.file.wrong(*at, format!(
                        "the route {first:?} of line {line} has the host {host} and the path {path}, too; one of them would never be used"
                    )));
                }
            }
            if let Some(first) = names.insert(name, read) {
                let line = self.file.place(first.at).line;
                return Err(self.file.wrong(read.name, format!(
                    "the route of line {line} is called {name:?}, too; each needs its own `name`"
                )));
            }
        }
        Ok(())
    }
}

/// What logs call a route that has no name.
fn named(route: &Route) -> String {
    let host = route.hosts.first().map(HostPattern::to_string).unwrap_or_default();
    host + route.path.trim_end_matches('/')
}

/// A deserializer's message without the value that it quotes.
fn unquoted(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((quoted, wanted)) if quoted.starts_with("invalid ") => {
            format!("this has the wrong type, expected {wanted}")
        }
        _ => message.replace("unknown variant", "unknown key, or unknown kind of credential,"),
    }
}

/// What an empty list of credentials means.
pub(super) const NOBODY: &str = "so nobody could ever serve this; leave it out to admit whom the gateway admits, or name a credential";
