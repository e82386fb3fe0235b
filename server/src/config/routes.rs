//! `[[route]]` and `[names]` of the configuration file, checked one by one and against each other.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri};
use toml::Spanned;
use toml::de::DeValue;

use super::ConfigError;
use super::fields::{At, Fields, Text};
use super::mistake::Mistake;
use super::names::names;
use super::parse;
use super::route::{Hold, Names, NoBackend, Respond, Route, WhenTaken};
use super::several::Several;
use crate::auth::{Content, Credential, Files, Settings};
use crate::router::{HostPattern, Table};
use ptth_client::config::OriginAddress;

/// The tables as they stand in the file.
pub(super) struct Tables<'a> {
    pub(super) text: &'a Text,
    pub(super) routes: Vec<Spanned<DeValue<'a>>>,
    pub(super) names: Option<Spanned<DeValue<'a>>>,
}

/// A route, and where its parts stand.
pub(super) struct Read {
    pub(super) route: Route,
    pub(super) span: Range<usize>,
    name: Range<usize>,
    pub(super) hosts: Vec<Range<usize>>,
}

impl Tables<'_> {
    /// Checks all of them.
    pub(super) fn check(
        self,
        files: &mut Files,
    ) -> Result<(Vec<Route>, Option<Names>), ConfigError> {
        let text = self.text;
        let only = self.routes.len() == 1;
        let (mut routes, mut several) = (Vec::new(), Several::default());
        for table in self.routes {
            routes.extend(several.note(route(text, table, only, files)));
        }
        several.note(differ(text, &routes));
        let names = self.names.map(|table| names(text, table, &routes, files)).transpose();
        let names = several.note(names).flatten();
        several.end((routes.into_iter().map(|read| read.route).collect(), names))
    }
}

fn route(
    text: &Text,
    table: Spanned<DeValue<'_>>,
    only: bool,
    files: &mut Files,
) -> Result<Read, ConfigError> {
    let mut fields = Fields::new(text, "[[route]]", table)?;
    let span = fields.span.clone();
    let mut several = Several::default();
    let listed = match several.note(fields.list("hosts", "a list of hosts")) {
        Some(Some(list)) => several.note(hosts(text, list)),
        Some(None) if !only => several.note(Err(text.wrong(&span, Mistake::NoHosts))),
        _ => None,
    };
    let (patterns, hosts) = listed.unwrap_or_else(|| (vec![HostPattern::Any], vec![span.clone()]));
    let mut route = Route::new("", patterns);
    if let Some(Some(path)) = several.note(path(text, &mut fields, "path")) {
        route.path = path;
    }
    let name = several.note(fields.scalar("name", "a text")).flatten();
    let (name, at) = match name {
        Some(name) => (name.value, name.span),
        None => (named(&route), span.clone()),
    };
    if name.is_empty() || name.chars().any(char::is_control) {
        let means = "but logs call the route by it";
        several.note(Err::<(), _>(text.wrong(&at, Mistake::Empty { key: "name", means })));
    }
    route.name = name;
    if let Some(Some(strip)) = several.note(fields.switch("strip")) {
        route.strip = strip.value;
    }
    if let Some(Some(when_taken)) = several.note(when_taken(text, &mut fields)) {
        route.when_taken = when_taken;
    }
    if let Some(Some(no_backend)) = several.note(no_backend(text, &mut fields, files)) {
        route.no_backend = no_backend;
    }
    if let Some(Some(queue)) = several.note(time(text, &mut fields, "queue")) {
        route.queue = queue;
    }
    route.respond = several.note(respond(text, &mut fields)).flatten();
    route.hold = several.note(hold(text, &mut fields)).flatten();
    if route.respond.is_some() && matches!(route.no_backend, NoBackend::Origin(_)) {
        // What is delivered later waits for its backend.
        let why = Mistake::Without { key: "no_backend", needs: "a route without `respond" };
        several.note(Err::<(), _>(text.wrong(&span, why)));
    }
    if let Some(Some(allow)) = several.note(fields.tables("allow")) {
        let mut credentials = Vec::new();
        for table in allow.value {
            let credential = text.credential(table).and_then(|it| load(text, it, files));
            credentials.extend(several.note(credential));
        }
        if credentials.is_empty() && several.is_empty() {
            let why = Mistake::Empty { key: "allow", means: NOBODY };
            several.note(Err::<(), _>(text.wrong(&allow.span, why)));
        }
        route.allow = Some(credentials);
    }
    several.note(fields.finish());
    several.end(Read { route, span, name: at, hosts })
}

/// What logs call a route that has no name.
fn named(route: &Route) -> String {
    let host = route.hosts.first().map(HostPattern::to_string).unwrap_or_default();
    if route.path == "/" { host } else { format!("{host}{}", route.path) }
}

