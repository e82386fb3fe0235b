//! Addresses, flags, variables, and what is said about wrong ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;

use ptth_link::crypto;
use ptth_link::logging::Settings;

use super::*;

mod files;
mod inspect;

fn options(line: &str, variables: &[(&str, &str)]) -> Result<Options, ConfigError> {
    let table: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let env = |name: &str| table.get(name).map(OsString::from);
    let args =
        ptth_link::cli::parse::<Args>("2ptth-client", line.split_whitespace().map(str::to_owned));
    Options::from(args.unwrap_or_else(|exit| panic!("{}", exit.output)), &env)
}

/// Options of a single service.
#[derive(Debug)]
struct One {
    config: Config,
    origin: OriginAddress,
    asking: OriginOptions,
    log: Settings,
    url_file: Option<PathBuf>,
    warnings: Vec<String>,
}

fn read(line: &str, variables: &[(&str, &str)]) -> Result<One, ConfigError> {
    let Options { services, url_file, admin: _, inspect: _, explain: _, log, warnings } =
        options(line, variables)?;
    let [service] = <[Service; 1]>::try_from(services).expect("one service");
    let Service { label, config, origin, asking } = service;
    assert_eq!(label, None);
    Ok(One { config, origin, asking, log, url_file, warnings })
}

fn ok(line: &str, variables: &[(&str, &str)]) -> One {
    read(line, variables).unwrap_or_else(|error| panic!("{line} {variables:?}: {error}"))
}

const TOKEN: &str = "2ptth_nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let options = ok("Example.com", &[]);
    let config = options.config;
    assert_eq!(config.gateway, Gateway { host: "example.com".into(), port: 443 });
    assert_eq!(config.host, "example.com");
    assert_eq!((config.token, config.trust, config.any_host), (None, Trust::System, false));
    assert_eq!((config.tunnels, config.alpn), (2, alpn::PTTH.to_vec()));
    assert_eq!(options.origin, OriginAddress::Demo);
    assert_eq!((options.asking, options.log), (OriginOptions::default(), Settings::default()));
}

#[test]
fn tunnels_are_explained_and_their_keys_written_on_request() {
    let explained = |line: &str, variables: &[_]| {
        let settings = options(line, variables).unwrap().explain;
        (settings.tunnels, settings.visitors, settings.bodies)
    };
    assert_eq!(explained("g", &[]), (false, false, false));
    assert_eq!(explained("g --explain", &[]), (true, false, false));
    assert_eq!(explained("g", &[("EXPLAIN_BODIES", "1")]), (true, false, true));
    let keys = ok("g", &[("SSLKEYLOGFILE", "/tmp/keys")]);
    assert!(keys.config.key_log && keys.warnings[0].starts_with("SSLKEYLOGFILE is set"));
    assert!(!ok("g", &[]).config.key_log);
}

#[test]
fn gateways_are_written_in_many_ways() {
    let table = [
        ("example.com", "example.com:443"),
        ("Example.COM.:8443", "example.com.:8443"),
        ("192.0.2.1", "192.0.2.1:443"),
        ("192.0.2.1:8443", "192.0.2.1:8443"),
        ("::1", "[::1]:443"),
        ("[::1]", "[::1]:443"),
        ("[::1]:8443", "[::1]:8443"),
        ("https://gateway/", "gateway:443"),
        ("HTTPS://[2001:DB8::1]:8443/", "[2001:db8::1]:8443"),
    ];
    for (text, expected) in table {
        let gateway = Gateway::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(gateway.to_string(), expected, "{text}");
        assert_eq!(Gateway::parse(expected).unwrap(), gateway, "{text}");
    }
    assert_eq!(ok("example.com.", &[]).config.host, "example.com");
    assert_eq!(ok("[::1]:8443", &[]).config.host, "::1");
}

#[test]
fn the_public_url_has_the_gateways_port_unless_it_is_the_schemes() {
    let table = [
        ("g", "https://g"),
        ("g:8443", "https://g:8443"),
        ("[::1]:80", "https://[::1]:80"),
        ("http://g", "http://g"),
        ("http://g:8080", "http://g:8080"),
        ("http://g:443 --host a.b", "http://a.b:443"),
    ];
    for (line, expected) in table {
        assert_eq!(ok(line, &[]).config.public_url(), expected, "{line}");
    }
}

