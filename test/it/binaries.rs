//! The two programs as their users meet them: flags, variables, exit codes, and what they print.

mod admin;
mod configuration;
mod explain;
mod logs;
mod manual;
mod many;
mod moving;
mod secrets;
mod services;
mod size;
mod unit;
mod words;

use std::net::SocketAddr;
use std::time::Duration;

use ptth_link::token::Token;
use ptth_test::process::{Gateway, Output, Process, address_of, binary, run};
use ptth_test::{Folder, H1, OriginBox, soon};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Ended with 1, and with one sentence on stderr that holds `why`.
fn expect_sentence(program: &str, output: &Output, why: &str) {
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{why}: {output:?}");
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one sentence: {output:?}");
    assert!(lines[0].starts_with(&format!("{program}: ")), "{output:?}");
    assert!(lines[0].contains(why), "{why:?} isn't in {:?}", lines[0]);
    assert!(!lines[0].contains(SECRET), "{output:?}");
}

/// The seed of a token whose check would fail, so that no message may quote it.
const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0";

/// What can be wrong with the gateway's settings: a flag, its variable, a bad value, the words about it.
const GATEWAY: &[(&str, &str, &str, &str)] = &[
    ("--config", "CONFIG", "/nowhere/2ptth.toml", "can't be read (No such file"),
    ("--listen", "LISTEN", "localhost:443", "must be a port, or an IP address"),
    ("--listen", "LISTEN", "127.0.0.1:x", "must be a port, or an IP address"),
    ("--name", "NAMES", "no name", "must be a DNS name or an IP address"),
    ("--token-file", "TOKEN_FILE", "/nowhere/tokens", "can't be read"),
    ("--backend-alpn", "BACKEND_ALPN", "h2", "can't mean a backend"),
    ("--backend-alpn", "BACKEND_ALPN", "%", "hexadecimal digits"),
    ("--trusted-proxies", "TRUSTED_PROXIES", "10.0.0.0/33", "must be an address or a network"),
    ("--proxy-protocol", "PROXY_PROTOCOL", "v2", "must be off, optional or required"),
    ("--proxy-protocol", "PROXY_PROTOCOL", "required", "give their addresses"),
    ("--plain", "PLAIN", "localhost:80", "must be a port, or an IP address"),
    ("--plain", "PLAIN", "0.0.0.0:0", "without TLS from any peer"),
    (
        "--admin",
        "ADMIN",
        "localhost:1",
        "must be a port, an IP address and a port, or a Unix socket",
    ),
    (
        "--admin",
        "ADMIN",
        "unix:admin",
        "must be a port, an IP address and a port, or a Unix socket",
    ),
    ("--admin", "ADMIN", "0.0.0.0:0", "would show the state of this program to any peer"),
    ("--admin", "ADMIN", "unix:/nowhere/admin", "can't listen on unix:/nowhere/admin"),
    ("--health-path", "HEALTH_PATH", "healthz", "must be a path like"),
    ("--health-path", "HEALTH_PATH", "/healthz?x", "must be a path like"),
    ("--redirect", "REDIRECT", "localhost", "must be a port, or an IP address"),
    ("--head-timeout", "HEAD_TIMEOUT", "0", "must be a time"),
    ("--head-timeout", "HEAD_TIMEOUT", "-1", "must be a time"),
    ("--stall-timeout", "STALL_TIMEOUT", "soon", "must be a time"),
    ("--grace", "GRACE", "NaN", "must be a time"),
    ("--max-connections", "MAX_CONNECTIONS", "0", "must be a number from 1"),
    (
        "--max-connections-per-address",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "1.5",
        "must be a number from 1",
    ),
    ("--log", "LOG", "loud", "must be a level: off"),
    ("--log-format", "LOG_FORMAT", "xml", "must be text or json"),
    ("--syslog", "SYSLOG", "unix:log", "must be a host and port for UDP"),
    ("--access-log", "ACCESS_LOG", "/nowhere/access", "the access log /nowhere/access"),
];

