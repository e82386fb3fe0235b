//! The explained wire of both programs, and the keys of their TLS sessions.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ptth_test::frames::{data, headers, settings};
use ptth_test::process::{Gateway, Process, address_of};
use ptth_test::{Folder, H1, connect_to, soon};
use tokio::io::AsyncWriteExt;

use super::answer;

/// What a visitor says that nobody else is to read.
const SECRETS: &str = "Authorization: Bearer hidden\r\nCookie: a=hidden\r\n";

#[tokio::test]
async fn a_running_pair_explains_its_tunnel_at_both_ends_and_tells_no_secret() {
    let gateway = Gateway::start(&["--explain"]).await;
    let client = gateway.client(&["--explain", "--tunnels", "1"]);
    gateway.process.logs(" up name=").await;
    let mut visitor = H1::to(gateway.address).await.expect("TLS");
    let request = format!(
        "POST /page?q=hidden HTTP/1.1\r\nHost: example.test\r\nContent-Length: 6\r\n{SECRETS}\r\nhidden"
    );
    visitor.send(request).await;
    assert_eq!(visitor.answer().await.status, 200);
    let port = gateway.address.port();
    client.says(&format!("this backend dialled 127.0.0.1:{port}: TLS 1.3, ALPN 2ptth")).await;
    gateway.process.says(" dialled this gateway: TLS 1.3, ALPN 2ptth").await;
    for process in [&gateway.process, &client] {
        for line in [
            "The roles are transposed: the gateway, which was dialled, asks;",
            "PRI * HTTP/2.0 (the preface) ──",
            "whichever side dialled (RFC 9113 §3.4).",
            "INITIAL_WINDOW_SIZE = ",
            "ENABLE_CONNECT_PROTOCOL = 1",
            "<────────────── PING ACK after ",
            ":path: /page?…",
            "authorization: (masked, 13 bytes)",
            "cookie: (masked, 8 bytes)",
            " 6 bytes END_STREAM ──",
            ":status: 200",
        ] {
            process.says(line).await;
        }
    }
    client.signal("TERM");
    gateway.process.says("the connection has ended").await;
    gateway.process.signal("TERM");
    let seed = gateway.token.reveal();
    for output in [client.ended().await, gateway.process.ended().await] {
        let said = output.stdout + &output.stderr;
        assert!(!said.contains("hidden") && !said.contains(&seed), "{said}");
    }
}

#[tokio::test]
async fn visitors_connections_are_explained_on_request_and_bodies_as_well() {
    let gateway = Gateway::start(&["--explain-visitors", "--explain-bodies"]).await;
    let mut visitor = connect_to(gateway.address, &[b"h2"]).await.expect("TLS");
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "example.test"),
        (":path", "/hook?q=hidden"),
        ("authorization", "Bearer hidden"),
    ];
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        settings(&[]),
        headers(1, &fields, false),
        data(1, b"a webhook", true),
    ];
    visitor.write_all(&bytes.concat()).await.expect("sent");
    for line in [
        "127.0.0.1 dialled this gateway: TLS 1.3, ALPN h2",
        "The visitor dialled, and asks; the gateway answers.",
        ":path: /hook?…",
        "DATA stream=1 9 bytes END_STREAM",
        "\"a webhook\"",
        ":status: 502",
    ] {
        gateway.process.says(line).await;
    }
    assert!(!gateway.process.said().contains("hidden"));
}

#[tokio::test]
async fn keys_of_tls_sessions_are_written_on_request_alone_and_with_a_warning() {
    let folder = Folder::new();
    let (gateways, clients) = (folder.path("gateway.keys"), folder.path("client.keys"));
    let listen = ["--self-signed", "--open", "--listen", "127.0.0.1:0"];
    let variable = [("SSLKEYLOGFILE", gateways.to_str().expect("UTF-8"))];
    let gateway = Process::start("2ptth-server", &listen, &variable);
    let address = address_of(&gateway).await;
    gateway.logs("SSLKEYLOGFILE is set: the keys of the TLS sessions are written").await;
    let client = ["--insecure", "--tunnels", "1", &address.to_string()];
    let variable = [("SSLKEYLOGFILE", clients.to_str().expect("UTF-8"))];
    let client = Process::start("2ptth-client", &client, &variable);
    client.logs("SSLKEYLOGFILE is set: the keys of the TLS sessions are written").await;
    gateway.logs(" up name=").await;
    assert_eq!(soon("an answer", answer(address)).await.0, 200);
    // TLS 1.3 has five secrets a session: the gateway's has the visitor's, too.
    for (file, sessions) in [(&gateways, 2), (&clients, 1)] {
        let text = fs::read_to_string(file).expect("keys");
        let count = text.matches("SERVER_TRAFFIC_SECRET_0 ").count();
        assert_eq!(count, sessions, "{text}");
        let mode = fs::metadata(file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "its owner's alone");
    }
    // Without the variable there is neither.
    let gateway = Gateway::start(&[]).await;
    assert_eq!(answer(gateway.address).await.0, 502);
    assert!(!gateway.process.said().contains("SSLKEYLOGFILE"));
}