/// Each setting by its flag, by its variable, and by both, where the flag wins.
#[test]
fn flag_beats_variable_beats_default() {
    let pin = format!("sha256:{}", "a5".repeat(32));
    let pin = pin.as_str();
    let other_pin = format!("sha256:{}", "00".repeat(32));
    let scratch = Scratch::new(TOKEN);
    let file = scratch.0.to_str().unwrap();
    let other_token = Token::generate().reveal();
    type Seen = fn(&One) -> String;
    let token: Seen = |o| o.config.token.as_ref().map(Token::reveal).unwrap_or_default();
    let trust: Seen = |o| format!("{:?}", o.config.trust);
    let scratch_shown = Scratch::new("Basic c2Vj");
    let shown = scratch_shown.0.to_str().unwrap();
    let authorization: Seen = |o| match &o.config.authorization {
        Some(Authorization::Fixed(value)) => format!("{:?}", value.reveal().to_str()),
        Some(Authorization::File(path)) => path.display().to_string(),
        Some(Authorization::Command(command)) => command.clone(),
        None => String::new(),
    };
    let table: [(&str, &str, &str, &str, Seen); 20] = [
        ("--url-file", "a", "URL_FILE", "b", |o| format!("{:?}", o.url_file)),
        ("--via", "upgrade", "VIA", "connect", |o| format!("{:?}", o.config.via)),
        ("--authorization-file", shown, "AUTHORIZATION_FILE", shown, authorization),
        ("--authorization-command", "one", "AUTHORIZATION_COMMAND", "two", authorization),
        ("--authorization-command", "one", "AUTHORIZATION", "two", authorization),
        ("--token-file", file, "TOKEN_FILE", "/nonexistent", token),
        ("--token-file", file, "TOKEN", &other_token, token),
        ("--host", "a.example", "PUBLIC_HOST", "b.example", |o| o.config.host.clone()),
        ("--path", "/a", "PUBLIC_PATH", "/b/", |o| format!("{:?}", o.config.path)),
        ("--name", "Blog", "NAME", "shop", |o| format!("{:?}", o.config.name)),
        ("--ca", "a.pem", "CA", "b.pem", trust),
        ("--pin", pin, "PIN", &other_pin, trust),
        ("--tunnels", "3", "TUNNELS", "4", |o| o.config.tunnels.to_string()),
        ("--alpn", "%d5", "ALPN", "ph2", |o| format!("{:?}", o.config.alpn)),
        ("--host-header", "origin", "HOST_HEADER", "a.b", |o| format!("{:?}", o.asking)),
        ("--forwarded", "none", "FORWARDED", "none", |o| format!("{:?}", o.asking)),
        ("--origin-ca", "a.pem", "ORIGIN_CA", "b.pem", |o| format!("{:?}", o.asking)),
        ("--origin-name", "a.b", "ORIGIN_NAME", "c.d", |o| format!("{:?}", o.asking)),
        ("--log", "debug", "LOG", "off", |o| o.log.level.to_string()),
        ("--syslog", "a:1", "SYSLOG", "unix:/dev/log", |o| format!("{:?}", o.log)),
    ];
    for (flag, value, variable, other, seen) in table {
        let default = seen(&ok("g", &[]));
        let by_flag = seen(&ok(&format!("g {flag} {value}"), &[]));
        assert_ne!(by_flag, default, "{flag}");
        if value != other && variable != "TOKEN_FILE" {
            let by_variable = seen(&ok("g", &[(variable, other)]));
            assert!(by_variable != default && by_variable != by_flag, "{variable}");
        }
        let variable_value = if variable == "TOKEN" { TOKEN } else { value };
        if variable != "AUTHORIZATION" {
            assert_eq!(seen(&ok("g", &[(variable, variable_value)])), by_flag, "{variable}");
        }
        assert_eq!(
            seen(&ok(&format!("{flag}={value} g"), &[(variable, other)])),
            by_flag,
            "{flag}"
        );
    }
}

#[test]
fn switches_and_addresses_have_variables_too() {
    assert_eq!(ok("g --insecure", &[]).config.trust, Trust::Insecure);
    assert_eq!(ok("g", &[("INSECURE", "1")]).config.trust, Trust::Insecure);
    assert_eq!(ok("g --ca x", &[("INSECURE", "1")]).config.trust, Trust::Ca("x".into()));
    assert!(ok("g --any-host", &[]).config.any_host);
    assert!(ok("g", &[("ANY_HOST", "true")]).config.any_host);
    assert!(ok("g --standby", &[]).config.standby && !ok("g", &[]).config.standby);
    assert!(ok("g", &[("STANDBY", "yes")]).config.standby);
    assert!(ok("g --all-addresses", &[]).config.all_addresses);
    assert!(ok("g", &[("ALL_ADDRESSES", "yes")]).config.all_addresses);
    assert_eq!(ok("g", &[]).config.asked_host, None);
    assert_eq!(ok("g", &[("PUBLIC_HOST", "A.b")]).config.asked_host.as_deref(), Some("a.b"));
    let variables = [("GATEWAY", "a.example:1"), ("ORIGIN", "2")];
    let options = ok("", &variables);
    assert_eq!(options.config.gateway.to_string(), "a.example:1");
    assert_eq!(options.origin.to_string(), "http://localhost:2");
    let options = ok("b.example 3", &variables);
    assert_eq!(options.config.gateway.to_string(), "b.example:443");
    assert_eq!(options.origin.to_string(), "http://localhost:3");
    assert_eq!(ok("g --host [::1]", &[]).config.host, "::1");
    assert_eq!(ok("g --host WWW.example.com.", &[]).config.host, "www.example.com");
}

