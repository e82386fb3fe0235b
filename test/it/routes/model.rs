//! Routes and names together, against a model that tries everything and knows no table.

use std::sync::Arc;

use http::StatusCode;
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config, NoBackend, Route};
use ptth_server::lab::Known;
use ptth_server::lab::RouteId;
use ptth_server::lab::{Lost, Policy};
use ptth_test::Dice;
use ptth_test::routes::names;

const PATTERNS: &[&str] = &[
    "*",
    "*.test",
    "*.example.test",
    "*.tunnel.example.test",
    "example.test",
    "tunnel.example.test",
    "bob.tunnel.example.test",
    "*.bob.tunnel.example.test",
    "other.test",
];
const PREFIXES: &[&str] = &["/", "/", "/bob", "/bob/x", "/api"];
const HOSTS: &[&str] = &[
    "example.test",
    "Tunnel.example.test:8443",
    "bob.tunnel.example.test",
    "ANN.tunnel.example.test.",
    "x.bob.tunnel.example.test",
    "other.test",
    "a.other.test",
    "nowhere",
    "[::1]:443",
    "-.tunnel.example.test",
    ".tunnel.example.test",
];
const PATHS: &[&str] =
    &["/", "/bob", "/bob/", "/bob/x", "/bobby", "/api", "/api/bob", "/Bob", "//", "*"];

#[derive(Debug, Eq, PartialEq)]
enum Way {
    Route(String),
    /// A dynamic name, whoever has it.
    Name,
    Nowhere,
}

/// How narrow a pattern is, if the host fits.
fn width(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => Some(0),
        Some(suffix) => {
            let front = host.strip_suffix(suffix)?.strip_suffix('.')?;
            (!front.is_empty()).then(|| suffix.split('.').count())
        }
        None => (pattern == host).then_some(usize::MAX),
    }
}

fn has_prefix(prefix: &str, path: &str) -> bool {
    prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"))
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_segment(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~%".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

fn model(routes: &[(String, &str, &str)], domain: Option<&str>, host: &str, path: &str) -> Way {
    let host = if host.starts_with('[') { host } else { host.split(':').next().unwrap() };
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let wildcard = domain.map(|domain| format!("*.{domain}")).unwrap_or_default();
    let mut entries: Vec<(&str, &str, Way)> = Vec::new();
    for (name, pattern, prefix) in routes {
        entries.push((pattern, prefix, Way::Route(name.clone())));
    }
    if domain.is_some() && !routes.iter().any(|(_, at, under)| *at == wildcard && *under == "/") {
        entries.push((&wildcard, "/", Way::Name));
    }
    let narrowest = entries.iter().filter_map(|(pattern, ..)| width(pattern, &host)).max();
    let at_host =
        entries.into_iter().filter(|(at, ..)| narrowest.is_some() && width(at, &host) == narrowest);
    let found = at_host.filter(|(_, prefix, _)| has_prefix(prefix, path));
    match (found.max_by_key(|(_, prefix, _)| prefix.len()), domain) {
        (Some((.., Way::Name)), Some(domain)) => {
            let label = host.strip_suffix(domain).and_then(|front| front.strip_suffix('.'));
            if label.is_some_and(is_name) { Way::Name } else { Way::Nowhere }
        }
        (Some((.., way)), _) => way,
        (None, Some(domain)) => {
            let segment = path.strip_prefix('/').unwrap_or("").split('/').next().unwrap_or("");
            let hosted = host == domain || host == "example.test";
            if hosted && is_segment(segment) { Way::Name } else { Way::Nowhere }
        }
        (None, None) => Way::Nowhere,
    }
}

#[test]
fn the_policy_finds_what_the_model_finds() {
    let token = Token::generate();
    let (mut dice, _told) = Dice::told(3);
    let mut seen = [0; 3];
    for round in 0..4000 {
        let mut routes: Vec<(String, &str, &str)> = Vec::new();
        for _ in 0..dice.below(6) {
            let (pattern, prefix) = (dice.one_of(PATTERNS), dice.one_of(PREFIXES));
            if !routes.iter().any(|(_, at, under)| (*at, *under) == (pattern, prefix)) {
                routes.push((format!("r{}", routes.len()), pattern, prefix));
            }
        }
        let with_names = dice.below(3) > 0;
        let from = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
        let mut config = Config::new(from, Admission::make());
        config.routes = routes
            .iter()
            .map(|(name, pattern, prefix)| {
                let mut route = Route::new(name.clone(), vec![pattern.parse().unwrap()]);
                route.path = (*prefix).to_owned();
                route
            })
            .collect();
        if with_names {
            let mut names = names(&[(&token, None)]);
            names.path_hosts = ["tunnel.example.test", "example.test"].map(str::to_owned).to_vec();
            names.route.no_backend = NoBackend::Status(StatusCode::BAD_GATEWAY);
            config.names = Some(names);
        }
        if config.routes.is_empty() && !with_names {
            continue;
        }
        let policy = Policy::new(&config, &Arc::new(Known::default()), 1, None);
        let domain = with_names.then_some("tunnel.example.test");
        for _ in 0..20 {
            let (host, path) = (dice.one_of(HOSTS), dice.one_of(PATHS));
            let way = match policy.find(host, path) {
                Ok(found) => match &found.route.id {
                    RouteId::Host(host, path) => {
                        let (host, path) = (host.to_string(), &**path);
                        let at =
                            routes.iter().find(|(_, at, under)| (*at, *under) == (&host, path));
                        Way::Route(at.map(|(name, ..)| name.clone()).expect("a route"))
                    }
                    RouteId::Name(_) => panic!("nobody serves it"),
                },
                Err(Lost::Nobody(_)) => Way::Name,
                Err(Lost::Unrouted) => Way::Nowhere,
            };
            let expected = model(&routes, domain, host, path);
            assert_eq!(way, expected, "round {round}: {host} {path} in {routes:?}, {domain:?}");
            seen[match way {
                Way::Route(_) => 0,
                Way::Name => 1,
                Way::Nowhere => 2,
            }] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 1000), "{seen:?}");
}
