//! webhooktunnel: names by JSON Web Tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL;
use futures_util::{SinkExt, StreamExt};
use ptth_link::crypto::hmac_sha256;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const SECRETS: [&str; 2] =
    ["the-old-secret-of-at-least-32-bytes-0", "the-new-secret-of-at-least-32-bytes-1"];

/// A token of RFC 7515, good for a day.
pub(crate) fn token(secret: &str, tid: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims =
        format!(r#"{{"tid":"{tid}","aud":"2ptth","nbf":{now},"exp":{}}}"#, now + 24 * 3600);
    let signed = format!("{}.{}", URL.encode(br#"{"alg":"HS256"}"#), URL.encode(claims));
    let signature = hmac_sha256(secret.as_bytes(), signed.as_bytes());
    format!("{signed}.{}", URL.encode(signature))
}

/// The client's program for tokens: prints the one in `next`, and notes that it was asked.
fn fresh_token(recipe: &Recipe) {
    recipe.folder.write("fresh-token", "#!/bin/sh\necho >>asked\ncat next\n");
    let path = recipe.folder.path("fresh-token");
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("a program");
}

fn asked(recipe: &Recipe) -> usize {
    fs::read_to_string(recipe.folder.path("asked")).unwrap_or_default().lines().count()
}

/// A WebSocket of a viewer gets back what it sends.
async fn view(gateway: SocketAddr, host: &str, path: &str) {
    let mut visitor = visit(gateway).await;
    visitor
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    let (status, _) = soon("a head", visitor.head()).await;
    assert_eq!(status, 101, "{host}{path}");
    let mut socket = WebSocketStream::from_raw_socket(visitor.stream, Role::Client, None).await;
    socket.send(Message::text("a viewer's")).await.expect("it is open");
    let message = soon("an echo", socket.next()).await.expect("a message").expect("a message");
    assert_eq!(message, Message::text("a viewer's"));
}

#[tokio::test]
async fn a_name_is_served_as_a_sub_domain_and_as_a_path_by_fresh_tokens() {
    let recipe = Recipe::of("(webhooktunnel)");
    recipe.folder.write("jwt.old", SECRETS[0]);
    recipe.folder.write("jwt.new", SECRETS[1]);
    recipe.folder.write("next", token(SECRETS[0], "alice"));
    fresh_token(&recipe);
    let server = recipe.lines("2ptth-server")[0];
    let (gateway, address) = recipe.gateway(server).await;
    let curls = recipe.lines("curl");
    shows(curls[0], address).await;

    let line = recipe.lines("2ptth-client")[0];
    let origin = origin("METHOD PATH\n").await;
    let by = ("localhost:8080", &*origin.address.to_string());
    let client = recipe.client(line, address, &[by]);
    until_up(&gateway, 2).await;
    for line in &curls[1..] {
        shows(line, address).await;
    }
    assert_eq!(curls.len(), 4);

    // What the recipe says the file holds; this gateway's port isn't the usual one.
    let urls = recipe.folder.path("urls");
    let port = address.port();
    let expected = remark(recipe.lines("cat urls")[0])
        .replace("example.com/", &format!("example.com:{port}/"));
    let written = async {
        while fs::read_to_string(&urls).unwrap_or_default().lines().ne(expected.split(' ')) {
            tokio::task::yield_now().await;
        }
    };
    soon(&format!("{expected} in --url-file"), written).await;
    let before = asked(&recipe);
    assert!(before >= 2, "each dial asked");

    // The next token is of the other secret: it is what a client that lost its tunnels shows.
    recipe.folder.write("next", token(SECRETS[1], "alice"));
    gateway.kill().await;
    let (gateway, _) = recipe.gateway_at(server, &address.to_string()).await;
    until_up(&gateway, 2).await;
    assert!(asked(&recipe) >= before + 2);
    shows(curls[1], address).await;
    client.signal("TERM");
    assert_eq!(client.ended().await.code, Some(0));

    // Another's name, and a token of nobody's secret.
    for (secret, tid, status) in [(SECRETS[1], "bob", "403"), ("nobody's", "alice", "401")] {
        recipe.folder.write("next", token(secret, tid));
        let line =
            line.replace("--authorization-command ./fresh-token", "--authorization-file next");
        let refused = recipe.client(&line, address, &[by]).ended().await;
        assert_eq!(refused.code, Some(77), "{refused:?}");
        assert!(refused.stderr.contains(status), "{refused:?}");
    }
    assert!(!gateway.said().contains(&token(SECRETS[1], "alice")[..40]));
}

/// The demo echoes WebSockets, so it is the origin here.
#[tokio::test]
async fn viewers_have_websockets_on_both_addresses_of_a_name() {
    let recipe = Recipe::of("(webhooktunnel)");
    recipe.folder.write("jwt.old", SECRETS[0]);
    recipe.folder.write("jwt.new", SECRETS[1]);
    recipe.folder.write("next", token(SECRETS[1], "alice"));
    fresh_token(&recipe);
    let (gateway, address) = recipe.gateway(recipe.lines("2ptth-server")[0]).await;
    let line = recipe.lines("2ptth-client")[0];
    let client = recipe.client(line, address, &[(" http://localhost:8080", "")]);
    until_up(&gateway, 2).await;
    view(address, "alice.tunnel.example.com", "/view").await;
    view(address, "example.com", "/alice/view").await;
    client.signal("TERM");
    assert_eq!(client.ended().await.code, Some(0));
}