/// Every flag that takes a value, by flag and by variable.
#[tokio::test]
async fn each_wrong_setting_of_the_gateway_gives_one_sentence_and_code_1() {
    let base = ["--self-signed"];
    for &(flag, variable, value, why) in GATEWAY {
        let output = run("2ptth-server", &[&base[..], &[flag, value]].concat(), &[]).await;
        expect_sentence("2ptth-server", &output, why);
        // The variable is a list, in which a blank separates two names.
        if variable != "NAMES" {
            let output = run("2ptth-server", &base, &[(variable, value)]).await;
            expect_sentence("2ptth-server", &output, why);
        }
    }
    let output = run("2ptth-server", &base, &[("NAMES", "a.test,-")]).await;
    expect_sentence("2ptth-server", &output, "must be a DNS name or an IP address");
}

/// Compilers taught editors to jump to such a place.
#[tokio::test]
async fn a_wrong_configuration_file_is_told_with_line_and_column_and_code_1() {
    let folder = Folder::new();
    let text = format!("self_signed = true\n[[route]]\n[[route.allow]]\nkey = '2ptth_{SECRET}'\n");
    for (text, why) in [
        (text.replace("key", "kye"), "2ptth.toml:4:1: "),
        (text, "2ptth.toml:4:7: "),
        ("grace = '3 weeks'".to_owned(), "2ptth.toml:1:9: grace \"3 weeks\" must be a time"),
    ] {
        let file = folder.write("2ptth.toml", text).display().to_string();
        let output = run("2ptth-server", &["--config", &file], &[]).await;
        expect_sentence("2ptth-server", &output, why);
        let output = run("2ptth-server", &[] as &[&str], &[("CONFIG", &file)]).await;
        expect_sentence("2ptth-server", &output, why);
    }
}

/// What doesn't go together, what is missing, and switches that are neither on nor off.
#[tokio::test]
async fn contradictions_and_gaps_in_the_gateways_settings_give_one_sentence_and_code_1() {
    let folder = Folder::new();
    let file = folder.write("tokens", Token::generate().public().to_string()).display().to_string();
    let half = format!("2ptth_{SECRET}");
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[], "no certificate"),
        (&["--cert", "c.pem"], &[], "needs its private key"),
        (&["--key", "k.pem"], &[], "needs its certificate"),
        (&[], &[("CERT", "c.pem")], "needs its private key"),
        (&[], &[("KEY", "k.pem")], "needs its certificate"),
        (&["--cert", "/nowhere/c", "--key", "/nowhere/k"], &[], "can't be read"),
        (&[], &[("CERT", "/nowhere/c"), ("KEY", "/nowhere/k")], "can't be read"),
        (&["--self-signed", "--cert", "c.pem"], &[], "contradict"),
        (&["--cert", "c", "--key", "k", "--name", "a.test"], &[], "--name is for --self-signed"),
        (&["--self-signed", "--open", "--token-file", &file], &[], "contradicts"),
        (&["--self-signed", "--open"], &[("TOKEN", &half)], "contradicts"),
        (&["--self-signed"], &[("TOKEN", &half)], "TOKEN"),
        (&["--self-signed"], &[("TOKEN", "")], "TOKEN is set but empty"),
        (&["--self-signed"], &[("TOKEN_FILE", " ")], "TOKEN_FILE is set but empty"),
        (&["--self-signed"], &[("TOKEN", &half), ("TOKEN_FILE", &file)], "both set"),
        (&["--self-signed", "--token-file", &half], &[], "takes a path, not the token"),
        (&["--self-signed"], &[("TOKEN_FILE", &half)], "takes a path, not the token"),
        (&[], &[("SELF_SIGNED", "maybe")], "SELF_SIGNED \"maybe\" must be 1 or 0"),
        (&["--self-signed"], &[("OPEN", "2")], "OPEN \"2\" must be 1 or 0"),
        (&["--plain", "127.0.0.1:0", "--listen", "127.0.0.1:0"], &[], "no certificate"),
        (&["--plain", "127.0.0.1:0"], &[("PLAIN_ANYWHERE", "2")], "PLAIN_ANYWHERE \"2\" must be"),
        (&["--self-signed", "--nonsense"], &[], "Unrecognized argument: --nonsense"),
        (&["--self-signed", "surplus"], &[], "Unrecognized argument: surplus"),
        (&["--self-signed", "--log"], &[], "No value provided"),
        (&["--self-signed", "--listen", "192.0.2.1:443"], &[], "can't listen on 192.0.2.1:443"),
    ];
    for (arguments, variables, why) in cases {
        let output = run("2ptth-server", arguments, variables).await;
        expect_sentence("2ptth-server", &output, why);
    }
}

