//! `[names]` of the configuration file, checked, also against the routes.

use toml::Spanned;
use toml::de::DeValue;

use super::ConfigError;
use super::fields::{At, Fields, Text};
use super::mistake::Mistake;
use super::route::{NameGrant, Names};
use super::routes::{self, NOBODY, Read};
use super::several::Several;
use crate::auth::Files;
use crate::router::{self, HostPattern};

/// The dynamic names, none of which may be a route's.
pub(super) fn names(
    text: &Text,
    table: Spanned<DeValue<'_>>,
    others: &[Read],
    files: &mut Files,
) -> Result<Names, ConfigError> {
    let mut fields = Fields::new(text, "[names]", table)?;
    let span = fields.span.clone();
    let domain = fields.scalar("domain", "a host")?;
    let domain = domain.map(|domain| name(text, "domain", &domain)).transpose()?;
    let mut names = Names::new(domain.unwrap_or_default(), Vec::new());
    let mut several = Several::default();
    if let Some(Some(list)) = several.note(fields.list("path_hosts", "a list of hosts")) {
        let hosts = list.value.iter().map(|host| name(text, "path_hosts", host));
        names.path_hosts = hosts.filter_map(|host| several.note(host)).collect();
    }
    if names.domain.is_empty() && names.path_hosts.is_empty() && several.is_empty() {
        let needs = "domain` or `path_hosts";
        return Err(text.wrong(&span, Mistake::Without { key: "[names]", needs }));
    }
    if let Some(Some(prefix)) = several.note(routes::path(text, &mut fields, "path_prefix")) {
        names.path_prefix = prefix.trim_end_matches('/').to_owned();
    }
    if let Some(Some(strip)) = several.note(fields.switch("strip")) {
        names.strip = strip.value;
    }
    if let Some(Some(when_taken)) = several.note(routes::when_taken(text, &mut fields)) {
        names.when_taken = when_taken;
    }
    if let Some(Some(no_backend)) = several.note(routes::no_backend(text, &mut fields, files)) {
        names.no_backend = no_backend;
    }
    if let Some(Some(queue)) = several.note(routes::time(text, &mut fields, "queue")) {
        names.queue = queue;
    }
    names.hold = several.note(routes::hold(text, &mut fields)).flatten();
    several.note(apart(text, &names, others));
    if let Some(Some(allow)) = several.note(fields.tables("allow")) {
        for table in allow.value {
            let grant = grant(text, table, &names, others, files);
            names.allow.extend(several.note(grant));
        }
    }
    // What is left are credentials without a list: `jwt = {…}`.
    for table in fields.rest() {
        let credential = text.credential(table).and_then(|it| routes::load(text, it, files));
        let credential = several.note(credential);
        names.allow.extend(credential.map(|credential| NameGrant { names: None, credential }));
    }
    if names.allow.is_empty() && several.is_empty() {
        return Err(text.wrong(&span, Mistake::Empty { key: "allow", means: NOBODY_NAMED }));
    }
    several.end(names)
}

fn grant(
    text: &Text,
    table: Spanned<DeValue<'_>>,
    names: &Names,
    others: &[Read],
    files: &mut Files,
) -> Result<NameGrant, ConfigError> {
    let mut fields = Fields::new(text, "[[names.allow]]", table)?;
    let span = fields.span.clone();
    let wanted = fields.list("names", "a list of names")?;
    let Some(credential) = fields.take("credential") else {
        let why = Mistake::Without { key: "[[names.allow]]", needs: "credential" };
        return Err(text.wrong(&span, why));
    };
    let credential = text.credential(credential)?;
    fields.finish()?;
    // Any, but for those that others list.
    let wanted = wanted.filter(|it| !matches!(it.value.as_slice(), [all] if all.value == "*"));
    let labels = wanted.map(|wanted| {
        if wanted.value.is_empty() {
            return Err(text.wrong(&wanted.span, Mistake::Empty { key: "names", means: NOBODY }));
        }
        wanted.value.iter().map(|name| label(text, name, names, others)).collect()
    });
    let names = labels.transpose()?;
    Ok(NameGrant { names, credential: routes::load(text, credential, files)? })
}

/// One name, of which the domain is no part.
fn label(
    text: &Text,
    given: &At<String>,
    names: &Names,
    others: &[Read],
) -> Result<String, ConfigError> {
    let wrong = |why| Err(text.wrong(&given.span, why));
    let name = given.value.clone();
    if let Some(label) = router::label(&name, &names.domain) {
        return Ok(label.into_owned());
    }
    if name.contains('.') && names.path_hosts.is_empty() {
        return wrong(Mistake::Outside { name, domain: names.domain.clone() });
    }
    if !names.is_fit(&name) {
        return wrong(Mistake::Label(name));
    }
    let base = format!("{}/{name}", names.path_prefix);
    let twin = others.iter().find(|read| {
        let (hosts, path) = (&read.route.hosts, &read.route.path);
        path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && hosts.iter().any(|host| names.path_hosts.iter().any(|other| host.matches(other)))
    });
    match twin {
        Some(twin) => {
            let (route, line) = (twin.route.name.clone(), text.line(twin.span.start));
            wrong(Mistake::NameInRoute { name, route, line })
        }
        None => Ok(name),
    }
}

/// No route may be for a host that a backend could ask for as its name.
fn apart(text: &Text, names: &Names, others: &[Read]) -> Result<(), ConfigError> {
    for read in others {
        for (host, span) in read.route.hosts.iter().zip(&read.hosts) {
            let inside = match host {
                HostPattern::Name(name) => router::label(name, &names.domain).is_some(),
                HostPattern::Under(suffix) => **suffix == *names.domain,
                HostPattern::Any | HostPattern::Literal(_) => false,
            };
            if inside {
                let (host, domain) = (host.to_string(), names.domain.clone());
                return Err(text.wrong(span, Mistake::HostInNames { host, domain }));
            }
        }
    }
    Ok(())
}

/// A host that is a name, in lower case.
fn name(text: &Text, key: &'static str, given: &At<String>) -> Result<String, ConfigError> {
    let wrong = |why| Err(text.wrong(&given.span, why));
    match given.value.parse() {
        Ok(HostPattern::Name(name)) => Ok(name.into()),
        Ok(_) => wrong(Mistake::NotAName { key, text: given.value.clone() }),
        Err(why) => wrong(Mistake::Host { text: given.value.clone(), why }),
    }
}

/// What `[names]` without a credential means.
const NOBODY_NAMED: &str =
    "so nobody could ever have a name; add a credential, like `[[names.allow]]` or `jwt = {…}`";
