//! Routes and dynamic names, checked: what the tables of the configuration file become.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri};

use ptth_client::config::OriginAddress;
use ptth_link::settings::{Parser, SIZE, word};
use ptth_link::token;

use super::Gate;
use crate::auth::Credential;
use crate::router::{self, HostPattern};

/// A part of the public addresses, and the backends that may serve it.
#[derive(Clone, Debug)]
pub struct Route {
    /// What logs call it; no two routes share one.
    pub name: String,
    /// Never empty.
    pub hosts: Vec<HostPattern>,
    /// The prefix of its paths: `/`, or like `/a/b`, without a slash at the end.
    pub path: String,
    /// Whether the origin gets paths without that prefix, and X-Forwarded-Prefix with it.
    pub strip: bool,
    pub when_taken: WhenTaken,
    pub no_backend: NoBackend,
    /// Any one of these lets a backend in. `None`: [`super::Config::admission`] decides.
    pub allow: Option<Vec<Arc<dyn Credential>>>,
    /// How long a request waits while all tunnels are full; then 503.
    pub queue: Duration,
    /// Whether visitors are answered before the backend was asked.
    pub respond: Option<Respond>,
    pub hold: Option<Hold>,
    /// What a visitor's request must pass first.
    pub gate: Option<Gate>,
    /// Requests at a time, upgraded connections among them.
    pub max_streams: Option<usize>,
    /// Tunnels at a time on each of its hosts, of all credentials together.
    pub max_tunnels: Option<usize>,
    /// Bytes a second of the bodies of all its exchanges together, in both directions.
    pub rate_bytes: Option<u64>,
}

impl Route {
    /// A route with all its defaults: every path of these hosts, without `allow`.
    pub fn new(name: impl Into<String>, hosts: Vec<HostPattern>) -> Self {
        Self {
            name: name.into(),
            hosts,
            path: "/".to_owned(),
            strip: false,
            when_taken: WhenTaken::Balance,
            no_backend: NoBackend::Status(StatusCode::BAD_GATEWAY),
            allow: None,
            queue: Duration::from_secs(1),
            respond: None,
            hold: None,
            gate: None,
            max_streams: None,
            max_tunnels: None,
            rate_bytes: None,
        }
    }
}

/// What becomes of a backend that wants what another one serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenTaken {
    Balance,
    /// The new one gets it, the old one is told and goes.
    Replace,
    /// The old one keeps it, the new one is refused.
    Reject,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoBackend {
    /// 404, 502, or 503 with Retry-After.
    Status(StatusCode),
    /// 503 with this page.
    Page { content: Arc<str>, html: bool },
    /// The request goes to this origin, as it is.
    Origin(OriginAddress),
    /// A redirect to this absolute `http` or `https` URL.
    Redirect(HeaderValue),
}

/// An answer at once, as senders of webhooks want it; the request is delivered after it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Respond {
    pub status: StatusCode,
    /// The largest body in bytes; beyond it 413.
    pub limit: usize,
}

impl Respond {
    /// The largest body that can be allowed, in bytes: it finds room beside one route that floods.
    pub const LARGEST: usize = 4 << 20;
}

/// Requests wait for a backend to come, instead of failing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hold {
    pub time: Duration,
    /// This many at a time; the next one fails at once.
    pub requests: usize,
}

/// Dynamic names: a backend asks for one and serves `https://NAME.domain/`.
#[derive(Clone, Debug)]
pub struct Names {
    /// In lower case, without a final dot. Empty: they are found by path alone.
    pub domain: String,
    /// Hosts, in lower case, where `https://HOST/NAME/` leads to the same. For browsers all names are one origin there.
    pub path_hosts: Vec<String>,
    /// What stands before `/NAME` there: empty, or like `/a/b`.
    pub path_prefix: String,
    /// Never empty.
    pub allow: Vec<NameGrant>,
    /// What holds for each name. `strip` is about `/NAME` at a path; name, hosts, path, `allow` and `respond` don't count.
    pub route: Route,
}

impl Names {
    /// Whether this can be a name: a label of a host, or where they are found by path, what can be a segment of one.
    pub fn is_fit(&self, name: &str) -> bool {
        router::is_label(name) && !self.domain.is_empty()
            || !self.path_hosts.is_empty() && token::is_name(name)
    }

