//! `[names]` of the configuration file, checked, also against the routes.

use ptth_link::settings::file::{self, Value};
use ptth_link::settings::{List, Prefix, Scalar};

use super::route::{NameGrant, Names};
use super::routes::{NOBODY, Read, Reader};
use crate::auth::KINDS;
use crate::router::{self, HostPattern};

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
pub(super) fn names<'a>(
    reader: &mut Reader<'a>,
    value: Value<'a>,
    others: &[Read],
) -> Option<Names> {
    let mut fields = reader.fields(value, "[names]")?;
    let (at, mistakes) = (fields.at, reader.mistakes);
    let allow = reader.file.tables(&mut fields.value, "allow", mistakes);
    let allow = allow.map(|(_, tables)| tables).unwrap_or_default();
    // Credentials without a list of names: `jwt = {…}`.
    let open: Vec<_> = KINDS.iter().filter_map(|kind| fields.alone(kind)).collect();
    let said = |key: &str| fields.value.get_ref().get(key).is_some();
    let nowhere = !said("domain") && !said("path_hosts");
    let domain = fields.scalar("domain").map_or_else(String::new, |(_, Host(name))| name);
    let mut names = Names::new(domain, vec![]);
    let path_hosts = fields.field::<List<Host>>("path_hosts").map(|list| list.items);
    let path_hosts = path_hosts.into_iter().flatten().map(|(_, Host(name))| name);
    names.path_hosts = path_hosts.collect();
    if let Some((_, Prefix(path))) = fields.scalar("path_prefix") {
        path.trim_end_matches('/').clone_into(&mut names.path_prefix);
    }
    names.strip = fields.field("strip").unwrap_or(names.strip);
    fields.set("when_taken", &mut names.when_taken);
    fields.set("queue", &mut names.queue);
    names.hold = reader.hold(&mut fields);
    names.no_backend = reader.no_backend(&mut fields).unwrap_or(names.no_backend);
    fields.end();
    if nowhere {
        return reader.refuse(at, "`[names]` needs `domain` or `path_hosts`");
    }
    apart(reader, &names, others);
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

fn grant<'a>(
    reader: &mut Reader<'a>,
    value: Value<'a>,
    names: &Names,
    others: &[Read],
) -> Option<NameGrant> {
    let mut fields = reader.fields(value, "[[names.allow]]")?;
    let at = fields.at;
    let credential = file::take(&mut fields.value, "credential");
    let listed = fields.field::<List<String>>("names");
    fields.end();
    let Some(credential) = credential else {
        return reader.refuse(at, "`[[names.allow]]` needs `credential`");
    };
    let credential = reader.credential(credential);
    // `*`: any, but for those that other grants list.
    let listed = listed.filter(|it| !matches!(&*it.items, [(_, all)] if all == "*"));
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
