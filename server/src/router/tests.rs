//! The table against a table by hand, and against a model that tries every route.

use ptth_link::crypto;

use std::net::Ipv6Addr;

use super::*;

fn table(routes: &[(&str, &str)]) -> Table<String> {
    let mut table = Table::default();
    for (host, path) in routes {
        let host: HostPattern = host.parse().unwrap_or_else(|error| panic!("{host}: {error}"));
        table.insert(&host, path, format!("{host}{path}")).expect("no twins");
    }
    table
}

#[test]
fn host_and_path_choose_the_route() {
    let table = table(&[
        ("example.com", "/"),
        ("example.com", "/name"),
        ("example.com", "/name/deep/"),
        ("*.example.com", "/"),
        ("*.b.example.com", "/"),
        ("x.b.example.com", "/only"),
        ("XN--KSE-QLA.de.", "/"),
        ("192.0.2.1", "/"),
        ("[0:0::1]", "/"),
    ]);
    let rows: &[(&str, &str, Option<&str>)] = &[
        // Exact, case, port, trailing dot.
        ("example.com", "/", Some("example.com/")),
        ("EXAMPLE.Com", "/", Some("example.com/")),
        ("example.com:8443", "/", Some("example.com/")),
        ("example.com.", "/", Some("example.com/")),
        ("Example.com.:443", "/x", Some("example.com/")),
        ("example.com:", "/", Some("example.com/")),
        ("example.com..", "/", None),
        ("xn--kse-qla.de", "/", Some("xn--kse-qla.de/")),
        // Wildcards: one label or more in front, never none, the longest first.
        ("a.example.com", "/", Some("*.example.com/")),
        ("a.b.c.example.com", "/", Some("*.example.com/")),
        ("b.example.com", "/", Some("*.example.com/")),
        ("A.B.EXAMPLE.COM.:1", "/", Some("*.b.example.com/")),
        ("y.x.b.example.com", "/", Some("*.b.example.com/")),
        (".example.com", "/", None),
        ("badexample.com", "/", None),
        ("example.com.evil", "/", None),
        // The host decides alone: no fall back to `*.b.example.com` for another path.
        ("x.b.example.com", "/", None),
        ("x.b.example.com", "/only/this", Some("x.b.example.com/only")),
        // Addresses.
        ("192.0.2.1:80", "/", Some("192.0.2.1/")),
        ("[::1]", "/", Some("[::1]/")),
        ("[0:0:0::0001]:443", "/", Some("[::1]/")),
        ("[::2]", "/", None),
        ("[::1", "/", None),
        ("[::1]x", "/", None),
        ("::1", "/", None),
        // Paths: whole segments, byte for byte.
        ("example.com", "/name", Some("example.com/name")),
        ("example.com", "/name/", Some("example.com/name")),
        ("example.com", "/name?q=1", Some("example.com/name")),
        ("example.com", "/name/x?q", Some("example.com/name")),
        ("example.com", "/names", Some("example.com/")),
        ("example.com", "/Name", Some("example.com/")),
        ("example.com", "/n%61me", Some("example.com/")),
        ("example.com", "//name", Some("example.com/")),
        ("example.com", "/name/deep", Some("example.com/name/deep/")),
        ("example.com", "/name/deep/er", Some("example.com/name/deep/")),
        ("example.com", "/name/deeper", Some("example.com/name")),
        ("example.com", "*", Some("example.com/")),
        // Nothing.
        ("other.org", "/", None),
        ("", "/", None),
    ];
    for (host, path, expected) in rows {
        let found = table.find(host, path).map(|(value, _)| value.as_str());
        assert_eq!(found, *expected, "{host:?} {path:?}");
    }
}

#[test]
fn a_route_for_every_host_takes_what_no_other_has() {
    let table = table(&[("*", "/"), ("*", "/api"), ("example.com", "/api")]);
    for (host, path, expected) in [
        ("other.org", "/", Some("*/")),
        ("[::1]:1", "/api/x", Some("*/api")),
        ("", "/", Some("*/")),
        ("example.com", "/api", Some("example.com/api")),
        ("example.com", "/", None),
    ] {
        let found = table.find(host, path).map(|(value, _)| value.as_str());
        assert_eq!(found, expected, "{host:?} {path:?}");
    }
}

