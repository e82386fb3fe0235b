//! Secrets of the operator, of backends and of visitors, and all that the two programs write.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use ptth_link::token::Token;
use ptth_test::process::{Process, address_of, run};
use ptth_test::{Folder, H1, OriginBox, soon};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::admin::{admin_of, ask, get};
use super::logs::until_holds;
use crate::recipes::names;

/// What stands in files and variables of the operator: a bearer token, a JWT's key, a password, the authenticator's URL.
const KEPT: [&str; 4] = [
    "kept-bearer-3f81",
    "kept-jwt-key-of-thirty-two-bytes-9c27",
    "kept-password-5d02",
    "kept-url-b6e4",
];
/// What visitors send: wrong passwords and tokens, and what is an origin's to judge, with the body of a webhook.
const SENT: [&str; 6] = [
    "sent-password-77a1",
    "sent-bearer-0ce8",
    "sent-cookie-41fd",
    "sent-query-e93b",
    "sent-field-28c6",
    "sent-body-d570",
];

/// What the programs wrote, each with its name and a word that it must have.
type Written = Vec<(&'static str, &'static str, String)>;

/// A syslog server, which keeps all that it gets.
async fn syslog(running: &mut JoinSet<()>) -> (String, Arc<Mutex<String>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, got) =
        (socket.local_addr().unwrap().to_string(), Arc::<Mutex<String>>::default());
    let all = got.clone();
    running.spawn(async move {
        let mut buffer = [0; 65_536];
        while let Ok(length) = socket.recv(&mut buffer).await {
            all.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    (address, got)
}

/// Its gateway has a credential, a gate and a log of each kind.
fn configuration(
    folder: &Folder,
    authenticator: &OriginBox,
    token: &Token,
    syslog: &str,
) -> String {
    for (name, secret) in [("bearer", KEPT[0]), ("jwt", KEPT[1]), ("password", KEPT[2])] {
        folder.write(name, secret);
    }
    folder.write("keys", token.public().to_string());
    let text = format!(
        "listen = '127.0.0.1:0'\nself_signed = true\nadmin = '127.0.0.1:0'\nlog = 'trace'\nsyslog = '{syslog}'\n\
         access_log = '{}'\n\
         [[route]]\nname = 'a'\nhosts = ['a.test']\nallow = [{{ bearer_file = 'bearer' }}]\n\
         [route.gate]\nbasic = {{ user = 'team', password_file = 'password' }}\n\
         forward = {{ url = 'http://{}/auth?key={}' }}\n\
         [[route]]\nname = 'k'\nhosts = ['k.test']\nrespond = 202\nallow = [{{ key_file = 'keys' }}]\n\
         [names]\ndomain = 'n.test'\njwt = {{ hs256_files = ['jwt'], audience = '2ptth', name_claim = 'tid' }}\n",
        folder.path("access").display(),
        authenticator.address,
        KEPT[3],
    );
    folder.write("2ptth.toml", text).display().to_string()
}

fn basic(password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("team:{password}")))
}

#[tokio::test]
async fn no_secret_is_in_a_log_a_status_or_a_metric() {
    for format in ["text", "json"] {
        let (token, jwt) = (Token::generate(), names::token(KEPT[1], "alice"));
        let written = written(format, &token, &jwt).await;
        let seed = token.reveal().trim_start_matches("2ptth_").to_owned();
        let encoded =
            [KEPT[2], SENT[0]].map(|password| BASE64_STANDARD.encode(format!("team:{password}")));
        let secrets = KEPT.iter().chain(&SENT).copied().chain([seed.as_str(), &jwt]);
        let secrets: Vec<_> = secrets.chain(encoded.each_ref().map(String::as_str)).collect();
        for (name, word, text) in written {
            assert!(text.contains(word), "{format} {name} lacks {word}: {text}");
            for secret in &secrets {
                let line = text.lines().find(|line| line.contains(secret));
                assert!(line.is_none(), "{format} {name} has {secret}: {line:?}");
            }
        }
    }
}

