//! The tables that only the file has: `[[certificate]]`, `[[route]]` and `[names]`, checked one by one and
//! against each other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use toml::de::{DeValue, ValueDeserializer};

use ptth_client::config::OriginAddress;
use ptth_link::settings::{self, Env, File, Given, Mistake, NUMBER, PREFIX, TEXT, TIME};
use ptth_link::token;

use super::route::{
    HOLD_REQUESTS, HOST, Hold, NO_BACKEND, Names, NoBackend, RATE_BYTES, RESPOND, RESPOND_LIMIT,
    RESPOND_SIZE, Respond, Route, WHEN_TAKEN,
};
use super::{Args, CertificateSource, gate, names};
use crate::auth::{Credential, Files, Settings};
use crate::router::{self, HostPattern};

#[derive(Default)]
pub(super) struct Tables {
    pub(super) certificates: Vec<CertificateSource>,
    pub(super) routes: Vec<Route>,
    pub(super) names: Option<Names>,
}

/// A route, and the places of its parts in the file.
pub(super) struct Read<'a> {
    pub(super) route: Route,
    pub(super) table: Given<'a>,
    name: Option<Given<'a>>,
    /// Each host's own, or the table's.
    pub(super) hosts: Vec<Given<'a>>,
}

impl Tables {
    /// Takes the tables out of the document, and reads the secret files that they name.
    pub(super) fn read(document: &mut Given<'_>, files: &mut Files) -> Self {
        let routes = document.tables("route", "[[route]]");
        let certificates = document.tables("certificate", "[[certificate]]");
        let names = document.take("names").and_then(|given| given.table("[names]"));
        document.end(Args::SETTINGS);
        let only = routes.len() == 1;
        let routes: Vec<_> = routes.into_iter().filter_map(|it| route(it, files, only)).collect();
        document.mistakes.note(differ(&routes));
        Self {
            certificates: certificates.into_iter().filter_map(certificate).collect(),
            names: names.and_then(|table| names::names(table, files, &routes)),
            routes: routes.into_iter().map(|read| read.route).collect(),
        }
    }
}

/// What variables say that have no flag: dynamic names, as the file would have them.
pub(super) fn names_of_variables(env: &Env<'_>) -> Result<Option<File>, Mistake> {
    let mut table = String::new();
    if let Some(domain) = settings::variable(env, "NAMES_DOMAIN", false)? {
        table.push_str(&format!("domain = {:?}\n", domain.trim()));
    }
    if let Some(hosts) = settings::variable(env, "NAMES_PATH_HOSTS", false)? {
        table.push_str(&format!("path_hosts = {hosts:?}\n"));
    }
    if table.is_empty() {
        return Ok(None);
    }
    let secrets = ["NAMES_JWT_SECRET_A", "NAMES_JWT_SECRET_B"];
    let secrets = secrets.into_iter().filter(|it| env(it).is_some_and(|it| !it.is_empty()));
    let secrets: Vec<_> = secrets.collect();
    let claim =
        settings::variable(env, "NAMES_JWT_CLAIM", false)?.unwrap_or_else(|| "tid".to_owned());
    let audience = settings::variable(env, "NAMES_JWT_AUDIENCE", false)?;
    let audience = audience.map_or_else(String::new, |it| format!(", audience = {it:?}"));
    let jwt = format!("jwt = {{ hs256_env = {secrets:?}, name_claim = {claim:?}{audience} }}\n");
    Ok(Some(File::of("NAMES_DOMAIN", format!("[names]\n{table}{jwt}"))))
}

fn certificate(mut fields: Given<'_>) -> Option<CertificateSource> {
    let [cert, key] = ["cert", "key"].map(|key| fields.take(key));
    fields.end(&[]);
    let Some(cert) = cert else { return fields.refuse("`[[certificate]]` needs `cert`") };
    let Some(key) = key else { return fields.refuse("`cert` needs `key`") };
    let [cert, key] = [cert, key].map(|given| fields.mistakes.note(given.path()));
    Some(CertificateSource::Files { cert: cert?, key: key? })
}