/// A command line, variables, and what the sentence must contain.
type Wrong<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_mistake_gets_one_clear_sentence() {
    let public = "2ptth_pub_11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let table: &[Wrong<'_>] = &[
        ("", &[], &["no gateway", "GATEWAY"]),
        ("g 80 81", &[], &["\"81\"", "too many"]),
        ("g 80 2ptth_secret", &[], &["too many"]),
        ("g", &[("TOKEN", "")], &["TOKEN", "empty"]),
        ("g", &[("TOKEN_FILE", "")], &["TOKEN_FILE", "empty"]),
        ("g", &[("TOKEN", "secret")], &["TOKEN", "begins with `2ptth_`"]),
        ("g", &[("TOKEN", public)], &["TOKEN", "public half"]),
        ("g", &[("TOKEN", TOKEN), ("TOKEN_FILE", "x")], &["TOKEN_FILE", "unset"]),
        ("g --token-file /nonexistent", &[], &["/nonexistent", "No such file"]),
        ("g --token-file 2ptth_secret", &[], &["--token-file", "variable TOKEN"]),
        ("g", &[("TOKEN_FILE", "2ptth_secret")], &["TOKEN_FILE", "variable TOKEN"]),
        ("g 2ptth_secret", &[], &["token", "TOKEN"]),
        ("", &[("GATEWAY", "2ptth_secret")], &["token", "TOKEN"]),
        ("2ptth_secret", &[], &["token", "TOKEN"]),
        ("g --pin x", &[], &["--pin", "64 hexadecimal"]),
        ("g", &[("PIN", "")], &["PIN", "empty"]),
        ("g --pin x --insecure", &[], &["--pin", "--insecure"]),
        ("g --ca x --pin x", &[], &["--ca", "--pin"]),
        ("g", &[("CA", "x"), ("INSECURE", "1")], &["--ca", "--insecure"]),
        ("g", &[("INSECURE", "maybe")], &["INSECURE", "1 or 0"]),
        ("g --tunnels 0", &[], &["--tunnels \"0\"", "1 to 64"]),
        ("g", &[("TUNNELS", "65")], &["TUNNELS", "1 to 64"]),
        ("g --alpn h2", &[], &["--alpn", "browsers"]),
        ("g --log loud", &[], &["--log", "trace"]),
        ("g --host a:1", &[], &["--host", "port"]),
        ("g --host https://a", &[], &["--host", "scheme"]),
        ("g", &[("PUBLIC_HOST", "*.a")], &["PUBLIC_HOST"]),
        ("g --name a/b", &[], &["--name \"a/b\"", "one label"]),
        ("g --path a", &[], &["--path \"a\"", "must begin with a slash"]),
        ("g", &[("PUBLIC_PATH", "/a?b")], &["PUBLIC_PATH"]),
        ("g", &[("NAME", "..")], &["NAME", "one label"]),
        ("g --host-header a/b", &[], &["--host-header", "keep"]),
        ("g --forwarded some", &[], &["--forwarded \"some\"", "`none`"]),
        ("g --origin-name a:1", &[], &["--origin-name \"a:1\"", "host name"]),
        ("g --via door", &[], &["--via \"door\"", "upgrade"]),
        ("g", &[("VIA", "Auto")], &["VIA", "alpn"]),
        ("g --authorization-file /nonexistent", &[], &["/nonexistent", "can't be read"]),
        ("g", &[("AUTHORIZATION_FILE", "/dev/null")], &["/dev/null", "empty"]),
        ("g", &[("AUTHORIZATION", " ")], &["AUTHORIZATION", "empty"]),
        ("g", &[("AUTHORIZATION", "Bearer secret\nsecret")], &["AUTHORIZATION", "one line"]),
        ("g", &[("AUTHORIZATION_COMMAND", " ")], &["AUTHORIZATION_COMMAND", "empty"]),
        ("g --authorization-file x --authorization-command x", &[], &["keep one"]),
        ("g", &[("AUTHORIZATION", "secret"), ("AUTHORIZATION_FILE", "x")], &["keep one"]),
        ("g", &[("HTTPS_PROXY", "ftp://u:secret@p")], &["HTTPS_PROXY", "http://proxy:3128"]),
        ("g", &[("all_proxy", "socks4://u:secret@p")], &["all_proxy", "SOCKS5"]),
        (
            "g --all-addresses",
            &[("ALL_PROXY", "http://u:secret@p:1")],
            &["--all-addresses", "http://p:1", "NO_PROXY"],
        ),
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
fn token_files_hold_one_token() {
    let read = |contents: &str| {
        let scratch = Scratch::new(contents);
        read(&format!("g --token-file {}", scratch.0.display()), &[])
    };
    for contents in
        [&format!("\u{feff}{TOKEN}\r\n"), &format!("\u{feff}# mine\n\n {TOKEN} # laptop\n")]
    {
        assert_eq!(read(contents).unwrap().config.token.unwrap().reveal(), TOKEN);
    }
    for (contents, part) in
        [("", "empty"), ("secret", "begins with"), ("secret\nsecret", "one line")]
    {
        let sentence = read(contents).unwrap_err().to_string();
        assert!(sentence.contains(part) && sentence.contains("2ptth-test-"), "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
    }
}

#[cfg(unix)]
#[test]
fn a_token_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new(TOKEN);
    for flag in ["--token-file", "--authorization-file"] {
        for (mode, warnings) in [(0o644, 1), (0o600, 0)] {
            fs::set_permissions(&scratch.0, fs::Permissions::from_mode(mode)).unwrap();
            let options = ok(&format!("g {flag} {}", scratch.0.display()), &[]);
            assert_eq!(options.warnings.len(), warnings, "{:?}", options.warnings);
        }
    }
    let insecure = ok("g --insecure", &[("AUTHORIZATION", "x")]).warnings;
    assert!(insecure.len() == 1 && insecure[0].contains("--insecure"), "{insecure:?}");
}

#[test]
fn proxies_are_named_in_either_case() {
    let proxy = |variables: &[(&str, &str)]| {
        let config = ok("example.com", variables).config;
        config.proxies.to(&config.gateway).map(|proxy| proxy.to_string())
    };
    assert_eq!(proxy(&[]), None);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(proxy(&[(name, "p:1")]).as_deref(), Some("http://p:1"), "{name}");
        for no in ["NO_PROXY", "no_proxy"] {
            assert_eq!(proxy(&[(name, "p:1"), (no, "x,example.com")]), None, "{name} {no}");
        }
    }
    let both = [("HTTPS_PROXY", "p:1"), ("https_proxy", "q:1"), ("ALL_PROXY", "r:1")];
    assert_eq!(proxy(&both).as_deref(), Some("http://p:1"));
}