#[test]
fn a_second_route_for_the_same_host_and_path_is_refused() {
    let mut table = Table::default();
    let patterns = ["*", "a.b", "*.a.b", "[::1]"].map(|text| text.parse::<HostPattern>().unwrap());
    for (number, pattern) in patterns.iter().enumerate() {
        assert_eq!(table.insert(pattern, "/", number), Ok(()));
        assert_eq!(table.insert(pattern, "/x", number + 10), Ok(()));
        assert_eq!(table.insert(pattern, "/x/", 99), Err(&(number + 10)));
        assert_eq!(table.insert(pattern, "/", 99), Err(&number));
    }
}

#[test]
fn a_prefix_is_stripped_once() {
    let table = table(&[("*", "/name"), ("*", "/")]);
    for (path, expected) in [
        ("/name", "/"),
        ("/name/", "/"),
        ("/name?", "/?"),
        ("/name?q=1&r=/name", "/?q=1&r=/name"),
        ("/name/name/x", "/name/x"),
        ("/name//x", "//x"),
        ("/name/a%2Fb?x=%20&y=a+b", "/a%2Fb?x=%20&y=a+b"),
        ("/names", "/names"),
        ("/?", "/?"),
        ("*", "*"),
    ] {
        let path = PathAndQuery::try_from(path).unwrap();
        let (_, prefix) = table.find("any.org", path.as_str()).unwrap();
        assert_eq!(strip(&path, prefix).as_str(), expected, "{path}");
    }
}

#[test]
fn names_are_read_from_hosts_and_paths() {
    for (host, expected) in [
        ("bob.example.com", Some("bob")),
        ("BOB.Example.com.:443", Some("bob")),
        ("example.com", None),
        (".example.com", None),
        ("a.bob.example.com", None),
        ("b_b.example.com", None),
        ("bobexample.com", None),
        ("bob.example.org", None),
        ("é.com", None),
        ("", None),
    ] {
        assert_eq!(label(host, "example.com").as_deref(), expected, "{host:?}");
    }
    for (path, expected) in [
        ("/bob", Some("bob")),
        ("/bob/x/y", Some("bob")),
        ("/bob?x", Some("bob")),
        ("/Bob/", Some("Bob")),
        ("/", None),
        ("/?x", None),
        ("//bob", None),
        ("*", None),
    ] {
        assert_eq!(segment(path), expected, "{path:?}");
    }
}

#[test]
fn patterns_are_read_or_refused_with_what_to_write() {
    for (text, shown) in [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("*.Example.com", "*.example.com"),
        ("*", "*"),
        ("my_host.local", "my_host.local"),
        ("localhost", "localhost"),
        ("[0:0::1]", "[::1]"),
        ("192.0.2.1", "192.0.2.1"),
    ] {
        assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), shown, "{text}");
    }
    for (text, error) in [
        ("", "is empty"),
        ("https://example.com", "is a URL"),
        ("https://example.com:443/x", "is a URL"),
        ("example.com:443", "has a port"),
        ("[::1]:443", "has a port"),
        ("example.com/x", "has a path"),
        ("a.*.com", "has a `*` in the wrong place"),
        ("*a.com", "has a `*` in the wrong place"),
        ("*.*.com", "has a `*` in the wrong place"),
        ("*.192.0.2.1", "has a `*` in the wrong place"),
        ("**", "has a `*` in the wrong place"),
        ("*.", "names no domain"),
        ("*..", "names no domain"),
        ("*..a", "is no host"),
        (".", "is no host"),
        (".com", "is no host"),
        ("a..b", "is no host"),
        ("-a.com", "is no host"),
        ("a b", "is no host"),
        ("[::1", "is no host"),
        ("[::1]x", "is no host"),
        ("::1", "is an IPv6 address"),
        ("käse.de", "isn't spelt as DNS has it"),
    ] {
        let said = text.parse::<HostPattern>().expect_err(text);
        assert!(said.starts_with(error), "{text:?} {said}");
    }
    assert!(format!("{}.de", "a".repeat(64)).parse::<HostPattern>().is_err());
    assert!(vec!["aaaaaaa"; 40].join(".").parse::<HostPattern>().is_err());
}

