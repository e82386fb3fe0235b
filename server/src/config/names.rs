//! `[names]` of the configuration file, checked, also against the routes.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeValue;

use ptth_link::settings::file::{self, Value};
use ptth_link::settings::{As, List, Prefix, Scalar, Whole};

use super::route::{NameGrant, Names, NoBackend, WhenTaken};
use super::routes::{NOBODY, Read, Reader};
use crate::auth::KINDS;
use crate::router::{self, HostPattern};

/// `[names]`, but for `allow`, credentials, and `no_backend` as a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesTable {
    domain: Option<As<Host>>,
    path_hosts: Option<List<Host>>,
    path_prefix: Option<As<Prefix>>,
    strip: Option<bool>,
    when_taken: Option<As<WhenTaken>>,
    no_backend: Option<As<NoBackend>>,
    queue: Option<As<Duration>>,
    hold: Option<As<Duration>>,
    hold_requests: Option<Spanned<As<Whole>>>,
}

/// `[[names.allow]]`, but for the credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantTable {
    names: Option<List<String>>,
}

/// A host that is a name, in lower case.
struct Host(String);

impl Scalar for Host {
    const WANTED: &'static str = "a name like `example.com`, without `*`";

    fn read(text: &str) -> Result<Self, Option<String>> {
        match text.parse() {
            Ok(HostPattern::Name(name)) => Ok(Self(name.into())),
            Ok(_) => Err(None),
            Err(why) => Err(Some(why.to_owned())),
        }
    }
}

/// The dynamic names, none of which may be a route's.
pub(super) fn names(
    reader: &mut Reader<'_>,
    mut value: Value<'_>,
    others: &[Read],
) -> Option<Names> {
    let (at, mistakes) = (value.span().start, reader.mistakes);
    let allow = reader.file.tables(&mut value, "allow", mistakes);
    let no_backend = file::take_table(&mut value, "no_backend");
    // Credentials without a list of names: `jwt = {…}`.
    let open = KINDS.iter().filter_map(|kind| {
        let inner = file::take(&mut value, kind)?;
        let (at, key) = (inner.span(), Spanned::new(inner.span(), (*kind).into()));
        Some(Spanned::new(at, DeValue::Table([(key, inner)].into_iter().collect())))
    });
    let open: Vec<Value<'_>> = open.collect();
    let nowhere = ["domain", "path_hosts"].iter().all(|key| value.get_ref().get(*key).is_none());
    let read: NamesTable = reader.file.schema(value, "[names]", mistakes)?;
    let mut names = Names::new(read.domain.map_or_else(String::new, |As(Host(name))| name), vec![]);
    let path_hosts = read.path_hosts.map(|list| list.items).unwrap_or_default();
    names.path_hosts = path_hosts.into_iter().map(|(_, Host(name))| name).collect();
    if nowhere {
        reader.wrong(at, "`[names]` needs `domain` or `path_hosts`");
        return None;
    }
    let prefix = read.path_prefix.map_or_else(String::new, |As(Prefix(path))| path);
    names.path_prefix = prefix.trim_end_matches('/').to_owned();
    names.strip = read.strip.unwrap_or(names.strip);
    names.when_taken = read.when_taken.map_or(names.when_taken, |As(when)| when);
    names.queue = read.queue.map_or(names.queue, |As(time)| time);
    names.hold = reader.hold(read.hold, read.hold_requests);
    let no_backend = no_backend.and_then(|value| reader.no_backend(value));
    let no_backend = read.no_backend.map(|As(answer)| answer).or(no_backend);
    names.no_backend = no_backend.unwrap_or(names.no_backend);
    apart(reader, &names, others);
    let allow = allow.map(|(_, tables)| tables).unwrap_or_default();
    let none = allow.is_empty() && open.is_empty();
    names.allow = allow.into_iter().filter_map(|it| grant(reader, it, &names, others)).collect();
    for table in open {
        let credential = reader.credential(table);
        names.allow.extend(credential.map(|credential| NameGrant { names: None, credential }));
    }
    if none && mistakes.is_empty() {
        reader.wrong(at, "`allow` is empty, so nobody could ever have a name; add a credential, like `[[names.allow]]` or `jwt = {…}`");
    }
    Some(names)
}

fn grant(
    reader: &mut Reader<'_>,
    mut value: Value<'_>,
    names: &Names,
    others: &[Read],
) -> Option<NameGrant> {
    let at = value.span().start;
    let credential = file::take(&mut value, "credential");
    let read: GrantTable = reader.file.schema(value, "[[names.allow]]", reader.mistakes)?;
    let Some(credential) = credential else {
        reader.wrong(at, "`[[names.allow]]` needs `credential`");
        return None;
    };
    let credential = reader.credential(credential);
    // Any, but for those that others list.
    let listed = read.names.filter(|it| !matches!(&*it.items, [(_, all)] if all == "*"));
    if let Some(list) = listed.as_ref().filter(|list| list.items.is_empty()) {
        reader.wrong(list.span.start, format!("`names` is empty, {NOBODY}"));
    }
    let labels = listed.map(|list| {
        let labels = list.items.into_iter().map(|(at, name)| {
            let label = label(reader, &name, names, others);
            reader.mistakes.note(label.map_err(|why| reader.file.wrong(at.start, why)))
        });
        labels.flatten().collect()
    });
    Some(NameGrant { names: labels, credential: credential? })
}

/// One name, of which the domain is no part.
fn label(
    reader: &Reader<'_>,
    name: &str,
    names: &Names,
    others: &[Read],
) -> Result<String, String> {
    let domain = &names.domain;
    if let Some(label) = router::label(name, domain) {
        return Ok(label.into_owned());
    }
    if name.contains('.') && names.path_hosts.is_empty() {
        return Err(format!(
            "the name {name:?} is outside of {domain}; write only what stands in front of that"
        ));
    }
    if !names.is_fit(name) {
        return Err(format!(
            "the name {name:?} must be one DNS label in lower case: 1 to 63 letters, digits and inner hyphens; with `path_hosts`, letters of either case, digits and - . _ ~ %"
        ));
    }
    let base = format!("{}/{name}", names.path_prefix);
    let twin = others.iter().find(|read| {
        let (hosts, path) = (&read.route.hosts, &read.route.path);
        path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && hosts.iter().any(|host| names.path_hosts.iter().any(|other| host.matches(other)))
    });
    match twin {
        None => Ok(name.to_owned()),
        Some(twin) => Err(format!(
            "the name {name:?} would be reached at a path that the route {:?} of line {} has",
            twin.route.name,
            reader.file.place(twin.at).line
        )),
    }
}

/// No route may be for a host that a backend could ask for as its name.
fn apart(reader: &Reader<'_>, names: &Names, others: &[Read]) {
    for (host, at) in others.iter().flat_map(|read| read.route.hosts.iter().zip(&read.hosts)) {
        let inside = match host {
            HostPattern::Name(name) => router::label(name, &names.domain).is_some(),
            HostPattern::Under(suffix) => **suffix == *names.domain,
            HostPattern::Any | HostPattern::Literal(_) => false,
        };
        if inside {
            let domain = &names.domain;
            reader.wrong(*at, format!("the host {host} is among the dynamic names of {domain}; take it out here or move `domain`"));
            return;
        }
    }
}