/// What can be wrong with the client's settings.
const CLIENT: &[(&str, &str, &str, &str)] = &[
    ("--token-file", "TOKEN_FILE", "/nowhere/token", "can't be read"),
    ("--host", "PUBLIC_HOST", "https://x.test/", "must be a host name or an IP address"),
    ("--config", "CONFIG", "/nowhere/client.toml", "/nowhere/client.toml"),
    ("--url-file", "URL_FILE", "/nowhere/urls", "/nowhere/urls"),
    ("--admin", "ADMIN", "8.8.8.8:0", "would show the state of this program to any peer"),
    ("--admin", "ADMIN", "unix:/nowhere/admin", "can't listen on unix:/nowhere/admin"),
    ("--name", "NAME", "a/b", "one label of a host"),
    ("--path", "PUBLIC_PATH", "blog", "must begin with a slash"),
    ("--forwarded", "FORWARDED", "some", "must be `all` or `none`"),
    ("--origin-name", "ORIGIN_NAME", "a:1", "must be a host name or an IP address"),
    ("--ca", "CA", "/nowhere/ca.pem", "/nowhere/ca.pem"),
    ("--pin", "PIN", "sha256:beef", "64 hexadecimal digits"),
    ("--tunnels", "TUNNELS", "0", "must be a number of tunnels, 1 to 64"),
    ("--tunnels", "TUNNELS", "65", "must be a number of tunnels, 1 to 64"),
    ("--host-header", "HOST_HEADER", "a b", "--host-header"),
    ("--alpn", "ALPN", "http/1.1", "can't mean a backend"),
    ("--log", "LOG", "loud", "must be a level: off"),
    ("--log-format", "LOG_FORMAT", "xml", "must be text or json"),
    ("--syslog", "SYSLOG", "here", "must be a host and port for UDP"),
    ("--via", "VIA", "backdoor", "must be a door: alpn"),
    ("--authorization-file", "AUTHORIZATION_FILE", "/nowhere/value", "can't be read"),
    ("--authorization-command", "AUTHORIZATION_COMMAND", " ", "is"),
];

