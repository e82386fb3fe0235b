//! Flags, variables, and what is said about wrong ones.

#[cfg(feature = "acme")]
mod acme;
mod file;
mod gate;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;

use ptth_link::token::parse_keys;

use super::*;
use crate::tls::testing::Scratch;

/// Reads a command line and variables.
fn read(line: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let table: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let env = |name: &str| table.get(name).map(OsString::from);
    let args =
        ptth_link::cli::parse::<Args>("2ptth-server", line.split_whitespace().map(str::to_owned));
    Config::load(&args.unwrap_or_else(|exit| panic!("{}", exit.output)), &env)
}

fn ok(line: &str, variables: &[(&str, &str)]) -> Config {
    let config = read(&format!("--self-signed {line}"), variables);
    config.unwrap_or_else(|error| panic!("{line} {variables:?}: {error}"))
}

const KEY: &str = "2ptth_pub_11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = ok("", &[]);
    assert_eq!(config.listen, ["[::]:443".parse().unwrap()]);
    assert_eq!(config.certificates, [CertificateSource::SelfSigned { names: vec![], kept: None }]);
    let Admission::Keys { keys, file: None, made: Some(token) } = config.admission else {
        panic!("no token was made")
    };
    assert_eq!(keys, [token.public()]);
    assert_eq!(config.backend_alpn, alpn::BACKEND_LABELS);
    assert_eq!(config.limits.head.as_secs(), 120);
    assert_eq!(config.limits.stall.as_secs(), 300);
    assert_eq!(config.limits.grace.as_secs(), 30);
    assert_eq!((config.limits.connections, config.limits.connections_per_address), (None, None));
    assert_eq!(config.log, logging::Settings::default());
    assert!(config.warnings.is_empty());
}

/// Each setting by its flag, by its variable, and by both, where the flag wins.
#[test]
fn flag_beats_variable_beats_default() {
    let scratch = Scratch::new();
    let file = scratch.write("keys", KEY);
    let file = file.to_str().unwrap();
    type Seen = fn(&Config) -> String;
    let listen: Seen = |c| format!("{:?}", c.listen);
    let names: Seen = |c| format!("{:?}", c.certificates);
    let admission: Seen = |c| format!("{:?}", c.admission);
    let labels: Seen = |c| format!("{:?}", c.backend_alpn);
    let limits: Seen = |c| format!("{:?}", c.limits);
    let log: Seen = |c| format!("{:?} {:?}", c.log, c.access_log);
    let plain: Seen = |c| format!("{:?} {:?}", c.plain, c.listen);
    let redirect: Seen = |c| format!("{:?}", c.redirect);
    let trusted: Seen = |c| format!("{:?} {:?}", c.trusted, c.proxy_protocol);
    let gate: Seen = |c| format!("{:?}", c.gate);
    let health: Seen = |c| format!("{:?} {:?}", c.admin, c.health_path);
    let table: [(&str, &str, &str, &str, Seen); 24] = [
        ("--admin", "9090", "ADMIN", "unix:/run/x", health),
        ("--health-path", "/a", "HEALTH_PATH", "/b", health),
        ("--listen", "1.2.3.4:5", "LISTEN", "6.7.8.9:10", listen),
        ("--name", "a.example", "NAMES", "b.example", names),
        ("--token-file", file, "TOKEN_FILE", "/nonexistent", admission),
        ("--backend-alpn", "a,b", "BACKEND_ALPN", "c", labels),
        ("--head-timeout", "1", "HEAD_TIMEOUT", "2", limits),
        ("--stall-timeout", "1.5", "STALL_TIMEOUT", "2", limits),
        ("--grace", "0", "GRACE", "2", limits),
        ("--max-connections", "10", "MAX_CONNECTIONS", "20", limits),
        ("--max-connections-per-address", "10", "MAX_CONNECTIONS_PER_ADDRESS", "20", limits),
        ("--max-tunnels", "10", "MAX_TUNNELS", "20", limits),
        ("--gate-allow", "10.0.0.0/8", "GATE_ALLOW", "10.0.0.1,::1", gate),
        ("--gate-deny", "10.0.0.0/8", "GATE_DENY", "10.0.0.1", gate),
        ("--gate-rate", "20/1s", "GATE_RATE", "20/1m", gate),
        ("--gate-max-body", "10MiB", "GATE_MAX_BODY", "10", gate),
        ("--plain", "127.0.0.1:80", "PLAIN", "[::1]:80", plain),
        ("--redirect", "80", "REDIRECT", "81", redirect),
        ("--trusted-proxies", "10.0.0.0/8,::1", "TRUSTED_PROXIES", "10.0.0.1", trusted),
        ("--log", "debug", "LOG", "OFF", log),
        ("--log", "trace", "LOG", "warn", log),
        ("--log-format", "json", "LOG_FORMAT", "json", log),
        ("--syslog", "127.0.0.1:514", "SYSLOG", "unix:/dev/log", log),
        ("--access-log", "-", "ACCESS_LOG", "/var/log/2ptth", log),
    ];
    for (flag, value, variable, other, seen) in table {
        let default = seen(&ok("", &[]));
        let by_flag = seen(&ok(&format!("{flag} {value}"), &[]));
        assert_ne!(by_flag, default, "{flag}");
        if variable != "TOKEN_FILE" {
            let by_variable = seen(&ok("", &[(variable, other)]));
            assert_ne!(by_variable, default, "{variable}");
            assert!(by_variable != by_flag || value == other, "{variable}");
        }
        assert_eq!(seen(&ok("", &[(variable, value)])), by_flag, "{variable}");
        assert_eq!(seen(&ok(&format!("{flag}={value}"), &[(variable, other)])), by_flag, "{flag}");
    }
}

