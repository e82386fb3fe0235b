//! The configuration file: what it says, what beats it, and what is said about a wrong one.

use std::path::Path;

use http::StatusCode;

use super::*;
use crate::router::HostPattern;

/// Reads a file of that text, and a command line and variables.
fn load(
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
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    for (name, secret) in [("secret", "s3cret-of-somebody"), ("other", "s3cret-of-others")] {
        let path = scratch.write(name, secret);
        private(&path);
    }
    scratch
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn private(_: &Path) {}

const ALLOW: &str = "allow = [{ bearer_file = \"secret\" }]";

#[test]
fn a_file_without_routes_changes_nothing_else() {
    let config = good("");
    assert!(config.routes.is_empty() && config.names.is_none() && config.at_large());
    assert_eq!(config.listen, ok("", &[]).listen);
    assert!(config.file.unwrap().ends_with("2ptth.toml"));
    assert_eq!(ok("", &[]).file, None);
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
    let names: Seen = |c| format!("{:?}", c.certificate);
    let labels: Seen = |c| format!("{:?}", c.backend_alpn);
    let limits: Seen = |c| format!("{:?}", c.limits);
    let log: Seen = |c| c.log.to_string();
    let table: [(&str, &str, &str, &str, Seen); 14] = [
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
        ("--log", "trace", "LOG", "\"warn\"", log),
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
    let tables = "[[certificate]]\ncert = 'c'\nkey = 'k'\n[[certificate]]\ncert = 'x'\nkey = 'x'";
    let made = CertificateSource::SelfSigned { names: vec![] };
    let outside = CertificateSource::Files { cert: "a".into(), key: "b".into() };
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], CertificateSource);
    let rows: [Row<'_>; 9] = [
        (by_file, "", &[], files("c", "/abs/k")),
        (by_file, "--self-signed", &[], made.clone()),
        (by_file, "", &[("SELF_SIGNED", "1")], made.clone()),
        (by_file, "", &[("SELF_SIGNED", "0")], files("c", "/abs/k")),
        (by_file, "", &[("CERT", "a"), ("KEY", "b")], outside.clone()),
        ("self-signed = true", "--cert a --key b", &[], outside.clone()),
        ("self-signed = true", "", &[("CERT", "a"), ("KEY", "b")], outside),
        ("self_signed = true", "", &[], made),
        (tables, "", &[], files("c", "k")),
    ];
    for (text, line, variables, expected) in rows {
        let config = load(&scratch, text, line, variables);
        let config = config.unwrap_or_else(|error| panic!("{text} {line}: {error}"));
        assert_eq!(config.certificate, expected, "{text} {line} {variables:?}");
    }
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
    assert_eq!(names.path_hosts, ["tunnel.example.com", "example.com"]);
    assert_eq!(names.when_taken, WhenTaken::Replace);
    assert_eq!(names.no_backend, NoBackend::Status(StatusCode::NOT_FOUND));
    assert!(names.strip && names.allow[0].names.is_none());
    assert_eq!(Names::new("example.com", vec![]).path_hosts, ["example.com"]);
    assert_eq!(Names::new("localhost", vec![]).path_hosts, ["localhost"]);
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
    assert_eq!((names.path_hosts, names.strip), (vec!["example.com".to_owned()], false));
    assert_eq!(names.when_taken, WhenTaken::Balance);
    assert_eq!(names.hold, Some(Hold { time: Duration::from_secs(60), requests: 100 }));
    let [listed, any] = &names.allow[..] else { panic!() };
    assert_eq!(listed.names, Some(vec!["bob".to_owned(), "al-ice".to_owned()]));
    assert_eq!(any.names, None);
}

/// C6
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
    let error = load(&scratch(), "\u{feff}grace = 7\r\nlog = 'loud'\r\n", "--self-signed", &[])
        .unwrap_err();
    assert!(error.to_string().contains("toml:2:7: log \"loud\""), "{error}");
}

/// A text, the place in it, and what the sentence must contain.
type Wrong = (&'static str, &'static str, &'static [&'static str]);