#[tokio::test]
async fn each_wrong_setting_of_the_client_gives_one_sentence_and_code_1() {
    let gateway = "gateway.invalid";
    for &(flag, variable, value, why) in CLIENT {
        let output = run("2ptth-client", &[flag, value, gateway], &[]).await;
        expect_sentence("2ptth-client", &output, why);
        let output = run("2ptth-client", &[gateway], &[(variable, value)]).await;
        expect_sentence("2ptth-client", &output, why);
    }
    let folder = Folder::new();
    let file = folder.write("token", Token::generate().reveal()).display().to_string();
    let half = format!("2ptth_{SECRET}");
    let two = format!("{}\n{}\n", Token::generate().reveal(), Token::generate().reveal());
    let two = folder.write("two", two).display().to_string();
    let public = Token::generate().public().to_string();
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&[], &[], "no gateway"),
        (&["ftp://x.test"], &[], "the gateway \"ftp://x.test\""),
        (&["http://x.test", "--via", "alpn"], &[], "no ALPN label"),
        (&[], &[("GATEWAY", "a b")], "the gateway \"a b\""),
        (&[gateway, "ftp://x"], &[], "the origin \"ftp://x\""),
        (&[gateway], &[("ORIGIN", "99999")], "the origin \"99999\""),
        (&[gateway, "8080", "8081"], &[], "one address too many"),
        (&["--pin", "x", "--insecure", gateway], &[], "exclude each other"),
        (&[gateway], &[("PIN", "x"), ("CA", "y")], "exclude each other"),
        (&[gateway], &[("PIN", "")], "PIN is set but empty"),
        (&[gateway], &[("CA", "")], "CA is set but empty"),
        (&[gateway], &[("INSECURE", "maybe")], "INSECURE \"maybe\" must be 1 or 0"),
        (&[gateway], &[("ANY_HOST", "maybe")], "ANY_HOST \"maybe\" must be 1 or 0"),
        (&[gateway], &[("ALL_ADDRESSES", "maybe")], "ALL_ADDRESSES \"maybe\" must be 1 or 0"),
        (&[gateway], &[("AUTHORIZATION", "")], "AUTHORIZATION is set but empty"),
        (&[gateway], &[("HTTPS_PROXY", "socks4://x")], "HTTPS_PROXY: SOCKS4"),
        (&["--all-addresses", gateway], &[("ALL_PROXY", "x:1")], "the proxy http://x:1"),
        (&[gateway], &[("TOKEN", &half)], "the variable TOKEN"),
        (&[gateway], &[("TOKEN", "")], "TOKEN is set but empty"),
        (&[gateway], &[("TOKEN", &public)], "the variable TOKEN"),
        (&[gateway], &[("TOKEN", &half), ("TOKEN_FILE", &file)], "both set"),
        (&["--token-file", &half, gateway], &[], "takes a path, not the token"),
        (&["--token-file", &two, gateway], &[], "more than one line"),
        (&["--nonsense", gateway], &[], "Unrecognized argument: --nonsense"),
        (&[gateway, "--log"], &[], "No value provided"),
    ];
    for (arguments, variables, why) in cases {
        let output = run("2ptth-client", arguments, variables).await;
        expect_sentence("2ptth-client", &output, why);
    }
}

/// A port that somebody else has.
#[tokio::test]
async fn a_port_in_use_is_said_to_be_so_be_it_by_another_gateway() {
    let gateway = Gateway::start(&[]).await;
    let other = OriginBox::raw(|_, _| async {}).await;
    for taken in [gateway.address, other.address] {
        let listen = taken.to_string();
        let arguments = ["--self-signed", "--listen", &listen];
        let output = run("2ptth-server", &arguments, &[]).await;
        expect_sentence("2ptth-server", &output, &format!("can't listen on {listen}"));
        assert!(output.stderr.contains("another program has that port"), "{output:?}");
    }
}

/// Both families by two flags, where one of them would do.
#[tokio::test]
async fn overlapping_addresses_are_no_conflict() {
    let first = Process::start("2ptth-server", &["--self-signed", "--listen", "0"], &[]);
    let line = first.says("listening on ").await;
    let port = line.rsplit_once(':').unwrap().1.to_owned();
    first.kill().await;
    let (v4, v6) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    let arguments = ["--self-signed", "--listen", &v4, "--listen", &v6];
    let gateway = Process::start("2ptth-server", &arguments, &[]);
    gateway.says(&format!("listening on {v4}")).await;
    gateway.says(&format!("listening on {v6}")).await;
    for host in ["127.0.0.1", "[::1]"] {
        let address = format!("{host}:{port}").parse().unwrap();
        assert_eq!(answer(address).await.0, 502);
    }
}