#[test]
fn the_wire_is_explained_as_settings_say() {
    let shown = |line: &str, variables: &[_]| {
        let explain::Settings { tunnels, visitors, bodies } = ok(line, variables).explain;
        (tunnels, visitors, bodies)
    };
    assert_eq!(shown("", &[]), (false, false, false));
    assert_eq!(shown("--explain", &[]), (true, false, false));
    assert_eq!(shown("", &[("EXPLAIN_VISITORS", "1")]), (false, true, false));
    assert_eq!(shown("--explain-bodies", &[]), (true, false, true));
    assert_eq!(shown("--explain-bodies --explain-visitors", &[]), (false, true, true));
    let keys = ok("", &[("SSLKEYLOGFILE", "/tmp/keys")]);
    assert!(keys.key_log && keys.warnings.iter().any(|it| it.starts_with("SSLKEYLOGFILE is set")));
    assert!(!ok("", &[("SSLKEYLOGFILE", "")]).key_log);
}

#[test]
fn certificates_come_by_flag_or_variable() {
    let files = CertificateSource::Files { cert: "c".into(), key: "k".into() };
    let made = CertificateSource::SelfSigned { names: vec![], kept: None };
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a CertificateSource);
    let table: [Row<'_>; 7] = [
        ("--cert c --key k", &[], &files),
        ("", &[("CERT", "c"), ("KEY", "k")], &files),
        ("--cert c", &[("CERT", "x"), ("KEY", "k")], &files),
        ("--cert c --key k", &[("SELF_SIGNED", "1")], &files),
        ("--self-signed", &[("CERT", "c"), ("KEY", "k")], &made),
        ("--self-signed", &[("CERT", ""), ("KEY", "")], &made),
        ("", &[("SELF_SIGNED", "yes")], &made),
    ];
    for (line, variables, expected) in table {
        let certificates = read(line, variables).unwrap().certificates;
        assert_eq!(certificates, std::slice::from_ref(expected), "{line} {variables:?}");
    }
}

#[test]
fn several_addresses_are_repeated_or_listed() {
    let both = ok("--listen 80 --listen 1.2.3.4:5", &[("LISTEN", "7")]).listen;
    assert_eq!(both, ["[::]:80".parse().unwrap(), "1.2.3.4:5".parse().unwrap()]);
    assert_eq!(ok("", &[("LISTEN", "80, 1.2.3.4:5")]).listen, both);
}

#[test]
fn the_proxy_protocol_is_off_optional_or_required() {
    let read = |line: &str, variable| {
        let line = format!("--trusted-proxies ::1 {line}");
        ok(&line, &[("PROXY_PROTOCOL", variable)]).proxy_protocol
    };
    assert_eq!(ok("", &[]).proxy_protocol, ProxyProtocol::Optional);
    assert_eq!(read("", "Required"), ProxyProtocol::Required);
    assert_eq!(read("", "off"), ProxyProtocol::Off);
    assert_eq!(read("--proxy-protocol optional", "off"), ProxyProtocol::Optional);
}