    /// Names with all their defaults. `domain` is in lower case and has no final dot.
    pub fn new(domain: impl Into<String>, allow: Vec<NameGrant>) -> Self {
        Self {
            domain: domain.into(),
            path_hosts: Vec::new(),
            path_prefix: String::new(),
            allow,
            route: Route {
                strip: true,
                when_taken: WhenTaken::Replace,
                no_backend: NoBackend::Status(StatusCode::NOT_FOUND),
                ..Route::new("", Vec::new())
            },
        }
    }

    /// A warning of a setting for backends that trust each other.
    pub(super) fn warning(&self) -> Option<String> {
        let hosts = self.path_hosts.join(", ");
        (!hosts.is_empty()).then(|| {
            format!(
                "`path_hosts` makes all dynamic names one origin for browsers, on {hosts}: a page of one name can read what the others show; keep it to names that trust each other"
            )
        })
    }
}

/// A credential, and the names that it is good for.
#[derive(Clone, Debug)]
pub struct NameGrant {
    /// Labels in lower case. `None`: any, but where the credential itself speaks of one, only that.
    pub names: Option<Vec<String>>,
    pub credential: Arc<dyn Credential>,
}

pub(super) const HOLD_REQUESTS: usize = 100;
/// The largest body that `respond` takes: webhooks are small, and each is kept in memory.
pub(super) const RESPOND_LIMIT: usize = 1 << 20;

pub(super) const HOST: Parser<HostPattern> = Parser("a host like \"example.com\"", |text| {
    text.parse().map_err(|why: &str| Some(why.to_owned()))
});

pub(super) const NAME: Parser<String> =
    Parser("a name like `example.com`, without `*`", |text| match text.parse() {
        Ok(HostPattern::Name(name)) => Ok(name.into()),
        Ok(_) => Err(None),
        Err(why) => Err(Some(why.to_owned())),
    });

pub(super) const WHEN_TAKEN: Parser<WhenTaken> =
    Parser("\"balance\", \"replace\" or \"reject\"", |text| {
        use WhenTaken::{Balance, Reject, Replace};
        word(text, &[("balance", Balance), ("replace", Replace), ("reject", Reject)])
    });

pub(super) const NO_BACKEND: Parser<NoBackend> = Parser(
    "404, 502, 503, a URL like \"https://example.com/\", { page = \"away.html\" } or { origin = \"http://127.0.0.1:8081\" }",
    |text| {
        let known =
            [StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
        let status = status(text, &known).map(NoBackend::Status);
        status.or_else(|| redirect(text).map(NoBackend::Redirect)).ok_or(None)
    },
);

fn status(text: &str, known: &[StatusCode]) -> Option<StatusCode> {
    known.iter().find(|status| status.as_str() == text).copied()
}

fn redirect(url: &str) -> Option<HeaderValue> {
    let uri: Uri = url.parse().ok()?;
    let http = matches!(uri.scheme_str(), Some("http" | "https"));
    let fine = http && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    fine.then(|| HeaderValue::from_str(url).ok()).flatten()
}

pub(super) const RESPOND: Parser<StatusCode> = Parser("200, 202 or 204", |text| {
    status(text, &[StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT]).ok_or(None)
});

/// A number of bytes, or a number with its unit, of a body that is kept in memory.
pub(super) const RESPOND_SIZE: Parser<usize> =
    Parser("a size like \"1MiB\", up to 4MiB, since each request is kept in memory", |text| {
        let size = SIZE.parse(text).ok().and_then(|size| usize::try_from(size).ok());
        size.filter(|size| *size <= Respond::LARGEST).ok_or(None)
    });

/// Bytes a second; with fewer a single frame would take longer than a visitor waits.
pub(super) const RATE_BYTES: Parser<u64> =
    Parser("a size a second like \"10MiB\", from 16KiB", |text| {
        SIZE.parse(text).ok().filter(|rate| *rate >= 16 << 10).ok_or(None)
    });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_an_end() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1_000)),
            ("1MiB", Some(1 << 20)),
            ("64 KiB", Some(65_536)),
            ("2kB", Some(2_000)),
            ("1M", Some(1 << 20)),
            ("4MiB", Some(4 << 20)),
            ("5MiB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("+1", None),
            ("MiB", None),
            ("1TiB", None),
            ("99999999999999999999", None),
            ("18446744073709551615MiB", None),
        ] {
            assert_eq!(RESPOND_SIZE.parse(text).ok(), bytes, "{text:?}");
        }
    }
}
