//! The configuration file: what it says, and what beats it.

mod mistakes;

use std::path::Path;

use http::StatusCode;

use super::*;
use crate::router::HostPattern;

/// Reads a file of that text, and a command line and variables.
pub(super) fn load(
    scratch: &Scratch,
    text: impl AsRef<[u8]>,
    line: &str,
    variables: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let path = scratch.write("2ptth.toml", text);
    read(&format!("--config {} {line}", path.display()), variables)
}

fn good(text: impl AsRef<[u8]>) -> Config {
    let text = text.as_ref();
    let config = load(&scratch(), text, "--self-signed", &[]);
    config.unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(text)))
}

/// A folder with secrets that a file may name.
pub(super) fn scratch() -> Scratch {
    let scratch = Scratch::new();
    for (name, secret) in [("secret", "s3cret-of-somebody"), ("other", "s3cret-of-others")] {
        let path = scratch.write(name, secret);
        private(&path);
    }
    scratch
}

#[cfg(unix)]
pub(super) fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
pub(super) fn private(_: &Path) {}

const ALLOW: &str = "allow = [{ bearer_file = \"secret\" }]";

#[test]
fn a_file_without_routes_changes_nothing_else() {
    let config = good("");
    assert!(config.routes.is_empty() && config.names.is_none() && config.at_large());
    assert_eq!(config.listen, ok("", &[]).listen);
}

#[test]
fn the_file_is_given_by_flag_or_variable() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.write("one", "grace = 1"), scratch.write("two", "grace = 2"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    assert_eq!(ok("", &[("CONFIG", two)]).limits.grace.as_secs(), 2);
    let both = ok(&format!("--config {one}"), &[("CONFIG", two)]);
    assert_eq!(both.limits.grace.as_secs(), 1);
    assert_eq!(ok("", &[("CONFIG", "")]).limits.grace.as_secs(), 30);
    let missing = read("--self-signed --config /nonexistent", &[]).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent can't be read (No such file"), "{missing}");
}

/// Each key by itself, in both spellings, then beaten by the variable, then by the flag.
#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let scratch = Scratch::new();
    scratch.write("keys", KEY);
    type Seen = fn(&Config) -> String;
    let listen: Seen = |c| format!("{:?}", c.listen);
    let names: Seen = |c| format!("{:?}", c.certificates);
    let labels: Seen = |c| format!("{:?}", c.backend_alpn);
    let limits: Seen = |c| format!("{:?}", c.limits);
    let log: Seen = |c| format!("{:?} {:?}", c.log, c.access_log);
    let edge: Seen = |c| format!("{:?} {:?} {:?}", c.trusted, c.plain, c.redirect);
    let table: [(&str, &str, &str, &str, Seen); 22] = [
        ("--trusted-proxies", "10.0.0.1", "TRUSTED_PROXIES", "['10.0.0.0/8', 'fd00::/8']", edge),
        ("--plain", "127.0.0.1:1", "PLAIN", "'127.0.0.1:2'", edge),
        ("--redirect", "1", "REDIRECT", "[80]", edge),
        ("--listen", "1", "LISTEN", "2", listen),
        ("--listen", "1", "LISTEN", "[\"3.3.3.3:3\", \"4\"]", listen),
        ("--listen", "1", "LISTEN", "\"3.3.3.3:3\"", listen),
        ("--name", "a.example", "NAMES", "[\"b.example\", \"c.example\"]", names),
        ("--backend-alpn", "a", "BACKEND_ALPN", "[\"b\", \"c\"]", labels),
        ("--backend-alpn", "a", "BACKEND_ALPN", "\"b,%D5\"", labels),
        ("--head-timeout", "1", "HEAD_TIMEOUT", "2", limits),
        ("--head-timeout", "1s", "HEAD_TIMEOUT", "\"3m\"", limits),
        ("--stall-timeout", "1", "STALL_TIMEOUT", "2.5", limits),
        ("--grace", "1", "GRACE", "\"0\"", limits),
        ("--max-connections", "10", "MAX_CONNECTIONS", "1_000", limits),
        ("--max-connections", "10", "MAX_CONNECTIONS", "\"20\"", limits),
        ("--max-connections-per-address", "1", "MAX_CONNECTIONS_PER_ADDRESS", "20", limits),
        ("--max-tunnels", "1", "MAX_TUNNELS", "20", limits),
        ("--log", "trace", "LOG", "\"warn\"", log),
        ("--log-format", "text", "LOG_FORMAT", "\"json\"", log),
        ("--syslog", "a:1", "SYSLOG", "\"unix:/dev/log\"", log),
        ("--access-log", "b", "ACCESS_LOG", "\"-\"", log),
        ("--access-log", "b", "ACCESS_LOG", "\"/log/access\"", log),
    ];
    for (flag, value, variable, in_file, seen) in table {
        let key = flag.trim_start_matches('-');
        let text = format!("{key} = {in_file}");
        let load = |line: &str, variables: &[(&str, &str)]| {
            let config = load(&scratch, &text, &format!("--self-signed {line}"), variables);
            seen(&config.unwrap_or_else(|error| panic!("{text}: {error}")))
        };
        let by_file = load("", &[]);
        assert_eq!(seen(&good(text.replace(key, &key.replace('-', "_")))), by_file, "{text}");
        assert_ne!(by_file, seen(&ok("", &[])), "{text}");
        assert_eq!(load("", &[(variable, "")]), by_file, "{text}: an empty variable is none");
        let by_variable = seen(&ok("", &[(variable, value)]));
        assert_ne!(by_variable, by_file);
        assert_eq!(load("", &[(variable, value)]), by_variable, "{text}");
        assert_eq!(load(&format!("{flag} {value}"), &[(variable, "x")]), by_variable, "{text}");
    }
}