/// Has everything happen that is told of: admissions and refusals, exchanges, failures, and a delivery.
async fn written(format: &str, token: &Token, jwt: &str) -> Written {
    let (folder, mut running) = (Folder::new(), JoinSet::new());
    let (collector, collected) = syslog(&mut running).await;
    let authenticator =
        OriginBox::http(|_| async { Response::new(Full::<Bytes>::default()) }).await;
    let file = configuration(&folder, &authenticator, token, &collector);
    let gateway = Process::start("2ptth-server", &["--config", &file, "--log-format", format], &[]);
    let (address, admin) = (address_of(&gateway).await, admin_of(&gateway).await);
    let to = address.to_string();
    let common =
        ["--insecure", "--tunnels", "1", "--admin", "0", "--log", "trace", "--log-format", format];
    let client = |wish: [&str; 2], variable: &str, secret: &str| {
        let arguments = [&common[..], &wish[..], &[to.as_str(), "127.0.0.1:9"]].concat();
        Process::start("2ptth-client", &arguments, &[(variable, secret)])
    };
    let visit = async |request: String| {
        let mut visitor = H1::to(address).await.unwrap();
        visitor.send(request).await;
        soon("an answer", visitor.answer()).await
    };
    let fields = format!("Cookie: a={}\r\nX-Key: {}\r\n", SENT[2], SENT[4]);
    let request = |method: &str, path: &str, host: &str, more: &str| {
        let body = if method == "POST" { SENT[5] } else { "" };
        let (query, length) = (SENT[3], body.len());
        format!(
            "{method} {path}?token={query} HTTP/1.1\r\nHost: {host}\r\n{fields}{more}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    // A webhook that waits for its backend.
    assert_eq!(visit(request("POST", "/hook", "k.test", "")).await.status, 202);
    let clients = [
        client(["--host", "a.test"], "AUTHORIZATION", &format!("Bearer {}", KEPT[0])),
        client(["--name", "alice"], "AUTHORIZATION", jwt),
        client(["--host", "k.test"], "TOKEN", &token.reveal()),
    ];
    let mut written = Written::new();
    for client in &clients {
        client.logs(" up; inverted").await;
        written.push((
            "the client's status",
            "\"state\"",
            get(&admin_of(client).await, "/status").await.text(),
        ));
    }
    let guess = format!("Bearer {}", SENT[1]);
    let arguments = ["--insecure", "--host", "a.test", &to];
    let refused = run("2ptth-client", &arguments, &[("AUTHORIZATION", &guess)]).await;
    written.push(("a refused client", "refuses this client", refused.stderr));
    let right = format!("Authorization: {}\r\n", basic(KEPT[2]));
    let wrong = format!("Authorization: {}\r\n", basic(SENT[0]));
    assert_eq!(visit(request("GET", "/page", "a.test", &right)).await.status, 502);
    assert_eq!(visit(request("GET", "/page", "a.test", &wrong)).await.status, 401);
    assert_eq!(visit(request("GET", "/page", "a.test", "Bad : 1\r\n")).await.status, 400);
    drop(authenticator);
    assert_eq!(visit(request("GET", "/page", "a.test", &right)).await.status, 503);
    assert_eq!(visit(request("GET", "/page", "alice.n.test", &right)).await.status, 502);
    assert_eq!(visit(request("GET", "/last", "b.test", &right)).await.status, 404);

    written.push((
        "the access log",
        "E-ORIGIN-REFUSED",
        until_holds(&folder.path("access"), "/last").await,
    ));
    soon("the last line by syslog", async {
        while !collected.lock().unwrap().contains("/last") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    written.push(("syslog", " up name=", collected.lock().unwrap().clone()));
    let open = format!(
        "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nAccept: application/openmetrics-text\r\n\r\n"
    );
    written.push(("OpenMetrics", "# EOF", ask(&admin, &open).await.text()));
    for (path, word) in
        [("/metrics", "E-GATE-FORWARD"), ("/status", "alice"), ("/readyz", "a.test")]
    {
        written.push((path, word, get(&admin, path).await.text()));
    }
    let table = run("2ptth-server", &["status", "--admin", &admin], &[]).await;
    written.push(("status", "alice", table.stdout));
    for client in clients {
        client.signal("TERM");
        let output = client.ended().await;
        written.push(("the client's log", "tunnel: ", output.stderr));
        written.push(("the client's output", "127.0.0.1:9", output.stdout));
    }
    gateway.signal("TERM");
    let output = gateway.ended().await;
    written.push(("the gateway's log", "exchange: ", output.stderr));
    written.push(("the gateway's output", "listening on", output.stdout));
    written
}