fn hosts(
    text: &Text,
    list: At<Vec<At<String>>>,
) -> Result<(Vec<HostPattern>, Vec<Range<usize>>), ConfigError> {
    if list.value.is_empty() {
        let means = "so this route would never be used";
        return Err(text.wrong(&list.span, Mistake::Empty { key: "hosts", means }));
    }
    let mut patterns = Vec::new();
    for host in &list.value {
        patterns.push(host.value.parse().map_err(|why| {
            text.wrong(&host.span, Mistake::Host { text: host.value.clone(), why })
        })?);
    }
    Ok((patterns, list.value.into_iter().map(|host| host.span).collect()))
}

/// A prefix of paths, without a slash at its end.
fn prefix(text: &str) -> Result<String, &'static str> {
    let path = text.trim_end_matches('/');
    if !text.starts_with('/') {
        return Err("must begin with a slash");
    }
    if text.contains(['?', '#']) {
        return Err("has a query, which routing doesn't look at; write the path alone");
    }
    if text.contains('*') {
        return Err("needs no `*`: it stands for everything below it anyway");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be as requests have it: other characters as `%HH`, byte by byte");
    }
    let mut segments = path.split('/').skip(1);
    if text.starts_with("//") || segments.clone().any(str::is_empty) {
        return Err("has an empty segment; write single slashes");
    }
    if segments.any(|segment| matches!(segment, "." | "..")) {
        return Err("has a segment `.` or `..`, which browsers resolve before they ask");
    }
    Ok(if path.is_empty() { "/".to_owned() } else { path.to_owned() })
}

/// What becomes of a backend where another one is.
pub(super) fn when_taken(
    text: &Text,
    fields: &mut Fields<'_>,
) -> Result<Option<WhenTaken>, ConfigError> {
    let (key, wanted) = ("when_taken", "\"balance\", \"replace\" or \"reject\"");
    let Some(found) = fields.scalar(key, wanted)? else { return Ok(None) };
    match &*found.value {
        "balance" => Ok(Some(WhenTaken::Balance)),
        "replace" => Ok(Some(WhenTaken::Replace)),
        "reject" => Ok(Some(WhenTaken::Reject)),
        _ => Err(text.wrong(&found.span, Mistake::Value { key, text: found.value, wanted })),
    }
}

/// What a visitor gets where no backend is.
/// A prefix of paths.
pub(super) fn path(
    text: &Text,
    fields: &mut Fields<'_>,
    key: &'static str,
) -> Result<Option<String>, ConfigError> {
    let Some(At { value, span }) = fields.scalar(key, PATH)? else { return Ok(None) };
    let path = prefix(&value).map_err(|why| text.wrong(&span, Mistake::Path { text: value, why }));
    path.map(Some)
}

pub(super) fn no_backend(
    text: &Text,
    fields: &mut Fields<'_>,
    files: &mut Files,
) -> Result<Option<NoBackend>, ConfigError> {
    let key = "no_backend";
    let wanted = "404, 502, 503, a URL like \"https://example.com/\", { page = \"away.html\" } or { origin = \"http://127.0.0.1:8081\" }";
    if let Some(table) = fields.table(key) {
        let mut fields = Fields::new(text, "no_backend", table)?;
        let span = fields.span.clone();
        let page = fields.scalar("page", "a path")?;
        let origin = fields.scalar("origin", "a URL")?;
        fields.finish()?;
        if let (Some(At { value, span }), None) = (origin, &page) {
            let wanted = "a URL like \"http://127.0.0.1:8081\"";
            return match OriginAddress::parse(&value) {
                Ok(address @ (OriginAddress::Http { .. } | OriginAddress::Https { .. })) => {
                    Ok(Some(NoBackend::Origin(address)))
                }
                _ => Err(text.wrong(&span, Mistake::Value { key: "origin", text: value, wanted })),
            };
        }
        let Some(At { value, span }) = page else {
            return Err(text.wrong(&span, Mistake::Without { key, needs: "page` or `origin" }));
        };
        let read = files.text(Path::new(&value), |_| Content::Public);
        let content = read.map_err(|why| text.wrong(&span, Mistake::Load(why)))?;
        let html = [".html", ".htm"].iter().any(|end| value.to_ascii_lowercase().ends_with(end));
        return Ok(Some(NoBackend::Page { content: content.into(), html }));
    }
    let Some(found) = fields.scalar(key, wanted)? else { return Ok(None) };
    let answer = match &*found.value {
        "404" => Some(NoBackend::Status(StatusCode::NOT_FOUND)),
        "502" => Some(NoBackend::Status(StatusCode::BAD_GATEWAY)),
        "503" => Some(NoBackend::Status(StatusCode::SERVICE_UNAVAILABLE)),
        url => redirect(url).map(NoBackend::Redirect),
    };
    let Some(answer) = answer else {
        return Err(text.wrong(&found.span, Mistake::Value { key, text: found.value, wanted }));
    };
    Ok(Some(answer))
}

