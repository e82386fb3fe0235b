//! `[names]` of the configuration file, checked, also against the routes.

use ptth_link::settings::{Given, PREFIX, TEXT};

use super::route::{NAME, NameGrant, Names};
use super::routes::{NONE_ADMITTED, Read, backends, credential};
use crate::auth::{Files, KINDS};
use crate::router::{self, HostPattern};

/// The dynamic names, none of which may be a route's.
pub(super) fn names(
    mut fields: Given<'_>,
    files: &mut Files,
    others: &[Read<'_>],
) -> Option<Names> {
    let allow = fields.tables("allow", "[[names.allow]]");
    // Credentials without a list of names: `jwt = {…}`.
    let open: Vec<_> = KINDS.iter().filter_map(|kind| fields.alone(kind)).collect();
    let (domain, path_hosts) = (fields.take("domain"), fields.take("path_hosts"));
    let nowhere = domain.is_none() && path_hosts.is_none();
    let domain = domain.and_then(|given| given.value(&NAME)).unwrap_or_default();
    let mut names = Names::new(domain, vec![]);
    names.path_hosts = path_hosts.map(|given| given.list(&NAME)).unwrap_or_default();
    if let Some(path) = fields.take_value("path_prefix", &PREFIX) {
        path.trim_end_matches('/').clone_into(&mut names.path_prefix);
    }
    backends(&mut fields, files, &mut names.route);
    fields.end(&[]);
    if nowhere {
        return fields.refuse("`[names]` needs `domain` or `path_hosts`");
    }
    apart(&names, others);
    let none = allow.is_empty() && open.is_empty();
    names.allow = allow.into_iter().filter_map(|it| grant(it, files, &names, others)).collect();
    let open = open.into_iter().filter_map(|given| credential(given, files));
    names.allow.extend(open.map(|credential| NameGrant { names: None, credential }));
    if none && fields.mistakes.is_empty() {
        return fields.refuse("`allow` is empty, so no backend could ever have a name; add a credential, like `[[names.allow]]` or `jwt = {…}`");
    }
    Some(names)
}

fn grant(
    mut fields: Given<'_>,
    files: &mut Files,
    names: &Names,
    others: &[Read<'_>],
) -> Option<NameGrant> {
    let (listed, value) = (fields.take("names"), fields.take("credential"));
    fields.end(&[]);
    let Some(value) = value else {
        return fields.refuse("`[[names.allow]]` needs `credential`");
    };
    let credential = credential(value, files);
    // `*`: any, but for those that other grants list.
    let listed = listed.filter(|given| given.joined() != "*");
    let labels = listed.map(|given| {
        let items = given.items();
        if items.is_empty() {
            given.refuse::<()>(format!("`names` is empty, {NONE_ADMITTED}"));
        }
        let label = |item: &Given<'_>| {
            let label = label(&item.value(&TEXT)?, names, others);
            fields.mistakes.note(label.map_err(|why| item.here(why)))
        };
        items.iter().filter_map(label).collect()
    });
    Some(NameGrant { names: labels, credential: credential? })
}

/// One name, of which the domain is no part.
fn label(name: &str, names: &Names, others: &[Read<'_>]) -> Result<String, String> {
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
            twin.table.line()
        )),
    }
}

/// No route may be for a host that a backend could ask for as its name.
fn apart(names: &Names, others: &[Read<'_>]) {
    for (host, given) in others.iter().flat_map(|read| read.route.hosts.iter().zip(&read.hosts)) {
        let inside = match host {
            HostPattern::Name(name) => router::label(name, &names.domain).is_some(),
            HostPattern::Under(suffix) => **suffix == *names.domain,
            HostPattern::Any | HostPattern::Literal(_) => false,
        };
        if inside {
            let domain = &names.domain;
            given.refuse::<()>(format!("the host {host} is among the dynamic names of {domain}; take it out here or move `domain`"));
            return;
        }
    }
}
