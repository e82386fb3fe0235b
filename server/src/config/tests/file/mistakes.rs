//! What is said about a wrong configuration file, and what isn't.

use super::*;

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
        ("listen = [true]", "1:11", &["`listen` takes a port, or an IP"]),
        ("route = 5", "1:9", &["`route` takes a table"]),
        ("route = [5]", "1:10", &["`route` takes a table"]),
        ("names = 5", "1:9", &["`names` takes a table"]),
        // Settings.
        ("grace = 'soon'", "1:9", &["grace \"soon\" must be a time"]),
        ("head_timeout = 0", "1:16", &["head_timeout \"0\" must be a time"]),
        ("max-connections = -1", "1:19", &["max_connections \"-1\""]),
        ("log = 'loud'", "1:7", &["log \"loud\""]),
        ("listen = ['1', 'localhost:1']", "1:16", &["listen \"localhost:1\" must be a port, or"]),
        ("name = 'a'\ncert = 'self_signed'\nkey = 'k'", "1:8", &["--name is for --self-signed"]),
        ("cert = 'self_signed'", "1:8", &["self_signed needs its private key"]),
        ("self_signed = true\ncert = 'c'", "1:15", &["contradict --self-signed"]),
        ("name = 'a_b!'", "1:8", &["name \"a_b!\""]),
        ("backend_alpn = 'h2'", "1:16", &["backend_alpn", "browsers"]),
        ("open = true\ntoken_file = 'x'", "1:8", &["--open", "--token-file"]),
        ("plain = ['127.0.0.1:1', '1.1.1.1:1']", "1:9", &["--plain 1.1.1.1:1", "any peer"]),
        ("plain = 'localhost'", "1:9", &["plain \"localhost\" must be a port, or an IP address"]),
        (
            "trusted_proxies = ['10.0.0.0/33']",
            "1:20",
            &["\"10.0.0.0/33\" must be an address or a network"],
        ),
        ("proxy_protocol = 'v3'", "1:18", &["proxy_protocol \"v3\""]),
        ("proxy_protocol = 'required'", "1:18", &["--trusted-proxies"]),
        ("groups:\n  a:\n    hostnames: [b]", "1:8", &["reverst's `groups:`"]),
        ("[[proxy]]\nname = 'a'", "1:3", &["`proxy`", "recipes for `[[proxy]]`"]),
        // Routes.
        ("[[route]]\nno_backend = { page = 'none.html' }", "2:23", &["none.html"]),
        ("[[route]]\nno_backend = { origin = 'x' }", "2:25", &["origin \"x\" must be a URL"]),
        ("[[route]]\nhosts = []", "2:9", &["`hosts` is empty", "never be used"]),
        ("[[route]]\nhosts = ['a', '']", "2:15", &["is empty", "`example.com`"]),
        ("[[route]]\nhosts = ['https://a.b/']", "2:10", &["is a URL", "the host alone"]),
        ("[[route]]\nhosts = ['a.b:443']", "2:10", &["has a port"]),
        ("[[route]]\nhosts = ['a.b/c']", "2:10", &["has a path"]),
        ("[[route]]\nhosts = ['a.*.b']", "2:10", &["`*` in the wrong place"]),
        ("[[route]]\nhosts = ['*.']", "2:10", &["names no domain"]),
        ("[[route]]\nhosts = ['käse.de']", "2:10", &["xn--"]),
        ("[[route]]\npath = 'a'", "2:8", &["path \"a\" must begin with a slash"]),
        ("route = [{ name = 'ä', path = 'x' }]", "1:31", &["slash"]),
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
        ("[[route]]\nrespond = 202\nrespond_limit = '5MiB'", "3:17", &["\"5MiB\"", "up to 4MiB"]),
        ("[[route]]\nrespond_limit = 1", "2:17", &["`respond_limit` needs `respond`"]),
        (
            "[[route]]\nrespond = 202\nno_backend = { origin = 'http://a.b' }",
            "1:1",
            &["an `origin` in `no_backend` needs a route without `respond`"],
        ),
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
        ("[[route]]\nallow = []", "2:9", &["`allow` is empty", "no backend"]),
        ("[[route]]\nallow = 'x'", "2:9", &["one kind"]),
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
        ("[names]\ndomain = 'a.b'", "1:1", &["no backend could ever have a name"]),
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
            "[[route]]\nhosts = 'a.b'\npath = '/bob/x'\n[names]\ndomain = 'a.b'\npath_hosts = ['a.b']\n[[names.allow]]\nnames = ['bob']\ncredential = {bearer_file = 'secret'}",
            "8:10",
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

#[test]
fn a_file_that_is_no_text_is_told_with_its_line() {
    let error = load(&scratch(), b"grace = 1\nlog = '\xff'", "", &[]).unwrap_err().to_string();
    assert!(error.contains(".toml:2:8: this isn't UTF-8 text"), "{error}");
}

/// What stands where something else belongs may be a secret all the same.
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
        format!("[[route.allow]]\nbearer_file = '{token}'"),
        format!("[[route.allow]]\nkey-file = '{token}'"),
        format!("[[route.allow]]\njwt = {{ hs256_files = '{secret}' }}"),
        format!("[[route.allow]]\njwt = {{ hs256_files = [], audience = ['{secret}'] }}"),
        format!("[[route.allow]]\nexternal = '{secret}'"),
        format!("[[route.allow]]\nexternal = {{ url = 'ftp://a/?{secret}' }}"),
        format!("[[route.allow]]\nexternal = {{ url = ['{secret}'] }}"),
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

/// So that the user mends all of them before the next try.
#[test]
fn all_mistakes_are_told_at_once_in_the_files_order() {
    let text = "grace = true\n[[route]]\nhosts = ['a.b:1']\npath = 'x'\nbad = 1\nworse = 2\n\
                [[route]]\nhosts = ['c']\nallow = [{ bearer_file = 'none' }, { x = 1 }]\n\
                [names]\ndomain = '*'\n";
    let said = load(&scratch(), text, "--self-signed", &[]).unwrap_err().to_string();
    let lines: Vec<_> = said.lines().collect();
    let places: Vec<_> = lines
        .iter()
        .map(|line| line.split("2ptth.toml:").nth(1).unwrap().split(": ").next().unwrap())
        .collect();
    assert_eq!(places, ["1:9", "3:10", "4:8", "5:1", "6:1", "9:26", "9:38", "11:10"], "{said}");
}