fn route<'a>(mut fields: Given<'a>, files: &mut Files, only: bool) -> Option<Read<'a>> {
    let before = fields.mistakes.count();
    let (patterns, hosts) = match fields.take("hosts") {
        Some(given) => {
            let items = given.items();
            if items.is_empty() {
                given.refuse::<()>("`hosts` is empty, so this route would never be used");
            }
            items.into_iter().filter_map(|item| Some((item.value(&HOST)?, item))).unzip()
        }
        None => {
            if !only {
                fields.refuse::<()>("this route needs `hosts`, since it isn't the only one");
            }
            (vec![HostPattern::Any], vec![fields.clone()])
        }
    };
    let mut route = Route::new("", patterns);
    route.path = fields.take_value("path", &PREFIX).unwrap_or(route.path);
    route.name = named(&route);
    let name = fields.take("name");
    if let Some(name) = &name {
        match name.value(&TEXT) {
            Some(text) if text.is_empty() || text.chars().any(char::is_control) => {
                name.refuse::<()>("`name` is empty, but logs call the route by it");
            }
            text => route.name = text.unwrap_or_default(),
        }
    }
    let respond = fields.take_value("respond", &RESPOND);
    route.respond = respond.map(|status| Respond { status, limit: RESPOND_LIMIT });
    if let Some(given) = fields.take("respond_limit") {
        match &mut route.respond {
            Some(respond) => respond.limit = given.value(&RESPOND_SIZE).unwrap_or(0),
            None => _ = given.refuse::<()>("`respond_limit` needs `respond`"),
        }
    }
    backends(&mut fields, files, &mut route);
    route.gate = fields.take("gate").and_then(|given| gate::gate(given, files));
    route.max_streams = fields.take_value("max_streams", &NUMBER);
    route.max_tunnels = fields.take_value("max_tunnels", &NUMBER);
    route.rate_bytes = fields.take_value("rate_bytes", &RATE_BYTES);
    if route.respond.is_some() && matches!(route.no_backend, NoBackend::Origin(_)) {
        // What is delivered later waits for its backend.
        fields.refuse::<()>("an `origin` in `no_backend` needs a route without `respond`");
    }
    if let Some(given) = fields.take("allow") {
        let items = given.items();
        if items.is_empty() {
            given.refuse::<()>(format!("`allow` is empty, {NONE_ADMITTED}"));
        }
        route.allow = Some(items.into_iter().filter_map(|it| credential(it, files)).collect());
    }
    fields.end(&[]);
    let is_good = fields.mistakes.count() == before;
    is_good.then_some(Read { route, table: fields, name, hosts })
}

/// What routes and dynamic names have alike: when there is another backend, when none is free, and when none is there.
pub(super) fn backends(fields: &mut Given<'_>, files: &mut Files, route: &mut Route) {
    let strip = fields.take("strip").and_then(|given| given.switch());
    route.strip = strip.unwrap_or(route.strip);
    route.when_taken = fields.take_value("when_taken", &WHEN_TAKEN).unwrap_or(route.when_taken);
    route.queue = fields.take_value("queue", &TIME).unwrap_or(route.queue);
    let hold = fields.take_value("hold", &TIME);
    let requests = fields.take("hold_requests");
    if let (None, Some(given)) = (hold, &requests) {
        given.refuse::<()>("`hold_requests` needs `hold`");
    }
    let requests = requests.and_then(|given| given.value(&NUMBER)).unwrap_or(HOLD_REQUESTS);
    // "0s" switches it off for a while.
    let hold = hold.filter(|time| !time.is_zero());
    route.hold = hold.map(|time| Hold { time, requests });
    let no_backend = fields.take("no_backend").and_then(|given| no_backend(given, files));
    route.no_backend = no_backend.unwrap_or_else(|| route.no_backend.clone());
}

