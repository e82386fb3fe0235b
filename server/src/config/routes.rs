//! The tables that only the file has: `[[certificate]]`, `[[route]]` and `[names]`, checked one by one and
//! against each other.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use ptth_client::config::OriginAddress;
use ptth_link::settings::file::{self, Value};
use ptth_link::settings::{
    self, As, Env, File, List, Mistake, Mistakes, Prefix, Table, Whole, split,
};
use ptth_link::token;

use super::names::names;
use super::route::{Hold, Names, NoBackend, Respond, Route, WhenTaken};
use super::scalars::{Size, Status};
use super::{Args, CertificateSource};
use crate::auth::{Credential, Files, Settings};
use crate::router::{self, HostPattern};

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) settings: Table,
    pub(super) certificates: Vec<CertificateSource>,
    pub(super) routes: Vec<Route>,
    pub(super) names: Option<Names>,
}

/// What reads the tables of a file.
pub(super) struct Reader<'a> {
    pub(super) file: &'a File,
    pub(super) files: &'a mut Files,
    pub(super) mistakes: &'a Mistakes,
}

/// A route, and the places of its parts.
pub(super) struct Read {
    pub(super) route: Route,
    /// Of the table.
    pub(super) at: usize,
    name: usize,
    pub(super) hosts: Vec<usize>,
}

/// `[[certificate]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateTable {
    cert: Option<As<String>>,
    key: Option<As<String>>,
}

/// `[[route]]`, but for its `allow`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    name: Option<Spanned<As<String>>>,
    hosts: Option<List<HostPattern>>,
    path: Option<As<Prefix>>,
    strip: Option<bool>,
    when_taken: Option<As<WhenTaken>>,
    no_backend: Option<As<NoBackend>>,
    queue: Option<As<Duration>>,
    respond: Option<As<Status>>,
    respond_limit: Option<Spanned<As<Size>>>,
    hold: Option<As<Duration>>,
    hold_requests: Option<Spanned<As<Whole>>>,
}

/// `no_backend` as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBackendTable {
    page: Option<Spanned<As<String>>>,
    origin: Option<Spanned<As<String>>>,
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

