//! The certificates that the gateway gets by itself: for which names, and from which directory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ptth_link::settings::{Parser, Sources};

use super::CertificateSource;
use super::routes::Tables;
use crate::auth::Files;
use crate::https::Server;
use crate::router::HostPattern;

/// Where certificates are ordered (RFC 8555).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuer {
    /// An `https://` URL.
    pub directory: String,
    pub email: Option<String>,
    /// PEM, to know the directory by; read at each use. `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Where the account with this directory and its certificates are kept.
    pub folder: PathBuf,
}

impl Issuer {
    /// The file with the chain and the key of a name, whole or not there.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }
}

#[derive(Clone)]
enum Wanted {
    Auto,
    Name(String),
}

const WANTED: Parser<Wanted> = Parser("a name like `example.com`, or `auto`", |text| {
    if text == "auto" {
        return Ok(Wanted::Auto);
    }
    match text.parse() {
        Ok(HostPattern::Name(name)) if !is_address(&name) => Ok(Wanted::Name(name.into())),
        Ok(HostPattern::Name(_) | HostPattern::Literal(_)) => Err(Some(ADDRESS.to_owned())),
        Ok(HostPattern::Under(_)) => Err(Some(WILDCARD.to_owned())),
        Ok(HostPattern::Any) => {
            Err(Some("names no host; `auto` is for the exact hosts of all routes".to_owned()))
        }
        Err(why) => Err(Some(why.to_owned())),
    }
});

const ADDRESS: &str =
    "is an address, and --acme is for names; give a certificate for an address by --cert and --key";
const WILDCARD: &str = "is a wildcard, which a directory validates by DNS-01 alone; get that certificate by another tool, like `certbot certonly --manual --preferred-challenges dns`, and give it by --cert and --key";

const EMAIL: Parser<String> = Parser("an address like `admin@example.com`", |text| {
    let (local, domain) = text.split_once('@').ok_or(None)?;
    // RFC 8555 §7.3: one address, without the header fields of a mailto URL.
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?,@%&".contains(&byte))
    };
    (plain(local) && plain(domain)).then(|| text.to_owned()).ok_or(None)
});

const DIRECTORY: Parser<String> = Parser("an `https://` URL without user and password", |text| {
    // RFC 8555 §6.1.
    let server = Server::read(text.as_bytes()).filter(|(server, _)| server.is_https());
    server.map(|_| text.to_owned()).ok_or(None)
});

fn is_address(name: &str) -> bool {
    name.parse::<std::net::Ipv4Addr>().is_ok()
}

/// A source for each name of `--acme`.
pub(super) fn certificates(
    sources: &Sources<'_>,
    state: Option<&Path>,
    tables: &Tables,
    files: &mut Files,
) -> Vec<CertificateSource> {
    let Some(given) = sources.get("acme") else {
        for name in ["acme_email", "acme_directory", "acme_ca"] {
            if let Some(given) = sources.get(name) {
                let sentence =
                    format!("{} is for --acme NAME (ACME), which is missing", given.name);
                given.refuse::<()>(sentence);
            }
        }
        return Vec::new();
    };
    let directory = sources.value("acme_directory", &DIRECTORY);
    let directory = directory.unwrap_or_else(|| LETS_ENCRYPT.to_owned());
    let email = sources.value("acme_email", &EMAIL);
    let ca = sources.path("acme_ca");
    if let (Some(path), Some(given)) = (&ca, sources.get("acme_ca")) {
        // An error in it shows now, and a change of it is a change of the configuration.
        let roots = files.roots(path).map_err(|why| given.placed(why));
        sources.mistakes.note(roots);
    }
    let mut names = Vec::new();
    for wanted in given.list(&WANTED) {
        match wanted {
            Wanted::Name(name) => names.push(name),
            Wanted::Auto => {
                let exact = hosts(tables);
                if exact.is_empty() {
                    given.refuse::<()>("`auto` finds no exact host among the routes; name one, like --acme example.com");
                }
                names.extend(exact);
            }
        }
    }
    if !cfg!(feature = "acme") {
        given.refuse::<()>(
            "--acme isn't in this build (the Cargo feature `acme`); give --cert and --key",
        );
        return Vec::new();
    }
    let Some(state) = state else {
        given.refuse::<()>("--acme needs --state FOLDER (STATE_DIRECTORY) for its account and its certificates: a directory refuses an order at each start");
        return Vec::new();
    };
    let server = Server::read(directory.as_bytes());
    let server = server.map_or_else(String::new, |(server, _)| server.authority());
    // A certificate of another directory, one for tests perhaps, isn't mistaken for one of this.
    let folder = state.join("acme").join(server);
    let issuer = Arc::new(Issuer { directory, email, ca, folder });
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let source = |name| CertificateSource::Acme { name, issuer: issuer.clone() };
    names.into_iter().map(source).collect()
}

/// The exact hosts of all routes, and those where dynamic names are found by path.
fn hosts(tables: &Tables) -> Vec<String> {
    let routes = tables.routes.iter().flat_map(|route| &route.hosts);
    let exact = routes.filter_map(|host| match host {
        HostPattern::Name(name) if !is_address(name) => Some(name.to_string()),
        _ => None,
    });
    let paths = tables.names.iter().flat_map(|names| names.path_hosts.iter().cloned());
    exact.chain(paths.filter(|name| !is_address(name))).collect()
}

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