#[test]
fn certificates_and_keys_of_the_file_are_beaten_as_a_whole() {
    let scratch = Scratch::new();
    let folder = scratch.write("keys", KEY).parent().unwrap().to_owned();
    let files = |cert: &str, key: &str| CertificateSource::Files {
        cert: folder.join(cert),
        key: folder.join(key),
    };
    let by_file = "cert = 'c'\nkey = '/abs/k'";
    let tables = "[[certificate]]\ncert = 'c'\nkey = 'k'\n[[certificate]]\ncert = 'x'\nkey = 'y'";
    let made = CertificateSource::SelfSigned { names: vec![], kept: None };
    let outside = CertificateSource::Files { cert: "a".into(), key: "b".into() };
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], CertificateSource);
    let rows: [Row<'_>; 8] = [
        (by_file, "", &[], files("c", "/abs/k")),
        (by_file, "--self-signed", &[], made.clone()),
        (by_file, "", &[("SELF_SIGNED", "1")], made.clone()),
        (by_file, "", &[("SELF_SIGNED", "0")], files("c", "/abs/k")),
        (by_file, "", &[("CERT", "a"), ("KEY", "b")], outside.clone()),
        ("self-signed = true", "--cert a --key b", &[], outside.clone()),
        ("self-signed = true", "", &[("CERT", "a"), ("KEY", "b")], outside),
        ("self_signed = true", "", &[], made.clone()),
    ];
    for (text, line, variables, expected) in rows {
        let config = load(&scratch, text, line, variables);
        let config = config.unwrap_or_else(|error| panic!("{text} {line}: {error}"));
        assert_eq!(config.certificates, [expected], "{text} {line} {variables:?}");
    }
    let both = vec![files("c", "k"), files("x", "y")];
    assert_eq!(load(&scratch, tables, "", &[]).unwrap().certificates, both);
    let three = load(&scratch, tables, "--self-signed", &[]).unwrap().certificates;
    assert_eq!(three, [vec![made], both].concat());
}

#[test]
fn keys_of_the_file_are_beaten_by_those_of_a_variable() {
    let scratch = Scratch::new();
    let path = scratch.write("keys", KEY);
    let text = "token_file = \"keys\"";
    let config = load(&scratch, text, "--self-signed", &[]).unwrap();
    let Admission::Keys { file, .. } = config.admission else { panic!() };
    assert_eq!(file, Some(path));
    let other = Token::generate();
    let variables = [("TOKEN", &*other.reveal())];
    let config = load(&scratch, text, "--self-signed", &variables).unwrap();
    let expected = Admission::Keys { keys: vec![other.public()], file: None, made: None };
    assert_eq!(config.admission, expected);
    assert_eq!(good("open = true").admission, Admission::Open);
}