impl Reader<'_> {
    /// Notes a mistake at a byte of the file.
    pub(super) fn wrong(&self, at: usize, sentence: impl std::fmt::Display) {
        self.mistakes.add(self.file.wrong(at, sentence));
    }

    fn certificate(&mut self, table: Value<'_>) -> Option<CertificateSource> {
        let at = table.span().start;
        let read: CertificateTable = self.file.schema(table, "[[certificate]]", self.mistakes)?;
        let path = |path: Option<As<String>>| {
            let As(path) = path.filter(|As(path)| !path.is_empty())?;
            Some(self.file.folder().join(path))
        };
        match (path(read.cert), path(read.key)) {
            (Some(cert), Some(key)) => return Some(CertificateSource::Files { cert, key }),
            (None, _) => self.wrong(at, "`[[certificate]]` needs `cert`"),
            (_, None) => self.wrong(at, "`cert` needs `key`"),
        }
        None
    }

    fn route(&mut self, mut table: Value<'_>, only: bool) -> Option<Read> {
        let (at, before) = (table.span().start, self.mistakes.count());
        let allow = self.file.tables(&mut table, "allow", self.mistakes);
        let no_backend = file::take_table(&mut table, "no_backend");
        let no_hosts = table.get_ref().as_table().is_some_and(|table| !table.contains_key("hosts"));
        let read: RouteTable = self.file.schema(table, "[[route]]", self.mistakes)?;
        let (patterns, hosts) = match read.hosts {
            Some(list) if list.items.is_empty() => {
                if self.mistakes.is_empty() {
                    self.wrong(
                        list.span.start,
                        "`hosts` is empty, so this route would never be used",
                    );
                }
                (vec![HostPattern::Any], vec![at])
            }
            Some(list) => list.items.into_iter().map(|(at, host)| (host, at.start)).unzip(),
            None => (vec![HostPattern::Any], vec![at]),
        };
        if no_hosts && !only {
            self.wrong(at, "this route needs `hosts`, since it isn't the only one");
        }
        let mut route = Route::new("", patterns);
        route.path = read.path.map_or(route.path, |As(Prefix(path))| path);
        let name = read.name.map(|name| (name.span().start, name.into_inner().0));
        let (name_at, name) = name.unwrap_or_else(|| (at, named(&route)));
        if name.is_empty() || name.chars().any(char::is_control) {
            self.wrong(name_at, "`name` is empty, but logs call the route by it");
        }
        route.name = name;
        route.strip = read.strip.unwrap_or(route.strip);
        route.when_taken = read.when_taken.map_or(route.when_taken, |As(when)| when);
        route.queue = read.queue.map_or(route.queue, |As(time)| time);
        route.hold = self.hold(read.hold, read.hold_requests);
        route.respond = read.respond.map(|As(Status(status))| Respond::new(status));
        match (&mut route.respond, read.respond_limit) {
            (Some(respond), Some(limit)) => respond.limit = limit.into_inner().0.0,
            (None, Some(limit)) => {
                self.wrong(limit.span().start, "`respond_limit` needs `respond`")
            }
            (_, None) => {}
        }
        let no_backend = no_backend.and_then(|value| self.no_backend(value));
        if let Some(no_backend) = read.no_backend.map(|As(answer)| answer).or(no_backend) {
            if route.respond.is_some() && matches!(no_backend, NoBackend::Origin(_)) {
                // What is delivered later waits for its backend.
                self.wrong(at, "`no_backend` needs `a route without `respond`");
            }
            route.no_backend = no_backend;
        }
        if let Some((span, tables)) = allow {
            let empty = tables.is_empty();
            let credentials = tables.into_iter().filter_map(|it| self.credential(it)).collect();
            route.allow = Some(credentials);
            if empty {
                self.wrong(span.start, format!("`allow` is empty, {NOBODY}"));
            }
        }
        let fine = self.mistakes.count() == before;
        fine.then_some(Read { route, at, name: name_at, hosts })
    }

    /// Whether requests wait for a backend to come.
    pub(super) fn hold(
        &self,
        time: Option<As<Duration>>,
        requests: Option<Spanned<As<Whole>>>,
    ) -> Option<Hold> {
        if let (None, Some(requests)) = (&time, &requests) {
            self.wrong(requests.span().start, "`hold_requests` needs `hold`");
        }
        let mut hold = Hold::new(time?.0);
        hold.requests = requests.map_or(hold.requests, |requests| requests.into_inner().0.0);
        // "0s" is how one switches it off for a while.
        (!hold.time.is_zero()).then_some(hold)
    }

    /// What a visitor gets where no backend is, where that is a table.
    pub(super) fn no_backend(&mut self, value: Value<'_>) -> Option<NoBackend> {
        let at = value.span().start;
        let read: NoBackendTable = self.file.schema(value, "no_backend", self.mistakes)?;
        if let Some(page) = read.page {
            let (at, As(path)) = (page.span().start, page.into_inner());
            let text = self.files.text(Path::new(&path));
            let content = self.mistakes.note(text.map_err(|why| self.file.wrong(at, why)))?;
            let html = [".html", ".htm"].iter().any(|end| path.to_ascii_lowercase().ends_with(end));
            return Some(NoBackend::Page { content: content.into(), html });
        }
        let Some(origin) = read.origin else {
            self.wrong(at, "`no_backend` needs `page` or `origin`");
            return None;
        };
        let (at, As(text)) = (origin.span().start, origin.into_inner());
        match OriginAddress::parse(&text) {
            Ok(address @ (OriginAddress::Http { .. } | OriginAddress::Https { .. })) => {
                return Some(NoBackend::Origin(address));
            }
            _ => self
                .wrong(at, format!("origin {text:?} must be a URL like \"http://127.0.0.1:8081\"")),
        }
        None
    }

    /// A credential: a table whose one key is its kind. Reads the files that it names.
    pub(super) fn credential(&mut self, value: Value<'_>) -> Option<Arc<dyn Credential>> {
        let only = match value.get_ref() {
            DeValue::Table(table) if table.len() == 1 => table.iter().next(),
            _ => None,
        };
        let Some((kind, inner)) = only else {
            self.wrong(value.span().start, "a credential is a table with one kind, like `{ key = \"2ptth_pub_…\" }` or `{ bearer_file = \"…\" }`");
            return None;
        };
        let (kind, name, span) = (kind.get_ref().to_string(), kind.span(), inner.span());
        // What can't be read is quoted as a path; this isn't one.
        if kind.ends_with("file") && inner.get_ref().as_str().is_some_and(token::begins_like_one) {
            self.wrong(
                span.start,
                format!("`{kind}` takes the path of a file, not the token itself"),
            );
            return None;
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
    if route.path == "/" { host } else { format!("{host}{}", route.path) }
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
