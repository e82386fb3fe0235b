//! What one address may take of a tunnel that it shares with all others.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use ptth_client::Body;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::visitor::connect_from;
use ptth_test::{Backend, GatewayBox, H1, Peer, soon};
use tokio::sync::Notify;

/// B9: 2,200 requests of one address, which are never answered, on a tunnel of 2,048 streams.
#[tokio::test]
async fn one_address_cannot_take_all_streams_of_a_tunnel() {
    let gateway = GatewayBox::start();
    let held = Arc::new((AtomicUsize::new(0), Notify::new()));
    let holding = held.clone();
    let mut config = gateway.client_config();
    config.tunnels = 1;
    let _backend = Backend::start(
        config,
        Function(move |request: Request<Body>| {
            let held = holding.clone();
            async move {
                if request.uri().path() == "/hold" {
                    held.0.fetch_add(1, Ordering::Relaxed);
                    held.1.notify_one();
                    pending::<()>().await;
                }
                Response::new("ok".to_owned())
            }
        }),
    );
    gateway.until_tunnels(1).await;
    let mut attackers = Vec::new();
    for _ in 0..22 {
        let address = Ipv4Addr::new(127, 0, 0, 2);
        let io = connect_from(address, gateway.address, &[b"h2"]).await.expect("TLS");
        let mut peer = Peer::asking(io, &[]).await;
        let requests = (0..100).map(|n| headers(n * 2 + 1, END_STREAM, &get("/hold")));
        peer.send(requests.collect::<Vec<_>>().concat()).await;
        attackers.push(peer);
    }
    // Half of the tunnel is his, and he has it.
    soon("half of the streams", async {
        while held.0.load(Ordering::Relaxed) < 1024 {
            held.1.notified().await;
        }
    })
    .await;
    assert_eq!(H1::get(&gateway, "/").await.status, 200, "somebody else");
    assert_eq!(held.0.load(Ordering::Relaxed), 1024);
}