/// What the documentation says of a route and of names that say little.
#[test]
fn routes_and_names_have_defaults() {
    let config = good(
        "[[route]]\n[names]\ndomain = 'Tunnel.Example.com.'\nkey = '2ptth_pub_11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo'",
    );
    let [route] = &config.routes[..] else { panic!("{config:?}") };
    assert_eq!(format!("{route:?}"), format!("{:?}", Route::new("*", vec![HostPattern::Any])));
    assert_eq!((route.when_taken, &*route.path), (WhenTaken::Balance, "/"));
    assert_eq!(route.no_backend, NoBackend::Status(StatusCode::BAD_GATEWAY));
    assert_eq!((route.queue.as_secs(), route.respond, route.hold), (1, None, None));
    assert!(!route.strip && route.allow.is_none() && config.at_large());
    let names = config.names.unwrap();
    assert_eq!(names.domain, "tunnel.example.com");
    assert_eq!((names.path_hosts.len(), &config.warnings[..]), (0, &[][..]));
    assert_eq!(names.route.when_taken, WhenTaken::Replace);
    assert_eq!(names.route.no_backend, NoBackend::Status(StatusCode::NOT_FOUND));
    assert!(names.route.strip && names.allow[0].names.is_none());
}

#[test]
fn routes_and_names_are_read_whole() {
    let config = good(
        "[[route]]\n\
         name = 'blog'\n\
         hosts = ['Blog.Example.com.', '*.blog.example.com', '[0::1]']\n\
         path = '/a/b/'\n\
         strip = true\n\
         when-taken = 'reject'\n\
         no_backend = 'https://example.org/away?x'\n\
         queue = '250ms'\n\
         respond = 202\n\
         respond_limit = '64KiB'\n\
         hold = '10s'\n\
         hold_requests = 7\n\
         [[route.allow]]\n\
         bearer-file = 'secret'\n\
         [[route.allow]]\n\
         basic = { user = 'me', password-file = 'other' }\n\
         [[route]]\n\
         hosts = 'blog.example.com'\n\
         path = '/a'\n\
         no-backend = 503\n\
         hold = 0\n\
         allow = { bearer_sha256 = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b' }\n\
         [names]\n\
         domain = 't.example.com'\n\
         path_hosts = ['Example.com']\n\
         strip = false\n\
         when_taken = 'balance'\n\
         no_backend = 502\n\
         hold = '1m'\n\
         bearer_file = 'other'\n\
         [[names.allow]]\n\
         names = ['Bob', 'al-ice.T.example.com']\n\
         credential = { bearer_file = 'secret' }\n",
    );
    assert!(!config.at_large());
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("one origin for browsers, on example.com:"), "{warning}");
    let [blog, other] = &config.routes[..] else { panic!("{config:?}") };
    let hosts: Vec<String> = blog.hosts.iter().map(HostPattern::to_string).collect();
    assert_eq!(hosts, ["blog.example.com", "*.blog.example.com", "[::1]"]);
    assert_eq!((&*blog.name, &*blog.path, blog.strip), ("blog", "/a/b", true));
    assert_eq!(blog.when_taken, WhenTaken::Reject);
    let away = http::HeaderValue::from_static("https://example.org/away?x");
    assert_eq!(blog.no_backend, NoBackend::Redirect(away));
    assert_eq!(blog.queue.as_millis(), 250);
    let respond = Respond { status: StatusCode::ACCEPTED, limit: 65_536 };
    assert_eq!(blog.respond, Some(respond));
    assert_eq!(blog.hold, Some(Hold { time: Duration::from_secs(10), requests: 7 }));
    assert_eq!(blog.allow.as_ref().map(Vec::len), Some(2));
    assert_eq!((&*other.name, other.hold), ("blog.example.com/a", None));
    assert_eq!(other.no_backend, NoBackend::Status(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(other.allow.as_ref().map(Vec::len), Some(1));
    let names = config.names.unwrap();
    assert_eq!((names.path_hosts, names.route.strip), (vec!["example.com".to_owned()], false));
    assert_eq!(names.route.when_taken, WhenTaken::Balance);
    assert_eq!(names.route.hold, Some(Hold { time: Duration::from_secs(60), requests: 100 }));
    let [listed, any] = &names.allow[..] else { panic!() };
    assert_eq!(listed.names, Some(vec!["Bob".to_owned(), "al-ice".to_owned()]));
    assert_eq!(any.names, None);
}

#[test]
fn byte_order_marks_and_line_ends_change_nothing() {
    let text = format!("grace = 7\n[[route]]\nname = 'a'\n{ALLOW}\n");
    for text in [
        format!("\u{feff}{text}"),
        text.replace('\n', "\r\n"),
        format!("\u{feff}{}", text.replace('\n', "\r\n")),
        text.trim_end().to_owned(),
    ] {
        let config = good(&text);
        assert_eq!((config.limits.grace.as_secs(), &*config.routes[0].name), (7, "a"), "{text:?}");
    }
    for (text, place) in [
        ("\u{feff}log = 'loud'", ".toml:1:7: log \"loud\""),
        ("\u{feff}grace = 7\r\nlog = 'loud'\r\n", ".toml:2:7: log \"loud\""),
    ] {
        let error = load(&scratch(), text, "--self-signed", &[]).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
}

/// The example of `docs/configuration.md`, with files of the names that stand there.
#[test]
fn the_documented_file_is_one() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let scratch = Scratch::new();
    for name in ["blog.secret", "shop.secret", "jwt.old", "jwt.new", "friends.secret"] {
        private(&scratch.write(name, format!("a-secret-of-thirty-two-bytes-and-more-{name}")));
    }
    let config =
        load(&scratch, example.unwrap(), "", &[]).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["blog", "shop", "webhooks"]);
    assert_eq!(config.names.unwrap().allow.len(), 2);
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.starts_with("`path_hosts`"), "{warning}");
}

