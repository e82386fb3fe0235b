//! What one address may take of a tunnel that it shares with all others.

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::visitor::connect_from;
use ptth_test::{Backend, GatewayBox, H1, Lab, Peer, soon};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{ask, until};

/// 2,200 requests of one address, which are never answered, on a tunnel of 2,048 streams.
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

/// How a stream is held by somebody who wants nothing.
#[derive(Clone, Copy, Debug)]
enum Hold {
    /// Its response isn't read.
    Unread,
    /// Its request's body doesn't come.
    Unsent,
    /// It asks for what the backend never answers.
    Hanging,
}

/// A visitor that asks a hundred times so, and again for each that is ended.
async fn greedy(mut peer: Peer<DuplexStream>, hold: Hold) {
    let mut next = 1;
    let mut open = 0;
    loop {
        let mut asks = Vec::new();
        while open < 100 {
            asks.extend(match hold {
                Hold::Unread => headers(next, END_STREAM, &get("/large")),
                Hold::Unsent => headers(next, 0, &request("POST", "/")),
                Hold::Hanging => headers(next, END_STREAM, &get("/hang")),
            });
            (next, open) = (next + 2, open + 1);
        }
        peer.send(asks).await;
        let Some(frame) = peer.next().await else { return };
        if frame.is_end() {
            open -= 1;
        }
    }
}

/// However many addresses hold all that they can get and let nothing move, another one is served in a second.
async fn is_served_beside(hold: Hold) {
    for attackers in [1, 2, 7, 22, 40] {
        let mut lab = Lab::serving(Function(|request: Request<Body>| async move {
            if request.uri().path() == "/hang" {
                pending::<()>().await;
            }
            let large = request.uri().path() == "/large";
            if request.method() == http::Method::POST {
                let _ = request.into_body().collect().await;
            }
            let body =
                if large { Bytes::from(vec![7; 1 << 20]) } else { Bytes::from_static(b"ok") };
            Response::new(Full::new(body))
        }))
        .await;
        for _ in 0..attackers {
            let peer = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
            lab.spawn(greedy(peer, hold));
        }
        let tunnel = lab.pool.all()[0].clone();
        until(|| tunnel.in_flight() >= attackers.min(20) * 100).await;
        for turn in 0..5 {
            sleep(Duration::from_secs(1)).await;
            let asked = Instant::now();
            let mut honest = lab.h1();
            assert_eq!(ask(&mut honest).await.status, 200, "{hold:?}, {attackers}, {turn}");
            let took = asked.elapsed();
            assert!(took <= Duration::from_secs(1), "{hold:?}, {attackers}, {turn}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_number_of_addresses_that_read_nothing_keeps_another_one_waiting() {
    is_served_beside(Hold::Unread).await;
}

#[tokio::test(start_paused = true)]
async fn no_number_of_addresses_that_send_nothing_keeps_another_one_waiting() {
    is_served_beside(Hold::Unsent).await;
}

#[tokio::test(start_paused = true)]
async fn no_number_of_addresses_at_a_hanging_path_keeps_another_one_waiting() {
    is_served_beside(Hold::Hanging).await;
}
