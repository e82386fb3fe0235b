//! The tables that only the file has: `[[certificate]]`, `[[route]]` and `[names]`, checked one by one and
//! against each other.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::de::{DeValue, ValueDeserializer};

use ptth_client::config::OriginAddress;
use ptth_link::settings::{
    self, Env, Fields, File, Mistake, Mistakes, Prefix, Table, Value, split,
};
use ptth_link::token;

use super::route::{HOLD_REQUESTS, Hold, Names, NoBackend, Route};
use super::scalars::Size;
use super::{Args, CertificateSource, names};
use crate::auth::{Credential, Files, Settings};
use crate::router::{self, HostPattern};

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) settings: Table,
    pub(super) certificates: Vec<CertificateSource>,
    pub(super) routes: Vec<Route>,
    pub(super) names: Option<Names>,
}

/// A route, and the places of its parts in the file.
pub(super) struct Read {
    pub(super) route: Route,
    /// Of the table.
    pub(super) at: usize,
    name: usize,
    pub(super) hosts: Vec<usize>,
}

impl Tables {
    /// Reads the whole file, and the secret files that it names.
    pub(super) fn read(file: &File, files: &mut Files, mistakes: &Mistakes) -> Self {
        let mut read = Self::default();
        let Some(mut document) = file.parse(mistakes) else { return read };
        read.settings = document.settings(Args::SETTINGS);
        let routes = document.tables("route", "[[route]]");
        let certificates = document.tables("certificate", "[[certificate]]");
        let names = document.take("names").and_then(|table| document.table(table, "[names]"));
        document.end(Args::SETTINGS);
        read.certificates =
            certificates.into_iter().filter_map(|it| certificate(it, file.folder())).collect();
        let only = routes.len() == 1;
        let routes: Vec<_> = routes.into_iter().filter_map(|it| route(it, files, only)).collect();
        mistakes.note(differ(file, &routes));
        read.names = names.and_then(|table| names::names(table, files, &routes));
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

fn certificate(mut fields: Fields<'_>, folder: &Path) -> Option<CertificateSource> {
    let mut path = |key| {
        let (_, path) = fields.scalar::<String>(key).filter(|(_, path)| !path.is_empty())?;
        Some(folder.join(path))
    };
    let paths = (path("cert"), path("key"));
    fields.end(&[]);
    match paths {
        (Some(cert), Some(key)) => Some(CertificateSource::Files { cert, key }),
        (None, _) => fields.refuse(fields.at, "`[[certificate]]` needs `cert`"),
        (_, None) => fields.refuse(fields.at, "`cert` needs `key`"),
    }
}

fn route(mut fields: Fields<'_>, files: &mut Files, only: bool) -> Option<Read> {
    let before = fields.mistakes.count();
    let at = fields.at;
    if !fields.has("hosts") && !only {
        fields.wrong(at, "this route needs `hosts`, since it isn't the only one");
    }
    let (patterns, hosts) = match fields.list::<HostPattern>("hosts") {
        Some((_, list)) if !list.is_empty() => list.into_iter().map(|(at, it)| (it, at)).unzip(),
        list => {
            if let Some((at, _)) = list.filter(|_| fields.mistakes.is_empty()) {
                fields.wrong(at, "`hosts` is empty, so this route would never be used");
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
        fields.wrong(name_at, "`name` is empty, but logs call the route by it");
    }
    route.name = name;
    route.respond = fields.scalar("respond").map(|(_, respond)| respond);
    match (&mut route.respond, fields.scalar("respond_limit")) {
        (Some(respond), Some((_, Size(limit)))) => respond.limit = limit,
        (None, Some((at, _))) => fields.wrong(at, "`respond_limit` needs `respond`"),
        (_, None) => {}
    }
    backends(&mut fields, files, &mut route);
    if route.respond.is_some() && matches!(route.no_backend, NoBackend::Origin(_)) {
        // What is delivered later waits for its backend.
        fields.wrong(at, "an `origin` in `no_backend` needs a route without `respond`");
    }
    if let Some((at, values)) = fields.values("allow") {
        if values.is_empty() {
            fields.wrong(at, format!("`allow` is empty, {NO_BACKEND}"));
        }
        let read = values.into_iter().filter_map(|it| credential(&fields, files, it));
        route.allow = Some(read.collect());
    }
    fields.end(&[]);
    (fields.mistakes.count() == before).then_some(Read { route, at, name: name_at, hosts })
}

/// What routes and dynamic names have alike: when there is another backend, when none is free, and when none is there.
pub(super) fn backends(fields: &mut Fields<'_>, files: &mut Files, route: &mut Route) {
    fields.set_switch("strip", &mut route.strip);
    fields.set("when_taken", &mut route.when_taken);
    fields.set("queue", &mut route.queue);
    let (hold, requests) = (fields.scalar::<Duration>("hold"), fields.scalar("hold_requests"));
    if let (None, Some((at, _))) = (hold, requests) {
        fields.wrong(at, "`hold_requests` needs `hold`");
    }
    let requests = requests.map_or(HOLD_REQUESTS, |(_, number)| number);
    // "0s" switches it off for a while.
    let hold = hold.filter(|(_, time)| !time.is_zero());
    route.hold = hold.map(|(_, time)| Hold { time, requests });
    let no_backend = fields.take("no_backend").and_then(|value| no_backend(fields, files, value));
    route.no_backend = no_backend.unwrap_or_else(|| route.no_backend.clone());
}

/// What a visitor gets where no backend is: a scalar, or a table.
fn no_backend<'a>(fields: &Fields<'a>, files: &mut Files, value: Value<'a>) -> Option<NoBackend> {
    if !value.get_ref().is_table() {
        return fields.read("no_backend", &value, "").map(|(_, answer)| answer);
    }
    let mut fields = fields.table(value, "no_backend")?;
    let (page, origin) = (fields.scalar::<String>("page"), fields.scalar::<String>("origin"));
    fields.end(&[]);
    match (page, origin) {
        (Some((at, path)), _) => match files.text(Path::new(&path)) {
            Ok(content) => {
                let path = path.to_ascii_lowercase();
                let html = path.ends_with(".html") || path.ends_with(".htm");
                Some(NoBackend::Page { content: content.into(), html })
            }
            Err(why) => fields.refuse(at, why),
        },
        (None, Some((at, text))) => match OriginAddress::parse(&text) {
            Ok(address @ (OriginAddress::Http { .. } | OriginAddress::Https { .. })) => {
                Some(NoBackend::Origin(address))
            }
            _ => {
                let why = format!("origin {text:?} must be a URL like \"http://127.0.0.1:8081\"");
                fields.refuse(at, why)
            }
        },
        (None, None) => fields.refuse(fields.at, "`no_backend` needs `page` or `origin`"),
    }
}

/// A credential: a table whose one key is its kind. Reads the files that it names.
pub(super) fn credential(
    fields: &Fields<'_>,
    files: &mut Files,
    value: Value<'_>,
) -> Option<Arc<dyn Credential>> {
    let only = match value.get_ref() {
        DeValue::Table(table) if table.len() == 1 => table.iter().next(),
        _ => None,
    };
    let Some((kind, inner)) = only else {
        return fields.refuse(value.span().start, "a credential is a table with one kind, like `{ key = \"2ptth_pub_…\" }` or `{ bearer_file = \"…\" }`");
    };
    let (kind, name, span) = (kind.get_ref().to_string(), kind.span(), inner.span());
    // What can't be read is quoted as a path; this isn't one.
    if kind.ends_with("file") && inner.get_ref().as_str().is_some_and(token::begins_like_one) {
        let why = format!("`{kind}` takes the path of a file, not the token itself");
        return fields.refuse(span.start, why);
    }
    let kind = kind.escape_debug();
    let read = Settings::deserialize(ValueDeserializer::from(value)).map_err(|err| {
        // About the kind's name, about something inside, or about the whole.
        let inside = |at: &Range<usize>| at.start > name.start || err.message().contains("variant");
        let at = err.span().filter(|at| !at.is_empty()).filter(inside);
        let at = at.unwrap_or_else(|| span.clone());
        (at.start, format!("`{kind}`: {}", unquoted(err.message())))
    });
    let load = |it: Settings| it.load(files).map_err(|why| (span.start, why.to_string()));
    match read.and_then(load) {
        Ok(credential) => Some(credential),
        Err((at, why)) => fields.refuse(at, why),
    }
}

/// No two routes may have one name, or take the same requests.
fn differ(file: &File, routes: &[Read]) -> Result<(), Mistake> {
    let mut names: HashMap<&str, &Read> = HashMap::new();
    let mut table: router::Table<&Read> = router::Table::default();
    for read in routes {
        let Route { name, hosts, path, .. } = &read.route;
        for (host, at) in hosts.iter().zip(&read.hosts) {
            if let Err(first) = table.insert(host, path, read) {
                let (line, first) = (file.place(first.at).line, &first.route.name);
                return Err(file.wrong(*at, format!(
                    "the route {first:?} of line {line} has the host {host} and the path {path}, too; one of them would never be used"
                )));
            }
        }
        if let Some(first) = names.insert(name, read) {
            let line = file.place(first.at).line;
            return Err(file.wrong(
                read.name,
                format!(
                    "the route of line {line} is called {name:?}, too; each needs its own `name`"
                ),
            ));
        }
    }
    Ok(())
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
pub(super) const NO_BACKEND: &str = "so no backend could ever serve this; leave it out to admit the backends that the gateway admits, or name a credential";