/// Behind a proxy that ends TLS.
#[test]
fn plain_http_is_for_private_addresses_and_needs_no_certificate() {
    let private =
        ["127.0.0.1:80", "127.8.8.8", "10.0.0.1:1", "172.31.0.1", "192.168.0.1", "169.254.1.1"];
    let private6 = ["[::1]:80", "fd00::1", "[fe80::1]:8080", "[::ffff:10.0.0.1]:80"];
    for address in private.into_iter().chain(private6) {
        let config = read(&format!("--plain {address}"), &[]).unwrap();
        assert_eq!((config.plain.len(), config.listen.len()), (1, 0), "{address}");
        assert!(config.certificates.is_empty());
        assert_eq!(config.warnings.len(), 1, "nobody is trusted: {:?}", config.warnings);
    }
    let public = ["80", "0.0.0.0:80", "[::]:80", "8.8.8.8:80", "172.32.0.1:80", "[2001:db8::1]:80"];
    for address in public.into_iter().chain(["[::ffff:8.8.8.8]:80", "100.64.0.1:80"]) {
        let error = read(&format!("--self-signed --plain {address}"), &[]).unwrap_err();
        assert!(error.to_string().contains("--plain-anywhere"), "{address}: {error}");
        assert!(read(&format!("--plain-anywhere --plain {address}"), &[]).is_ok(), "{address}");
        assert!(read(&format!("--plain {address}"), &[("PLAIN_ANYWHERE", "1")]).is_ok());
    }
    let both = ok("--plain 127.0.0.1:80 --listen 443 --trusted-proxies 127.0.0.1", &[]);
    assert_eq!((both.plain.len(), both.listen.len(), both.warnings.len()), (1, 1, 0));
    let unused = ok("--plain 127.0.0.1:80 --trusted-proxies 127.0.0.1", &[]).warnings;
    assert!(unused[0].contains("no visitor is shown the certificate"), "{unused:?}");
    let error = read("--plain 127.0.0.1:80 --listen 443", &[]).unwrap_err();
    assert!(error.to_string().starts_with("no certificate: "), "{error}");
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let trusted = ok("--trusted-proxies 10.0.0.0/8,192.0.2.7,fd00::/8", &[]).trusted;
    for (address, expected) in [
        ("10.255.0.1", true),
        ("::ffff:10.255.0.1", true),
        ("11.0.0.1", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("fd12::1", true),
        ("fe80::1", false),
        ("::10.0.0.1", false),
    ] {
        assert_eq!(trusted.contains(address.parse().unwrap()), expected, "{address}");
    }
    assert!(!Trusted::default().contains("127.0.0.1".parse().unwrap()));
    for (list, warned) in [
        ("10.0.0.0/8,fc00::/7", 0),
        ("10.0.0.1,0.0.0.0/0", 1),
        ("::/0", 1),
        ("128.0.0.0/1", 1),
        ("10.0.0.0/7", 1),
        ("fc00::/6", 1),
    ] {
        let config = ok(&format!("--trusted-proxies {list}"), &[]);
        let warnings = config.warnings.iter().filter(|it| it.contains("--trusted-proxies"));
        assert_eq!(warnings.count(), warned, "{list}: {:?}", config.warnings);
    }
}

#[test]
fn admission_is_by_keys_unless_told_otherwise() {
    let scratch = Scratch::new();
    let path = scratch.write("keys", format!("\u{feff}# mine\r\n{KEY}\r\n"));
    let key = parse_keys(KEY).unwrap()[0];
    let from_file = Admission::Keys { keys: vec![key], file: Some(path.clone()), made: None };
    let inline = Admission::Keys { keys: vec![key], file: None, made: None };
    let path = path.to_str().unwrap();
    assert_eq!(ok(&format!("--token-file {path}"), &[]).admission, from_file);
    assert_eq!(ok("", &[("TOKEN_FILE", path)]).admission, from_file);
    assert_eq!(ok("", &[("TOKEN", KEY)]).admission, inline);
    let other = Token::generate().reveal();
    let flag = format!("--token-file {path}");
    assert_eq!(ok(&flag, &[("TOKEN", &other), ("TOKEN_FILE", "x")]).admission, from_file);
    assert_eq!(ok("--open", &[]).admission, Admission::Open);
    assert_eq!(ok("", &[("OPEN", "1")]).admission, Admission::Open);
    assert_ne!(ok("", &[("OPEN", "0")]).admission, Admission::Open);
}

/// A part of the command line, variables, and what the sentence must contain.
type Wrong<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn each_mistake_gets_one_clear_sentence() {
    let table: &[Wrong<'_>] = &[
        ("", &[], &["--cert FILE", "--key FILE", "--self-signed"]),
        ("--cert c", &[], &["c needs its private key", "--key"]),
        ("--key k", &[], &["k needs its certificate", "--cert"]),
        ("--cert c --key k --self-signed", &[], &["--self-signed"]),
        ("", &[("CERT", "c"), ("KEY", "k"), ("SELF_SIGNED", "1")], &["--self-signed"]),
        ("--cert c --key k --name n", &[], &["--name"]),
        ("", &[("CERT", ""), ("KEY", "k")], &["CERT", "empty"]),
        ("--cert c", &[("KEY", "")], &["KEY", "empty"]),
        ("--self-signed", &[("TOKEN", "")], &["TOKEN", "empty"]),
        ("--self-signed", &[("TOKEN", "\n")], &["TOKEN", "empty"]),
        ("--self-signed --open", &[("TOKEN", "")], &["TOKEN", "empty"]),
        ("--self-signed", &[("TOKEN_FILE", "")], &["TOKEN_FILE", "empty"]),
        ("--self-signed", &[("TOKEN", "secret")], &["TOKEN", "begins with `2ptth_`"]),
        ("--self-signed", &[("TOKEN", KEY), ("TOKEN_FILE", "x")], &["TOKEN", "unset"]),
        ("--self-signed --open", &[("TOKEN", KEY)], &["--open", "TOKEN"]),
        ("--self-signed --open --token-file x", &[], &["--open", "--token-file"]),
        ("--self-signed --token-file x", &[("OPEN", "1")], &["--open", "--token-file"]),
        ("--self-signed --token-file /nonexistent", &[], &["/nonexistent", "No such file"]),
        ("--self-signed", &[("OPEN", "maybe")], &["OPEN", "1 or 0"]),
        ("--self-signed --name a_b!", &[], &["--name \"a_b!\""]),
        ("--self-signed --name käse.de", &[], &["--name", "xn--"]),
        ("--self-signed", &[("NAMES", "a.de, b.de.")], &["\"b.de.\""]),
        ("--self-signed --listen localhost:1", &[], &["--listen", "localhost:1"]),
        ("--self-signed --plain localhost:1", &[], &["--plain \"localhost:1\"", "127.0.0.1:8080"]),
        ("--self-signed", &[("PLAIN", "x")], &["PLAIN \"x\""]),
        ("--self-signed --redirect x", &[], &["--redirect \"x\""]),
        ("--plain 8080", &[], &["--plain [::]:8080", "--plain-anywhere"]),
        ("--self-signed --trusted-proxies 10.0.0.0/33", &[], &["--trusted-proxies", "10.0.0.0/33"]),
        ("--self-signed", &[("TRUSTED_PROXIES", "proxy.test")], &["TRUSTED_PROXIES", "proxy.test"]),
        ("--self-signed --proxy-protocol v2", &[], &["--proxy-protocol \"v2\"", "required"]),
        ("--self-signed --proxy-protocol required", &[], &["--trusted-proxies"]),
        ("--self-signed --head-timeout 0", &[], &["--head-timeout \"0\"", "seconds"]),
        ("--self-signed --stall-timeout -1", &[], &["--stall-timeout"]),
        ("--self-signed", &[("GRACE", "1e99")], &["GRACE", "year"]),
        ("--self-signed", &[("GRACE", "31536001")], &["GRACE", "year"]),
        ("--self-signed", &[("GRACE", "NaN")], &["GRACE"]),
        ("--self-signed --max-connections 0", &[], &["--max-connections", "from 1"]),
        (
            "--self-signed",
            &[("MAX_CONNECTIONS_PER_ADDRESS", "x")],
            &["MAX_CONNECTIONS_PER_ADDRESS"],
        ),
        ("--self-signed --backend-alpn h2", &[], &["--backend-alpn", "browsers"]),
        ("--self-signed", &[("LOG", "loud")], &["LOG \"loud\"", "trace"]),
    ];
    for (line, variables, parts) in table {
        let sentence = read(line, variables).unwrap_err().to_string();
        for part in *parts {
            assert!(
                sentence.contains(part),
                "{line} {variables:?}: {part:?} isn't in {sentence:?}"
            );
        }
        assert!(!sentence.contains("secret") && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn bad_token_files_are_named_with_the_line() {
    let scratch = Scratch::new();
    let table: [(&[u8], &str); 4] = [
        (b"", "no key"),
        (b"# none", "no key"),
        (b"# one\nsecret", "line 2"),
        (b"\xff\xfe", "UTF-8"),
    ];
    for (contents, part) in table {
        let path = scratch.write("tokens", contents);
        let line = format!("--self-signed --token-file {}", path.display());
        let sentence = read(&line, &[]).unwrap_err().to_string();
        assert!(sentence.contains(part) && sentence.contains("/tokens"), "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
    }
}

#[test]
fn a_token_where_a_path_belongs_is_not_quoted() {
    let token = Token::generate().reveal();
    for (line, variables) in [
        (format!("--self-signed --token-file {token}"), vec![]),
        ("--self-signed".to_owned(), vec![("TOKEN_FILE", &*token)]),
    ] {
        let error = read(&line, &variables).unwrap_err();
        assert!(error.to_string().contains("takes a path, not the token itself"), "{error}");
        assert!(error.to_string().contains("variable TOKEN"));
    }
}

#[cfg(unix)]
#[test]
fn a_private_half_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let token = Token::generate();
    let table = [
        (token.reveal(), 0o644, 1),
        (token.reveal(), 0o600, 0),
        (token.reveal(), 0o640, 0),
        (token.public().to_string(), 0o644, 0),
    ];
    for (contents, mode, warnings) in table {
        let path = scratch.write("tokens", contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let config = ok(&format!("--token-file {}", path.display()), &[]);
        assert_eq!(config.warnings.len(), warnings, "{mode:o}: {:?}", config.warnings);
    }
}

/// What `--help` promises is what is tested here: each variable in its parentheses.
#[test]
fn every_documented_variable_is_tested() {
    let help = ptth_link::cli::parse::<Args>("2ptth-server", ["--help".to_owned()]).unwrap_err();
    assert_eq!(help.status, Ok(()));
    let words = help.output.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    let documented: BTreeSet<&str> = words.filter(|word| word.len() > 2).collect();
    let variables = "CONFIG LISTEN CERT KEY SELF_SIGNED NAMES TOKEN_FILE TOKEN OPEN BACKEND_ALPN \
        TRUSTED_PROXIES PROXY_PROTOCOL \
        ACME ACME_EMAIL ACME_DIRECTORY ACME_CA \
        PLAIN PLAIN_ANYWHERE REDIRECT STATE_DIRECTORY TAKE_OVER HEAD_TIMEOUT STALL_TIMEOUT MAX_CONNECTIONS MAX_CONNECTIONS_PER_ADDRESS MAX_TUNNELS GRACE LOG \
        LOG_FORMAT SYSLOG ACCESS_LOG ADMIN ADMIN_ANYWHERE HEALTH_PATH GATE_BASIC_FILE GATE_ALLOW GATE_DENY GATE_RATE GATE_MAX_BODY EXPLAIN EXPLAIN_BODIES EXPLAIN_VISITORS";
    let other_words =
        ["ALPN", "HTTP", "PEM", "PROXY", "RFC", "UDP", "SIGHUP", "SIGTERM", "TLS", "TOML"];
    // What the flags take.
    let values = "FILE ADDR ADDRESS FOLDER FORMAT LEVEL LIST PATH RATE SIZE TIME URL WHEN NAME"
        .split_whitespace();
    let known = variables.split_whitespace().chain(other_words).chain(values).collect();
    assert_eq!(documented, known);
    for flag in ["--version", "--open", "--backend-alpn"] {
        assert!(help.output.contains(flag), "{}", help.output);
    }
}

#[test]
fn nothing_secret_shows_in_debug_output() {
    let token = Token::generate();
    let config = ok("", &[("TOKEN", &token.reveal())]);
    assert!(!format!("{config:?}").contains(&token.reveal()));
    let Admission::Keys { made: Some(made), .. } = Admission::make() else { panic!() };
    assert!(!format!("{made:?}").contains(&made.reveal()));
}