#[test]
fn each_mistake_is_told_with_its_line_and_column() {
    let table: &[Wrong] = &[
        // TOML.
        ("grace 10", "1:", &["TOML"]),
        ("\n\ngrace = \"10", "3:", &["TOML"]),
        ("grace = 1\ngrace = 2", "2:1", &["duplicate key"]),
        ("head-timeout = 1\nhead_timeout = 2", "2:1", &["`head_timeout` is given twice"]),
        // Keys and types.
        ("\nlisen = 443", "2:1", &["`lisen` isn't a key of the file"]),
        ("config = 'x'", "1:1", &["`config`"]),
        ("\"a\\nb\" = 1", "1:1", &["`a\\nb`"]),
        ("[[rout]]\nname = 'x'", "1:3", &["`rout`"]),
        ("[[route]]\nhost = 'x'", "2:1", &["`host` isn't a key of [[route]]"]),
        ("[names]\ndomain = 'a.b'\nname = 'x'", "3:1", &["name"]),
        ("[[certificate]]\ncert = 'c'\nkey = 'k'\nca = 'x'", "4:1", &["`ca`", "[[certificate]]"]),
        ("[[certificate]]\ncert = 'c'", "1:1", &["`cert` needs `key`"]),
        ("open = 1", "1:8", &["`open` takes true or false"]),
        ("self_signed = 'yes'", "1:15", &["`self_signed` takes true or false"]),
        ("  grace = true", "1:11", &["`grace` takes a time"]),
        ("listen = [true]", "1:11", &["`listen` takes a text, or a list"]),
        ("route = 5", "1:9", &["`route` takes a list of tables"]),
        ("route = [5]", "1:10", &["`route` takes a table"]),
        ("names = 5", "1:9", &["`names` takes a table"]),
        // Settings.
        ("grace = 'soon'", "1:9", &["grace \"soon\" isn't a time"]),
        ("head_timeout = 0", "1:16", &["head-timeout \"0\" isn't a time"]),
        ("max-connections = -1", "1:19", &["max-connections \"-1\""]),
        ("log = 'loud'", "1:7", &["log \"loud\""]),
        ("listen = ['1', 'localhost:1']", "1:10", &["listen \"localhost:1\" isn't an address"]),
        ("name = 'a_b!'", "1:8", &["name \"a_b!\""]),
        ("backend_alpn = 'h2'", "1:16", &["backend-alpn", "browsers"]),
        ("open = true\ntoken_file = 'x'", "1:8", &["--open", "--token-file"]),
        // Routes.
        ("[[route]]\nhosts = []", "2:9", &["`hosts` is empty", "never be used"]),
        ("[[route]]\nhosts = ['a', '']", "2:15", &["is empty", "`example.com`"]),
        ("[[route]]\nhosts = ['https://a.b/']", "2:10", &["is a URL", "the host alone"]),
        ("[[route]]\nhosts = ['a.b:443']", "2:10", &["has a port"]),
        ("[[route]]\nhosts = ['a.b/c']", "2:10", &["has a path"]),
        ("[[route]]\nhosts = ['a.*.b']", "2:10", &["`*` in the wrong place"]),
        ("[[route]]\nhosts = ['*.']", "2:10", &["names no domain"]),
        ("[[route]]\nhosts = ['käse.de']", "2:10", &["xn--"]),
        ("[[route]]\npath = 'a'", "2:8", &["path \"a\" must begin with a slash"]),
        ("[[route]]\npath = '/a?b'", "2:8", &["has a query"]),
        ("[[route]]\npath = '/a/../b'", "2:8", &["`..`"]),
        ("[[route]]\npath = '/a//b'", "2:8", &["empty segment"]),
        ("[[route]]\npath = '//'", "2:8", &["empty segment"]),
        ("[[route]]\npath = '/a/*'", "2:8", &["needs no `*`"]),
        ("[[route]]\npath = '/ä'", "2:8", &["%HH"]),
        ("[[route]]\nname = ''", "2:8", &["`name` is empty"]),
        ("[[route]]\nwhen_taken = 'fight'", "2:14", &["\"fight\"", "\"replace\""]),
        ("[[route]]\nno_backend = 500", "2:14", &["\"500\"", "404, 502, 503"]),
        ("[[route]]\nno_backend = '/away'", "2:14", &["\"/away\"", "URL"]),
        ("[[route]]\nno_backend = 'ftp://a/'", "2:14", &["URL"]),
        ("[[route]]\nrespond = 201", "2:11", &["\"201\"", "200, 202 or 204"]),
        ("[[route]]\nrespond = 202\nrespond_limit = 'big'", "3:17", &["\"big\"", "1MiB"]),
        ("[[route]]\nrespond_limit = 1", "2:17", &["`respond_limit` needs `respond`"]),
        ("[[route]]\nhold_requests = 1", "2:17", &["`hold_requests` needs `hold`"]),
        ("[[route]]\nhold = 1\nhold_requests = 0", "3:17", &["\"0\"", "from 1"]),
        ("[[route]]\nhold = 'long'", "2:8", &["\"long\"", "10s"]),
        ("[[route]]\nqueue = -1", "2:9", &["\"-1\"", "10s"]),
        ("[[route]]\nstrip = 1", "2:9", &["`strip` takes true or false"]),
        ("[[route]]\nname = 'a'\n[[route]]\nhosts = 'a'", "1:1", &["needs `hosts`"]),
        (
            "[[route]]\nhosts = ['a', 'b']\n[[route]]\nhosts = ['c', 'B.']",
            "4:15",
            &["route \"a\" of line 1", "the host b and the path /"],
        ),
        (
            "[[route]]\nhosts = 'a'\npath = '/x'\n[[route]]\nhosts = ['a']\npath = '/x/'",
            "5:10",
            &["\"a/x\" of line 1", "the path /x"],
        ),
        ("[[route]]\nhosts = ['a', 'A']", "2:15", &["the host a and the path /"]),
        (
            "[[route]]\nname = 'n'\nhosts = 'a'\n[[route]]\nhosts = 'b'\nname = 'n'",
            "6:8",
            &["line 1 is called \"n\", too"],
        ),
        // Credentials.
        ("[[route]]\nallow = []", "2:9", &["`allow` is empty", "nobody"]),
        ("[[route]]\nallow = 'x'", "2:9", &["`allow` takes a list of tables"]),
        ("[[route]]\nallow = ['x']", "2:10", &["one kind"]),
        ("[[route]]\nallow = [{}]", "2:10", &["one kind"]),
        ("[[route.allow]]\nkey = 'x'\nbearer_file = 'x'", "1:1", &["one kind"]),
        ("[[route.allow]]\nbarer_file = 'x'", "2:1", &["barer_file", "bearer_file"]),
        ("[[route.allow]]\nbearer_file = 'none'", "2:15", &["none can't be read (No such file"]),
        ("[[route.allow]]\nbearer_file = 'empty'", "2:15", &["empty is empty"]),
        ("[[route.allow]]\nbearer_file = 5", "2:15", &["wrong type", "expected"]),
        ("[[route.allow]]\nbearer_sha256 = 'abc'", "2:17", &["64 hexadecimal digits"]),
        ("[[route.allow]]\nkey = 'abc'", "2:7", &["key"]),
        ("[[route.allow]]\nbasic = { user = 'a', pass = 'b' }", "2:23", &["pass"]),
        // Names.
        ("[names]\nbearer_file = 'secret'", "1:1", &["`[names]` needs `domain`"]),
        ("[names]\ndomain = 'a.b'", "1:1", &["nobody could ever have a name"]),
        ("[names]\ndomain = '*.a.b'\nbearer_file = 'secret'", "2:10", &["without `*`"]),
        ("[names]\ndomain = 'http://a.b'", "2:10", &["is a URL"]),
        ("[names]\ndomain = 'a.b'\npath_hosts = ['*']", "3:15", &["without `*`"]),
        ("[names]\ndomain = 'a.b'\nallow = {}", "3:9", &["needs `credential`"]),
        (
            "[names]\ndomain = 'a.b'\n[[names.allow]]\nnames = []\ncredential = {bearer_file = 'secret'}",
            "4:9",
            &["`names` is empty"],
        ),
        (
            "[names]\ndomain = 'a.b'\n[[names.allow]]\nnames = ['c.d']\ncredential = {bearer_file = 'secret'}",
            "4:10",
            &["\"c.d\" is outside of a.b"],
        ),
        (
            "[names]\ndomain = 'a.b'\n[[names.allow]]\nnames = ['b_b']\ncredential = {bearer_file = 'secret'}",
            "4:10",
            &["\"b_b\" must be one DNS label"],
        ),
        (
            "[[route]]\nhosts = ['x', 'c.a.b']\n[names]\ndomain = 'a.b'",
            "2:15",
            &["c.a.b is among the dynamic names of a.b"],
        ),
        ("[[route]]\nhosts = '*.a.b'\n[names]\ndomain = 'a.b'", "2:9", &["*.a.b is among"]),
        (
            "[[route]]\nhosts = 'a.b'\npath = '/bob/x'\n[names]\ndomain = 'a.b'\n[[names.allow]]\nnames = ['bob']\ncredential = {bearer_file = 'secret'}",
            "7:10",
            &["\"bob\"", "\"a.b/bob/x\" of line 1"],
        ),
    ];
    let scratch = scratch();
    scratch.write("empty", "\n");
    for (text, place, parts) in table {
        let line = if text.contains("self_signed") || text.contains("[[certificate]]") {
            ""
        } else {
            "--self-signed"
        };
        let error = load(&scratch, text, line, &[]).expect_err(text);
        let sentence = error.to_string();
        let (file, rest) = sentence.split_once(".toml:").unwrap_or_default();
        assert!(file.ends_with("/2ptth"), "{text}: {sentence}");
        let here = format!("{}:", place.trim_end_matches(':'));
        assert!(rest.starts_with(&here), "{text}: {sentence}");
        for part in *parts {
            assert!(rest.contains(part), "{text}: {part:?} isn't in {sentence:?}");
        }
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}

/// The README's example, with files of the names that stand there.
#[test]
fn the_file_of_the_readme_is_one() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let scratch = Scratch::new();
    for name in ["blog.secret", "shop.secret", "jwt.old", "jwt.new", "friends.secret"] {
        private(&scratch.write(name, format!("a-secret-of-thirty-two-bytes-and-more-{name}")));
    }
    let config =
        load(&scratch, example.unwrap(), "", &[]).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["blog", "shop", "webhooks"]);
    assert_eq!(config.names.unwrap().allow.len(), 2);
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn a_file_that_is_no_text_is_told_with_its_line() {
    let error = load(&scratch(), b"grace = 1\nlog = '\xff'", "", &[]).unwrap_err().to_string();
    assert!(error.contains(".toml:2:8: this isn't UTF-8 text"), "{error}");
}

