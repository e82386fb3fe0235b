//! The log and the access log of the two programs: formats, rotation, and the journal's priorities.

use std::net::UdpSocket;
use std::process::Stdio;

use ptth_test::process::{Gateway, Process, binary};
use ptth_test::{Folder, GatewayBox, H1, connect_to, soon};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::answer;

/// Asks for a path, of which there is no backend.
async fn ask(gateway: &Gateway, path: &str) {
    let mut visitor = H1::over(connect_to(gateway.address, &[b"http/1.1"]).await.expect("TLS"));
    visitor.send(format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n")).await;
    assert_eq!(visitor.answer().await.status, 502);
}

/// Waits until a file holds the text.
pub(super) async fn until_holds(path: &std::path::Path, text: &str) -> String {
    soon("a line of the file", async {
        loop {
            let content = std::fs::read_to_string(path).unwrap_or_default();
            if content.contains(text) {
                return content;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_renamed_access_log_is_opened_anew_on_a_hangup_and_loses_no_line() {
    let folder = Folder::new();
    // Of an earlier run.
    let (file, old) = (folder.write("access", "kept\n"), folder.path("access.1"));
    let gateway = Gateway::start(&["--access-log", file.to_str().expect("UTF-8")]).await;
    ask(&gateway, "/first?secret=1").await;
    let line = until_holds(&file, "/first").await;
    assert!(line.contains(" tls=1.3 ") && line.contains(" code=E-NO-BACKEND\n"), "{line}");
    assert!(!line.contains("secret"), "{line}");
    std::fs::rename(&file, &old).expect("renamed");
    ask(&gateway, "/second").await;
    until_holds(&old, "/second").await;
    gateway.process.signal("HUP");
    gateway.process.logs("certificate and tokens are up to date").await;
    assert!(file.exists(), "it is made at once");
    ask(&gateway, "/third").await;
    let new = until_holds(&file, "/third").await;
    assert!(!new.contains("/second"), "{new}");
    let old = std::fs::read_to_string(&old).expect("the old file");
    assert!(old.starts_with("kept\n") && old.lines().count() == 3, "{old}");
}

/// With the access log on stdout, too.
#[tokio::test]
async fn each_line_of_a_log_in_json_is_an_object() {
    let flags = ["--log-format", "json", "--access-log", "-"];
    let gateway = Gateway::start(&flags).await;
    ask(&gateway, "/\"a").await;
    let line = gateway.process.says("\"status\":502").await;
    assert!(line.starts_with("{\"time\":\"2") && line.contains("\"path\":\"/\\\"a\""), "{line}");
    let line = gateway.process.logs("exchange: ").await;
    assert!(line.contains("\"level\":\"DEBUG\",\"target\":\"ptth_server::"), "{line}");
    gateway.process.signal("TERM");
    let line = gateway.process.logs("gateway: stopping").await;
    assert!(line.starts_with("{\"time\":\"2"), "{line}");
    assert!(line.contains("\"level\":\"INFO\",\"target\":\"ptth_server::gateway\",\"message\":"));
    let output = gateway.process.ended().await;
    for line in output.stderr.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
    }
}

#[tokio::test]
async fn lines_for_the_journal_begin_with_their_priority() {
    let mut command = Command::new("sh");
    let say = "export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2); exec \"$0\" \"$@\"";
    command.args(["-c", say]).arg(binary("2ptth-client")).args(["--insecure", "127.0.0.1:1"]);
    let client = Process::spawn(command);
    let line = client.logs("can't be reached").await;
    assert!(line.starts_with("<6>2") || line.starts_with("<4>2"), "{line}");
    let mut command = Command::new(binary("2ptth-client"));
    command.args(["--insecure", "127.0.0.1:1"]).env("JOURNAL_STREAM", "1:2");
    let line = Process::spawn(command).logs("can't be reached").await;
    assert!(line.starts_with('2'), "stderr isn't what the variable names: {line}");
}

#[tokio::test]
async fn a_syslog_server_gets_the_log_of_both_programs() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    server.set_nonblocking(true).expect("so");
    let address = server.local_addr().expect("an address").to_string();
    let server = tokio::net::UdpSocket::from_std(server).expect("a socket");
    let gateway = Gateway::start(&["--syslog", &address]).await;
    let client = gateway.client(&["--syslog", &address]);
    // Two senders: either may be the first.
    let mut awaited = vec![("2ptth-server", " up name="), ("2ptth-client", "tunnel")];
    soon("a message of each", async {
        let mut buffer = [0; 4096];
        while !awaited.is_empty() {
            let length = server.recv(&mut buffer).await.expect("a datagram");
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let priority = said.split_once(">1 ").map(|(priority, _)| priority.to_owned());
            let daemon = ["<27", "<28", "<30", "<31"].map(|it| Some(it.to_owned()));
            assert!(daemon.contains(&priority), "{said}");
            awaited.retain(|(program, words)| {
                !(said.contains(&format!(" {program} ")) && said.contains(words))
            });
        }
    })
    .await;
    client.kill().await;
}

#[tokio::test]
async fn the_admin_address_has_the_metrics() {
    let gateway = Gateway::start(&["--admin", "127.0.0.1:0"]).await;
    ask(&gateway, "/").await;
    let line = gateway.process.logs("admin: listening on ").await;
    let address = line.split("listening on ").nth(1).expect("an address").trim().to_owned();
    let mut visitor = H1::over(TcpStream::connect(&address).await.expect("it listens"));
    visitor.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = visitor.answer().await;
    assert_eq!(answer.field("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let page = answer.text();
    assert!(page.contains("\nptth_failures_total{code=\"E-NO-BACKEND\"} 1\n"), "{page}");
    assert!(page.contains("\nptth_certificate_expiry_timestamp_seconds "), "{page}");
}

/// Whoever closes our stdout doesn't want to read it, and goes on being served.
#[tokio::test]
async fn a_closed_stdout_or_stderr_ends_nobody() {
    let gateway = GatewayBox::start();
    let mut client = Command::new("sh");
    client
        .args(["-c", "exec \"$0\" --insecure --log debug \"$1\" >&- 2>&-"])
        .arg(binary("2ptth-client"))
        .arg(gateway.address.to_string())
        .env("TOKEN", gateway.token.reveal());
    let client = Process::spawn(client);
    gateway.until_tunnels(2).await;
    for _ in 0..20 {
        assert_eq!(H1::get(&gateway, "/").await.status, 200);
    }
    client.signal("TERM");
    assert_eq!(client.ended().await.code, Some(0));

    // A pipe whose reader is gone, which is an error at each line.
    let mut client = Command::new(binary("2ptth-client"));
    client
        .args(["--insecure", "--log", "debug", &gateway.address.to_string()])
        .env("TOKEN", gateway.token.reveal())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut client = client.spawn().unwrap();
    drop((client.stdout.take(), client.stderr.take()));
    gateway.until_tunnels(2).await;
    for _ in 0..20 {
        assert_eq!(H1::get(&gateway, "/").await.status, 200);
    }
    assert!(client.try_wait().unwrap().is_none(), "it runs");
    client.kill().await.unwrap();
}

/// The same for the gateway.
#[tokio::test]
async fn a_gateway_whose_reader_is_gone_serves_on() {
    let mut gateway = Gateway::start(&[]).await;
    let _client = gateway.client(&[]);
    gateway.process.logs(" up name=").await;
    gateway.process.deafen();
    for _ in 0..20 {
        assert_eq!(answer(gateway.address).await.0, 200);
    }
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code, Some(0));
}