/// What a visitor gets where no backend is: a scalar, or a table.
fn no_backend(given: Given<'_>, files: &mut Files) -> Option<NoBackend> {
    if !given.value.get_ref().is_table() {
        return given.value(&NO_BACKEND);
    }
    let mut fields = given.table("no_backend")?;
    let (page, origin) = (fields.take("page"), fields.take("origin"));
    fields.end(&[]);
    if let Some(page) = page {
        let path = PathBuf::from(page.value(&TEXT)?);
        let is_html =
            |it: &OsStr| it.eq_ignore_ascii_case("html") || it.eq_ignore_ascii_case("htm");
        return match files.text(&path) {
            Ok(text) => Some(NoBackend::Page {
                content: text.into(),
                html: path.extension().is_some_and(is_html),
            }),
            Err(why) => page.refuse(why),
        };
    }
    let Some(origin) = origin else {
        return fields.refuse("`no_backend` needs `page` or `origin`");
    };
    let text = origin.value(&TEXT)?;
    match OriginAddress::parse(&text) {
        Ok(address @ (OriginAddress::Http { .. } | OriginAddress::Https { .. })) => {
            Some(NoBackend::Origin(address))
        }
        _ => {
            let why = format!("origin {text:?} must be a URL like \"http://127.0.0.1:8081\"");
            origin.refuse(why)
        }
    }
}

/// A credential: a table whose one key is its kind. Reads the files that it names.
pub(super) fn credential(mut given: Given<'_>, files: &mut Files) -> Option<Arc<dyn Credential>> {
    let revoked = given.take("client_crl").map(|it| it.path()).transpose();
    let revoked = given.mistakes.note(revoked)?;
    let only = match given.value.get_ref() {
        DeValue::Table(table) if table.len() == 1 => table.iter().next(),
        _ => None,
    };
    let Some((kind, inner)) = only else {
        return given.refuse("a credential is a table with one kind, like `{ key = \"2ptth_pub_…\" }` or `{ bearer_file = \"…\" }`");
    };
    let (name, span) = (kind.span(), inner.span());
    let (file, mistakes) = (given.file?, given.mistakes);
    // What can't be read is quoted as a path; this isn't one.
    if kind.get_ref().ends_with("file")
        && inner.get_ref().as_str().is_some_and(token::begins_like_one)
    {
        let why = format!("`{}` takes the path of a file, not the token itself", kind.get_ref());
        return mistakes.note(Err(file.wrong(span.start, why)));
    }
    let kind = kind.get_ref().escape_debug().to_string();
    let read = Settings::deserialize(ValueDeserializer::from(given.value)).map_err(|err| {
        // About the kind's name, about something inside, or about the whole.
        let inside = |at: &Range<usize>| at.start > name.start || err.message().contains("variant");
        let at = err.span().filter(|at| !at.is_empty()).filter(inside);
        let at = at.unwrap_or_else(|| span.clone());
        file.wrong(at.start, format!("`{kind}`: {}", unquoted(err.message())))
    });
    let read = read.and_then(|it| match (it, revoked) {
        (Settings::ClientCa(it), revoked) => Ok(Settings::ClientCa(it.with(revoked))),
        (it, None) => Ok(it),
        _ => Err(file.wrong(span.start, "`client_crl` stands beside `client_ca` alone")),
    });
    let load = |it: Settings| it.load(files).map_err(|why| file.wrong(span.start, why));
    mistakes.note(read.and_then(load))
}

/// No two routes may have one name, or take the same requests.
fn differ(routes: &[Read<'_>]) -> Result<(), Mistake> {
    let mut names: HashMap<&str, &Read<'_>> = HashMap::new();
    let mut table: router::Table<&Read<'_>> = router::Table::default();
    for read in routes {
        let Route { name, hosts, path, .. } = &read.route;
        for (host, given) in hosts.iter().zip(&read.hosts) {
            if let Err(first) = table.insert(host, path, read) {
                let (line, first) = (first.table.line(), &first.route.name);
                return Err(given.here(format!(
                    "the route {first:?} of line {line} has the host {host} and the path {path}, too; one of them would never be used"
                )));
            }
        }
        if let Some(first) = names.insert(name, read) {
            let line = first.table.line();
            return Err(read.name.as_ref().unwrap_or(&read.table).here(format!(
                "the route of line {line} is called {name:?}, too; each needs its own `name`"
            )));
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

pub(super) const NONE_ADMITTED: &str = "so no backend could ever serve this; leave it out to admit the backends that the gateway admits, or name a credential";