#[test]
fn the_digest_tells_whether_anything_changed() {
    let scratch = scratch();
    scratch.write("keys", KEY);
    let text = format!("token_file = 'keys'\n[[route]]\n{ALLOW}\n[[route]]\nhosts = 'a'").replacen(
        "[[route]]\n",
        "[[route]]\nhosts = 'b'\n",
        1,
    );
    let digest = |text: &str| load(&scratch, text, "--self-signed", &[]).unwrap().digest;
    let first = digest(&text);
    assert_eq!(digest(&text), first);
    assert_ne!(digest(&format!("{text}\n")), first);
    scratch.write("other", "not named by the file");
    assert_eq!(digest(&text), first);
    scratch.write("secret", "another-s3cret");
    let second = digest(&text);
    assert_ne!(second, first);
    scratch.write("keys", Token::generate().public().to_string());
    assert_ne!(digest(&text), second);
    assert_eq!(ok("", &[]).digest, ok("", &[]).digest);
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let scratch = scratch();
    scratch.write("keys", KEY);
    let two = format!("[[route]]\nhosts = 'a'\n[[route]]\nname = 'b'\nhosts = 'b'\n{ALLOW}");
    let rows: [(String, &[&str]); 6] = [
        (two.clone(), &[]),
        (format!("open = true\n{two}"), &["the route \"a\" has no `allow`"]),
        (format!("token_file = 'keys'\n{two}"), &[]),
        (format!("token_file = 'keys'\n[[route]]\n{ALLOW}"), &["admit no backend"]),
        (format!("open = true\n[[route]]\n{ALLOW}"), &["admit no backend"]),
        (format!("[[route]]\n{ALLOW}"), &[]),
    ];
    for (text, expected) in rows {
        let warnings = load(&scratch, &text, "--self-signed", &[]).unwrap().warnings;
        assert_eq!(warnings.len(), expected.len(), "{text}: {warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{text}: {warning}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_can_read_is_a_warning_once() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let path = scratch.write("secret", "s3cret-of-somebody");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!("[[route]]\nhosts = 'a'\n{ALLOW}\n[[route]]\nhosts = 'b'\n{ALLOW}");
    let warnings = load(&scratch, text, "--self-signed", &[]).unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("secret") && warning.contains("chmod 600"), "{warning}");
}
