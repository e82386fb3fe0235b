//! Caronte: a path for each code.

use ptth_test::origin::read_head;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::*;

/// A proxy that knows CONNECT alone, and says whither.
async fn proxy(told: tokio::sync::mpsc::UnboundedSender<String>) -> OriginBox {
    OriginBox::raw(move |mut socket, _| {
        let told = told.clone();
        async move {
            let head = read_head(&mut socket).await;
            let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
            let Some(target) = target else { return };
            let mut gateway = TcpStream::connect(target).await.expect("the gateway");
            let _ = told.send(target.to_owned());
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("the client reads");
            let _ = copy_bidirectional(&mut socket, &mut gateway).await;
        }
    })
    .await
}

#[tokio::test]
async fn each_code_has_a_path_and_is_answered_by_the_backend_or_at_once() {
    let recipe = Recipe::of("(Caronte)");
    let (gateway, address) = recipe.gateway(recipe.lines("2ptth-server")[0]).await;
    let (told, mut targets) = tokio::sync::mpsc::unbounded_channel();
    let proxy = proxy(told).await;
    let by = ("proxy.example.net:3128", &*proxy.address.to_string());
    let lines = recipe.lines("2ptth-client");
    let line = lines[0];
    let by_proxy = |line: &&str| if line.contains(by.0) { vec![by] } else { Vec::new() };
    let clients: Vec<_> =
        lines.iter().map(|line| recipe.client(line, address, &by_proxy(line))).collect();
    until_up(&gateway, 2 * clients.len()).await;
    let target = soon("the proxy", targets.recv()).await.expect("it was asked");
    assert_eq!(target, address.to_string());
    let lines = recipe.lines("curl");
    for line in &lines {
        shows(line, address).await;
    }
    // Neither the code nor its prefix reach the origin, and what was answered at once is delivered.
    let got = |client: &Process| client.stdout_so_far().matches("POST \"/echo\" 200 5 B").count();
    for client in &clients {
        let delivered = async {
            while got(client) == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("the delivery", delivered).await;
    }
    // One secret for all, and yet nobody gets what is another one's.
    for line in lines.iter().filter(|line| remark(line) == "hello").cycle().take(8) {
        shows(line, address).await;
    }
    // A line of the access log comes behind the response that it is about.
    let counted = async {
        while clients.iter().map(got).sum::<usize>() < 11 {
            tokio::task::yield_now().await;
        }
    };
    soon("the lines", counted).await;
    assert_eq!(clients.iter().map(got).collect::<Vec<_>>(), [5, 1, 5]);
    assert_eq!(lines.len(), 4);
    let client = &clients[0];
    // Nor does it offer a token that would let nobody in, since each route has its own `allow`.
    assert!(!gateway.said().contains("TOKEN="), "{}", gateway.said());
    assert!(!gateway.said().contains("s3cret") && !client.said().contains("s3cret"));

    // Caronte's: who has another secret is told, and doesn't try for ever.
    let stranger = recipe.client(line, address, &[by, ("=s3cret", "=guessed")]).ended().await;
    assert_eq!(stranger.code, Some(77), "{stranger:?}");
    assert!(stranger.stderr.contains("401 Unauthorized"), "{stranger:?}");
}