/// A random number generator of a few lines: the runs of a failed seed can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        // Knuth's constants; the upper bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn joined(&mut self, choices: &[&str], most: usize, separator: &str) -> String {
        let parts: Vec<&str> = (0..=self.below(most)).map(|_| self.one_of(choices)).collect();
        parts.join(separator)
    }

    fn pattern(&mut self) -> String {
        match self.below(8) {
            0 => "*".to_owned(),
            1 => format!("[{}]", self.one_of(&["::1", "0::1", "1::", "1:0:0::"])),
            2..5 => format!("*.{}", self.joined(LABELS, 3, ".")),
            _ => self.joined(LABELS, 4, "."),
        }
    }

    fn host(&mut self) -> String {
        let host = match self.below(8) {
            0 => format!("[{}]", self.one_of(&["::1", "0:0::1", "1::", "2::"])),
            1 => self.joined(&["a", "b", "c"], 5, ".") + ".",
            _ => self.joined(&["a", "b", "A", "B", "c"], 5, "."),
        };
        format!("{host}{}", self.one_of(&["", "", ":1", ":65535"]))
    }

    fn path(&mut self, ends: &[&str]) -> String {
        let segments: String = (0..self.below(4))
            .map(|_| format!("/{}", self.one_of(&["a", "b", "ab", "A"])))
            .collect();
        let path = format!("{segments}{}", self.one_of(ends));
        if path.starts_with('/') { path } else { format!("/{path}") }
    }
}

const LABELS: &[&str] = &["a", "b"];

/// How specific a pattern is for a host, by the words of the documentation and with no cleverness;
/// `None` if it doesn't fit.
fn rank(pattern: &str, host: &str) -> Option<usize> {
    let host = host.to_lowercase();
    if pattern == "*" {
        return Some(0);
    }
    if let Some(end) = host.find(']') {
        let address = |text: &str| text.trim_matches(['[', ']']).parse::<Ipv6Addr>().ok();
        return (address(pattern)? == address(&host[..end])?).then_some(usize::MAX);
    }
    let host = host.split(':').next().unwrap().trim_end_matches('.');
    let wanted: Vec<&str> = pattern.split('.').rev().collect();
    let given: Vec<&str> = host.split('.').rev().collect();
    if pattern.starts_with("*.") {
        let wanted = &wanted[..wanted.len() - 1];
        (given.len() > wanted.len() && given.starts_with(wanted)).then_some(wanted.len())
    } else {
        (wanted == given).then_some(usize::MAX)
    }
}

/// The length of the prefix, if it fits.
fn prefix(route: &str, path: &str) -> Option<usize> {
    let segments = |text: &str| -> Vec<String> {
        let path = text.split('?').next().unwrap();
        path.split('/').skip(1).map(str::to_owned).collect()
    };
    let mut wanted = segments(route);
    wanted.retain(|segment| !segment.is_empty());
    segments(path).starts_with(&wanted).then(|| wanted.iter().map(|s| s.len() + 1).sum())
}

#[test]
fn the_table_finds_what_trying_every_route_finds() {
    let seed = u64::from_ne_bytes(crypto::random());
    let mut dice = Dice(seed);
    let mut hits = 0;
    for _ in 0..2_000 {
        let mut table = Table::default();
        let mut routes: Vec<(String, String)> = Vec::new();
        for _ in 0..=dice.below(12) {
            let (host, path) = (dice.pattern(), dice.path(&["", "/"]));
            if table.insert(&host.parse().unwrap(), &path, routes.len()).is_ok() {
                routes.push((host, path));
            }
        }
        for _ in 0..20 {
            let (host, path) = (dice.host(), dice.path(&["", "/", "?", "?/a", "/?q=1", "c"]));
            let best = routes.iter().filter_map(|(pattern, _)| rank(pattern, &host)).max();
            let fits = routes.iter().enumerate().filter_map(|(number, (pattern, route))| {
                let prefix = prefix(route, &path)?;
                (rank(pattern, &host)? == best?).then_some((prefix, number))
            });
            let expected = fits.max().map(|(prefix, number)| (number, prefix));
            let found = table.find(&host, &path).map(|(value, prefix)| (*value, prefix));
            assert_eq!(found, expected, "seed {seed}: {host} {path} in {routes:?}");
            for (number, (pattern, _)) in routes.iter().enumerate() {
                let matches = pattern.parse::<HostPattern>().unwrap().matches(&host);
                assert_eq!(matches, rank(pattern, &host).is_some(), "seed {seed}: {number} {host}");
            }
            hits += usize::from(found.is_some());
        }
    }
    assert!((4_000..39_000).contains(&hits), "seed {seed}: a test of nothing: {hits} hits");
}