/// What `--help` promises is what is tested here: each variable in its parentheses.
#[test]
fn every_documented_variable_is_tested() {
    let help = ptth_link::cli::parse::<Args>("2ptth-client", ["--help".to_owned()]).unwrap_err();
    assert_eq!(help.status, Ok(()));
    let words = help.output.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    let documented: BTreeSet<&str> = words.filter(|word| word.len() > 1).collect();
    let variables = "GATEWAY ORIGIN CONFIG URL_FILE TOKEN_FILE TOKEN PUBLIC_HOST NAME CA PIN INSECURE ANY_HOST \
        TUNNELS STANDBY PUBLIC_PATH HOST_HEADER FORWARDED ORIGIN_CA ORIGIN_NAME ALPN LOG LOG_FORMAT SYSLOG ADMIN ADMIN_ANYWHERE INSPECT INSPECT_AT CAPTURE INSPECT_KEEP INSPECT_BODY INSPECT_BYTES REDACT EXPLAIN EXPLAIN_BODIES VIA AUTHORIZATION_FILE AUTHORIZATION_COMMAND AUTHORIZATION ALL_ADDRESSES \
        HTTPS_PROXY ALL_PROXY NO_PROXY";
    let other_words = ["HEX", "HH", "PEM", "PORT", "HTTP", "RFC", "TOML", "UDP"];
    // What the flags take.
    let values =
        "ADDR DIR FILE COMMAND DOOR FORMAT PATH HOST HOW LABEL LEVEL NAMES SIZE".split_whitespace();
    let known = variables.split_whitespace().chain(other_words).chain(values).collect();
    assert_eq!(documented, known);
    assert!(help.output.starts_with("Usage: 2ptth-client [options] GATEWAY[:PORT] [ORIGIN]\n"));
}

#[test]
fn nothing_secret_shows_in_debug_output() {
    let variables =
        [("TOKEN", TOKEN), ("AUTHORIZATION", TOKEN), ("ALL_PROXY", "http://u:c2VjcmV0@p:1")];
    let shown = format!("{:?}", ok("g", &variables));
    assert!(!shown.contains(TOKEN) && !shown.contains("c2VjcmV0"), "{shown}");
}

/// A file that goes when the test does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(contents: &str) -> Self {
        let name = format!("2ptth-test-{}", crypto::hex(&crypto::random::<8>()));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}