fn redirect(url: &str) -> Option<HeaderValue> {
    let uri: Uri = url.parse().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    let fine = http && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    fine.then(|| HeaderValue::from_str(url).ok()).flatten()
}

fn respond(text: &Text, fields: &mut Fields<'_>) -> Result<Option<Respond>, ConfigError> {
    let (key, wanted) = ("respond", "200, 202 or 204");
    let found = fields.scalar(key, wanted)?;
    let limit = fields.scalar("respond_limit", SIZE)?;
    let Some(found) = found else { return without(text, limit, "respond_limit", key) };
    let mut respond = Respond::new(match &*found.value {
        "200" => StatusCode::OK,
        "202" => StatusCode::ACCEPTED,
        "204" => StatusCode::NO_CONTENT,
        _ => return Err(text.wrong(&found.span, Mistake::Value { key, text: found.value, wanted })),
    });
    if let Some(limit) = limit {
        let why = Mistake::Value { key: "respond_limit", text: limit.value.clone(), wanted: SIZE };
        let size = parse::size(&limit.value).filter(|size| *size <= Respond::LARGEST);
        respond.limit = size.ok_or_else(|| text.wrong(&limit.span, why))?;
    }
    Ok(Some(respond))
}

/// Whether requests wait for a backend to come.
pub(super) fn hold(text: &Text, fields: &mut Fields<'_>) -> Result<Option<Hold>, ConfigError> {
    let key = "hold_requests";
    let found = time(text, fields, "hold")?;
    let requests = fields.scalar(key, COUNT)?;
    let Some(time) = found else { return without(text, requests, key, "hold") };
    let mut hold = Hold::new(time);
    if let Some(requests) = requests {
        let why = Mistake::Value { key, text: requests.value.clone(), wanted: COUNT };
        let number = parse::number(&requests.value);
        hold.requests = number.ok_or_else(|| text.wrong(&requests.span, why))?;
    }
    // "0s" is how one switches it off for a while.
    Ok((!hold.time.is_zero()).then_some(hold))
}

/// An error, if there is a value that needs another.
fn without<T>(
    text: &Text,
    found: Option<At<String>>,
    key: &'static str,
    needs: &'static str,
) -> Result<Option<T>, ConfigError> {
    match found {
        Some(found) => Err(text.wrong(&found.span, Mistake::Without { key, needs })),
        None => Ok(None),
    }
}

/// A time, zero included.
pub(super) fn time(
    text: &Text,
    fields: &mut Fields<'_>,
    key: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    let Some(found) = fields.scalar(key, TIME)? else { return Ok(None) };
    match parse::duration(&found.value) {
        Some(time) => Ok(Some(time)),
        None => {
            let why = Mistake::Value { key, text: found.value, wanted: TIME };
            Err(text.wrong(&found.span, why))
        }
    }
}

/// Makes a credential, and reads the files that it names.
pub(super) fn load(
    text: &Text,
    settings: At<Settings>,
    files: &mut Files,
) -> Result<Arc<dyn Credential>, ConfigError> {
    let loaded = settings.value.load(files);
    loaded.map_err(|why| text.wrong(&settings.span, Mistake::Load(why)))
}

/// No two routes may have one name, or take the same requests.
fn differ(text: &Text, routes: &[Read]) -> Result<(), ConfigError> {
    let mut names: HashMap<&str, &Read> = HashMap::new();
    let mut table: Table<&Read> = Table::default();
    for read in routes {
        let Route { name, hosts, path, .. } = &read.route;
        for (host, span) in hosts.iter().zip(&read.hosts) {
            if let Err(first) = table.insert(host, path, read) {
                let line = text.line(first.span.start);
                let (host, path) = (host.to_string(), path.clone());
                let first = first.route.name.clone();
                return Err(text.wrong(span, Mistake::RouteTwice { host, path, first, line }));
            }
        }
        if let Some(first) = names.insert(name, read) {
            let line = text.line(first.span.start);
            return Err(text.wrong(&read.name, Mistake::NameTwice { name: name.clone(), line }));
        }
    }
    Ok(())
}

/// What an empty list of credentials means.
pub(super) const NOBODY: &str = "so nobody could ever serve this; leave it out to admit whom the gateway admits, or name a credential";
const PATH: &str = "a path like \"/blog\"";
const TIME: &str = "a time like \"10s\", up to a year";
const SIZE: &str = "a size like \"1MiB\", up to 4MiB, since each request is kept in memory";
const COUNT: &str = "a number from 1";