/// The last line is the whole command for the client, and it works as it stands.
#[tokio::test]
async fn the_last_line_that_a_gateway_prints_is_a_client_that_works() {
    let origin = OriginBox::raw(|mut socket, _| async move {
        ptth_test::origin::read_head(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    })
    .await;
    for flags in [
        &["--self-signed"][..],
        &["--self-signed", "--name", "localhost"],
        &["--self-signed", "--open"],
    ] {
        let arguments = [flags, &["--listen", "127.0.0.1:0"]].concat();
        let gateway = Process::start("2ptth-server", &arguments, &[]);
        let address = address_of(&gateway).await;
        let command = gateway.says("2ptth-client ").await;
        assert_eq!(gateway.stdout_so_far().lines().last(), Some(command.as_str()));
        let folder = binary("2ptth-client");
        let folder = folder.parent().unwrap().display();
        assert!(command.ends_with(" http://localhost:8080"), "{command}");
        let command =
            command.replace("http://localhost:8080", &format!("http://{}", origin.address));
        let mut shell = Command::new("sh");
        // `exec env` makes the shell's process the client's, which then ends with the test.
        shell.args(["-c", &format!("exec env {command}")]);
        shell.env_clear().env("PATH", format!("{folder}:/usr/bin:/bin"));
        let client = Process::spawn(shell);
        gateway.logs(" up name=").await;
        assert_eq!(answer(address).await, (200, "hi".to_owned()), "{}", client.said());
        client.signal("TERM");
        assert_eq!(client.ended().await.code, Some(0));
    }
}

async fn answer(address: SocketAddr) -> (u16, String) {
    let mut visitor = H1::to(address).await.unwrap();
    visitor.send("GET /?q=query-secret HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    let answer = visitor.answer().await;
    (answer.status, answer.text())
}

/// At the highest level of the log, with a token by variable and by file.
#[tokio::test]
async fn no_token_shows_in_arguments_logs_or_pages() {
    let folder = Folder::new();
    let token = Token::generate();
    let seed = token.reveal();
    let seed = seed.trim_start_matches("2ptth_");
    let file = folder.write("token", token.reveal()).display().to_string();
    let listen = ["--self-signed", "--listen", "127.0.0.1:0", "--log", "trace"];
    for by_file in [false, true] {
        let reveal = token.reveal();
        let variables = [("TOKEN", reveal.as_str())];
        let flags = ["--token-file", &file];
        let (flags, variables): (&[&str], &[_]) =
            if by_file { (&flags, &[]) } else { (&[], &variables) };
        let gateway = Process::start("2ptth-server", &[&listen[..], flags].concat(), variables);
        let address = address_of(&gateway).await;
        let pages = answer(address).await.1;
        let target = address.to_string();
        let arguments = [&["--insecure", "--log", "trace", &target], flags].concat();
        let client = Process::start("2ptth-client", &arguments, variables);
        gateway.logs(" up name=").await;
        let pages = pages + &answer(address).await.1;
        for process in [&gateway, &client] {
            let argv = std::fs::read(format!("/proc/{}/cmdline", process.id())).unwrap();
            assert!(!String::from_utf8_lossy(&argv).contains(seed));
        }
        client.signal("TERM");
        gateway.signal("TERM");
        for output in [client.ended().await, gateway.ended().await] {
            let said = output.stdout + &output.stderr + &pages;
            assert!(!said.contains(seed), "{said}");
            assert!(!said.contains("query-secret"), "{said}");
        }
    }
}

/// `env` on top of the flags: a flag beats a variable, and an empty variable counts as unset.
#[tokio::test]
async fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
    let arguments = ["--self-signed", "--listen", "127.0.0.1:0", "--log", "info", "--grace", "1"];
    let variables = [("LISTEN", "nonsense"), ("LOG", "nonsense"), ("GRACE", "x"), ("OPEN", "")];
    let gateway = Process::start("2ptth-server", &arguments, &variables);
    let address = address_of(&gateway).await;
    let reached = soon("an answer", answer(address));
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap().0, 502);
    let variables = [
        ("LISTEN", "127.0.0.1:0"),
        ("SELF_SIGNED", "yes"),
        ("NAMES", "a.test, b.test"),
        ("LOG", ""),
    ];
    let gateway = Process::start::<&str>("2ptth-server", &[], &variables);
    let command = gateway.says("2ptth-client ").await;
    assert!(command.contains(" a.test:"), "{command}");
}
