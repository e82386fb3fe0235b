//! reverst: groups of replicas, and every kind of credential.

use std::collections::BTreeSet;

use http::StatusCode;
use ptth_link::crypto::{hex, sha256};

use super::*;

/// An authorizer that knows one secret, for one host.
async fn authorizer() -> OriginBox {
    OriginBox::http(|request| async move {
        let says = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let yes = request.uri() == "/2ptth"
            && says("authorization") == Some("Bearer of-another-system")
            && says("2ptth-host") == Some("wiki.example.com")
            && says("x-forwarded-for") == Some("127.0.0.1");
        let mut response = Response::new(Full::<bytes::Bytes>::default());
        *response.status_mut() = if yes { StatusCode::OK } else { StatusCode::FORBIDDEN };
        response
    })
    .await
}

/// Everybody who answers a `curl` line is one of those that it names, and each of them does.
async fn shares(line: &str, gateway: SocketAddr) {
    let expected: BTreeSet<_> = remark(line).split(" or ").map(str::to_owned).collect();
    assert_eq!(expected.len(), 2);
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let answer = curl(line, gateway).await;
        assert_eq!(answer.status, 200, "{line}");
        seen.insert(answer.text());
    }
    assert_eq!(seen, expected, "{line}");
}

#[tokio::test]
async fn replicas_share_a_group_whichever_credential_let_them_in() {
    let recipe = Recipe::of("(reverst)");
    let authorizer = authorizer().await;
    recipe.edit("gateway.toml", "127.0.0.1:9000", &authorizer.address.to_string());
    recipe.folder.write("shop.secret", "s3cret\n");
    recipe.folder.write("wiki.secret", "the-wiki\n");
    // The digest in the file is what the recipe's command prints.
    let hashed = command(recipe.lines("sha256sum")[0]).split(' ').nth(1).unwrap_or_default();
    let text = std::fs::read_to_string(recipe.folder.path("gateway.toml")).expect("the file");
    assert!(text.contains(&hex(&sha256(hashed.as_bytes()))));

    let server = recipe.lines("2ptth-server")[0];
    let by_flags = format!("{} ", remark(server).trim_start_matches("or: "));
    for line in [server, &by_flags] {
        let (gateway, address) = recipe.gateway(line).await;
        let (mut clients, mut origins) = (Vec::new(), Vec::new());
        for line in
            recipe.lines("2ptth-client").iter().filter(|line| !line.contains("2ptth-server"))
        {
            let name = ["8080", "8081", "8082", "8083"][clients.len()];
            let origin = origin(name).await;
            let place = format!("localhost:{name}");
            let client = recipe.client(line, address, &[(&place, &*origin.address.to_string())]);
            clients.push(client);
            until_up(&gateway, 2 * clients.len()).await;
            origins.push(origin);
        }
        assert_eq!(clients.len(), 4);
        for line in recipe.lines("curl") {
            shares(line, address).await;
        }
        // What one may serve, the others may not; and none of it is in a log.
        let other = recipe.lines("the-wiki")[0].replace("the-wiki", "hashed-s3cret");
        let refused = recipe.client(&other, address, &[]).ended().await;
        assert_eq!(refused.code, Some(77), "{refused:?}");
        assert!(refused.stderr.contains("403 Forbidden"), "{refused:?}");
        for secret in ["s3cret", "the-wiki", "of-another-system"] {
            assert!(!gateway.said().contains(secret), "{secret}");
        }
        gateway.signal("TERM");
        let said = gateway.ended().await;
        assert!(said.stderr.contains("running exchanges have 5 s"), "the grace: {}", said.stderr);
    }
}