/// What stands where something else belongs may be a secret all the same. C7
#[test]
fn no_mistake_quotes_a_secret() {
    let token = Token::generate().reveal();
    let secret = "hunter2hunter2";
    for text in [
        format!("[[route.allow]]\nkey = '{token}x'"),
        format!("[[route.allow]]\nkey = ['{token}']"),
        format!("[[route.allow]]\nbearer_sha256 = '{secret}'"),
        format!("[[route.allow]]\nbasic = '{secret}'"),
        format!("[[route.allow]]\nbasic = ['{secret}']"),
        format!("[[route.allow]]\nbasic = {{ user = 'a', password_file = ['{secret}'] }}"),
        format!("[[route]]\nallow = '{secret}'"),
        format!("[[route]]\nallow = ['{secret}']"),
        format!("[[route]]\nallow = {{ key = '{secret}', x = 1 }}"),
        format!("[[route.allow]]\nbearer_file = {{ x = '{secret}' }}"),
        format!("[names]\ndomain = 'a.b'\nbasic = '{secret}'"),
        format!("[names]\ndomain = 'a.b'\nsecret = '{secret}'"),
        format!("[names]\ndomain = 'a.b'\n[[names.allow]]\ncredential = '{secret}'"),
        format!("[[route.allow]]\nbasic = {{ user = 'a', password = '{secret}"),
    ] {
        let error = load(&scratch(), &text, "--self-signed", &[]).expect_err(&text);
        for sentence in [error.to_string(), format!("{error:?}")] {
            assert!(!sentence.contains(&token) && !sentence.contains(secret), "{text}: {sentence}");
        }
    }
    let config = good(format!("[[route]]\n{ALLOW}"));
    assert!(!format!("{config:?}").contains("s3cret"));
}

/// C6
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
        (format!("token_file = 'keys'\n[[route]]\n{ALLOW}"), &["admit nobody"]),
        (format!("open = true\n[[route]]\n{ALLOW}"), &["admit nobody"]),
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
