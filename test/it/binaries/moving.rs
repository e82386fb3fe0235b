//! What people had before they came: gateways behind their own TLS, several of them from one client, and
//! configuration by the environment alone.

use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ptth_link::token::Token;
use ptth_test::origin::read_head;
use ptth_test::process::{Gateway, Process, address_of, run};
use ptth_test::{Certificate, Folder, H1, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer;
use crate::recipes::names::token;

/// The address that a gateway without TLS prints.
async fn plain(gateway: &Process) -> String {
    let line = gateway.says("plain HTTP on ").await;
    line.rsplit_once(' ').unwrap().1.trim_start_matches("http://").to_owned()
}

/// One behind a terminator of one's own, by upgrade and by extended CONNECT, and another one with TLS; each service has
/// its own credential.
#[tokio::test]
async fn each_service_may_have_a_gateway_of_its_own() {
    let folder = Folder::new();
    folder.write("secret", "s3cret");
    let routes = "plain = \"127.0.0.1:0\"\n[[route]]\nallow = [{ bearer_file = \"secret\" }]\n";
    let file = folder.write("gateway.toml", routes).display().to_string();
    let near = Process::start("2ptth-server", &["--config", &file], &[]);
    let near_address = plain(&near).await;
    let far = Gateway::start(&[]).await;
    folder.write("token", far.token.reveal());
    for via in ["auto", "upgrade", "connect"] {
        let text = format!(
            "[[service]]\ngateway = \"http://{near_address}\"\nvia = \"{via}\"\n\
             authorization_file = \"secret\"\norigin = \"127.0.0.1:9\"\n\
             [[service]]\ngateway = \"{}\"\ninsecure = true\ntoken_file = \"token\"\norigin = \"127.0.0.1:9\"\n",
            far.address
        );
        let file = folder.write("client.toml", text).display().to_string();
        let client = Process::start("2ptth-client", &["--config", &file], &[]);
        client.says(&format!("1 http://{near_address}/ -> http://127.0.0.1:9")).await;
        client.says(&format!("2 https://127.0.0.1:{}/ -> ", far.address.port())).await;
        // Both are there, and say that nobody listens behind them.
        let mut visitor = H1::over(TcpStream::connect(&near_address).await.unwrap());
        visitor.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        let text = soon("an answer", visitor.answer()).await.text();
        assert!(text.contains("is not listening"), "{via}: {text}");
        assert!(answer(far.address).await.1.contains("is not listening"), "{via}");
        client.signal("TERM");
        assert_eq!(client.ended().await.code, Some(0), "{via}");
    }
}

/// Before a reload or a restart: whether it would succeed, without a port being taken.
#[tokio::test]
async fn a_configuration_is_checked_without_a_start() {
    let folder = Folder::new();
    let gateway = Gateway::start(&[]).await;
    let listen = gateway.address.to_string();
    let file = folder.write("good.toml", "self_signed = true\n").display().to_string();
    let output =
        run("2ptth-server", &["--config", &file, "--listen", &listen, "--check"], &[]).await;
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    assert_eq!(output.stdout, "the configuration can be used\n");
    for (text, why) in [
        ("cert = 'none.pem'\nkey = 'none.key'\n", "none.pem"),
        ("self_signed = true\nbad = 1\n", "bad.toml:2:1"),
        ("self_signed = true\n[[route]]\nallow = [{ bearer_file = 'none' }]\n", "none"),
    ] {
        let file = folder.write("bad.toml", text).display().to_string();
        let output = run("2ptth-server", &["--config", &file, "--check"], &[]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(why), "{output:?}");
    }
}

/// A page of the operator's own while nobody is there; read again when it changes.
#[tokio::test]
async fn a_route_may_have_a_page_for_when_nobody_is_there() {
    let folder = Folder::new();
    folder.write("away.html", "<p>back soon</p>");
    let text = "self_signed = true\nlisten = '127.0.0.1:0'\n[[route]]\nno_backend = { page = 'away.html' }\n";
    let file = folder.write("gateway.toml", text).display().to_string();
    let gateway = Process::start("2ptth-server", &["--config", &file], &[]);
    let address = address_of(&gateway).await;
    let mut visitor = H1::to(address).await.unwrap();
    visitor.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let (status, fields) = visitor.head().await;
    assert_eq!(status, 503);
    assert_eq!(fields["content-type"], "text/html; charset=utf-8");
    assert!(fields.contains_key("retry-after"));
    let answer = visitor.rest(status, fields, "GET").await;
    assert_eq!(answer.text(), "<p>back soon</p>");
    folder.write("away.html", "<p>later</p>");
    gateway.signal("HUP");
    soon("the new page", async { while super::answer(address).await.1 != "<p>later</p>" {} }).await;
}

/// What nobody serves now goes to the operator's own server, as it came; and a backend that comes has it again.
#[tokio::test]
async fn a_request_may_fall_through_to_a_server_of_the_operators() {
    let own = OriginBox::raw(|mut socket, _| async move {
        let head = read_head(&mut socket).await;
        let line = head.lines().next().unwrap_or_default().to_owned();
        let mut body = vec![0; if line.starts_with("POST") { 5 } else { 0 }];
        socket.read_exact(&mut body).await.expect("the body");
        let text = format!("own: {line} {}", String::from_utf8_lossy(&body));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let _ = socket.write_all(answer.as_bytes()).await;
    })
    .await;
    let folder = Folder::new();
    let origin = format!("no_backend = {{ origin = 'http://{}' }}\n", own.address);
    let text = format!(
        "self_signed = true\nlisten = '127.0.0.1:0'\n[[route]]\nhosts = ['a.test']\npath = '/api'\n\
         strip = true\n{origin}[names]\ndomain = 't.test'\n{origin}bearer_file = 'secret'\n"
    );
    folder.write("secret", "s3cret");
    let file = folder.write("gateway.toml", text).display().to_string();
    let token = Token::generate();
    let variables = [("TOKEN", token.public().to_string())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let gateway = Process::start("2ptth-server", &["--config", &file], &variables);
    let address = address_of(&gateway).await;
    let ask = async |method: &str, host: &str, path: &str| {
        let mut visitor = H1::to(address).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: ");
        let body = if method == "POST" { "5\r\n\r\nhello" } else { "0\r\n\r\n" };
        visitor.send(&format!("{head}{body}")).await;
        visitor.answer().await.text()
    };
    for _ in 0..3 {
        assert_eq!(ask("GET", "a.test", "/api/x?y").await, "own: GET /api/x?y HTTP/1.1 ");
        assert_eq!(ask("POST", "a.test", "/api").await, "own: POST /api HTTP/1.1 hello");
        assert_eq!(ask("GET", "bob.t.test", "/z").await, "own: GET /z HTTP/1.1 ");
    }
    let arguments = ["--insecure", "--tunnels", "1", "--host", "a.test", &address.to_string()];
    let client = Process::start("2ptth-client", &arguments, &[("TOKEN", &token.reveal())]);
    gateway.logs(" up name=").await;
    assert!(ask("GET", "a.test", "/api/x").await.contains("Transmission is possible"));
    client.signal("TERM");
    assert_eq!(client.ended().await.code, Some(0));
    let again = async { while !ask("GET", "a.test", "/api/x").await.starts_with("own: ") {} };
    soon("the operator's server", again).await;
    let many = (0..50).map(|_| ask("GET", "a.test", "/api/x"));
    for text in futures_util::future::join_all(many).await {
        assert_eq!(text, "own: GET /api/x HTTP/1.1 ");
    }
}

/// `docker restart` doesn't lock anybody out.
#[tokio::test]
async fn what_is_made_at_start_is_kept_for_the_next_one() {
    let folder = Folder::new();
    let state = folder.path("").display().to_string();
    let start = |name: &str, by_flag: bool| {
        let mut flags = vec!["--self-signed", "--listen", "127.0.0.1:0", "--name", name];
        let variables = [("STATE_DIRECTORY", state.as_str())];
        if by_flag {
            flags.extend(["--state", &state]);
        }
        Process::start("2ptth-server", &flags, if by_flag { &[] } else { &variables })
    };
    let command = async |gateway: Process| {
        let line = gateway.says("2ptth-client ").await;
        gateway.signal("TERM");
        gateway.ended().await;
        // TOKEN=… 2ptth-client --pin … host:port http://…
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        (words[0].clone(), words[3].clone())
    };
    let first = command(start("a.test", true)).await;
    assert!(first.0.starts_with("TOKEN=2ptth_") && first.1.starts_with("sha256:"), "{first:?}");
    assert_eq!(command(start("a.test", false)).await, first);
    for name in ["token", "self-signed.key"] {
        let mode = std::fs::metadata(folder.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // For another name there is another certificate; the token stays.
    let other = command(start("b.test", true)).await;
    assert!(other.0 == first.0 && other.1 != first.1, "{other:?}");
    let none = run("2ptth-server", &["--self-signed", "--state", "/nowhere"], &[]).await;
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("/nowhere"), "{none:?}");
}

/// As container platforms want it: no file, no flag.
#[tokio::test]
async fn the_environment_alone_configures_a_gateway_of_names() {
    let certificate = Certificate::of(&["example.test"]);
    let key = BASE64_STANDARD.encode(&certificate.key);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let mut variables = vec![
        ("CERT_PEM", certificate.cert.as_str()),
        ("KEY_PEM", key.as_str()),
        ("PORT", port.as_str()),
        ("NAMES_DOMAIN", "tunnel.example.test"),
        ("NAMES_PATH_HOSTS", "example.test"),
        ("NAMES_JWT_AUDIENCE", "2ptth"),
        ("NAMES_JWT_SECRET_A", "the-first-secret-of-thirty-two-bytes"),
        ("NAMES_JWT_SECRET_B", "the-other-secret-of-thirty-two-bytes"),
    ];
    let gateway = Process::start::<&str>("2ptth-server", &[], &variables);
    let line = gateway.says("listening on ").await;
    assert!(line.ends_with(&format!(":{port}")), "{line}");
    for secret in ["the-first-secret-of-thirty-two-bytes", "the-other-secret-of-thirty-two-bytes"] {
        let shown = token(secret, "alice");
        let address = format!("127.0.0.1:{port}");
        let arguments = ["--insecure", "--name", "alice", &address];
        let client =
            Process::start("2ptth-client", &arguments, &[("AUTHORIZATION", shown.as_str())]);
        client.says("alice.tunnel.example.test").await;
        client.signal("TERM");
        assert_eq!(client.ended().await.code, Some(0));
    }
    gateway.kill().await;
    variables[1].1 = "nonsense, and no PEM";
    let wrong = run::<&str>("2ptth-server", &[], &variables).await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("KEY_PEM"), "{wrong:?}");
    assert!(!wrong.stderr.contains("nonsense"), "{wrong:?}");
}
