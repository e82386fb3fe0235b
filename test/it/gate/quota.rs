//! What one route may have of the machine.

use std::time::{Duration, Instant};

use ptth_link::token::Token;
use ptth_test::routes::route;
use ptth_test::{Ask, Dialect, GatewayBox, H1, H2, Hello, soon};
use tokio::task::JoinSet;

use super::{World, is_page};

#[tokio::test]
async fn a_route_has_no_more_requests_at_a_time_than_it_may() {
    let world = World::new("max_streams = 2", "").await;
    let visitor = H2::connect(world.gateway()).await;
    let mut waiting = Vec::new();
    for n in 1..=2 {
        waiting.push(visitor.get("/wait").await);
        soon("the origin", async {
            while world.seen.lock().unwrap().len() < n {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    for dialect in Dialect::BOTH {
        let refused = world.ask(dialect, &Ask::get("/")).await;
        is_page(&refused, 503, "E-ROUTE-STREAMS");
    }
    // A reload doesn't forget them.
    world.change("max_streams = 2\nqueue = 3", "").await;
    is_page(&world.get(&[]).await, 503, "E-ROUTE-STREAMS");
    // One that ends, and one that is taken back, make room.
    world.go.add_permits(1);
    let first = ptth_test::h2::read(waiting.remove(0)).await;
    assert_eq!(first.text(), "fine");
    drop((waiting, visitor));
    soon("room for two", async {
        loop {
            let mut one = H1::connect(world.gateway()).await;
            one.send("GET /wait HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
            let other = world.get(&[]).await.status;
            world.go.add_permits(1);
            if one.answer().await.status == 200 && other == 200 {
                return;
            }
        }
    })
    .await;
}

/// A second's bytes go at once, and what is beyond waits, whichever way it goes and whatever the dialect.
#[tokio::test]
async fn a_route_moves_no_more_bytes_a_second_than_it_may() {
    let world = World::new("rate_bytes = '1MiB'", "").await;
    for dialect in Dialect::BOTH {
        let begun = Instant::now();
        let body = vec![b'x'; 5 << 18];
        assert_eq!(world.ask(dialect, &Ask::post("/", body)).await.status, 200);
        let sent = begun.elapsed();
        assert!(sent >= Duration::from_millis(200), "{sent:?}");
        assert_eq!(world.ask(dialect, &Ask::get("/large")).await.body.len(), 1 << 18);
        assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
        // The bucket is full again, so that the other dialect finds the same.
        world.change("rate_bytes = '2MiB'", "").await;
        world.change("rate_bytes = '1MiB'", "").await;
    }
}

/// Of all credentials together; and one that ends makes room.
#[tokio::test]
async fn a_route_has_no_more_tunnels_than_it_may() {
    let tokens = [Token::generate(), Token::generate()];
    let gateway = GatewayBox::with(|config| {
        let mut few = route("few", &["a.test"], &[&tokens[0], &tokens[1]]);
        few.max_tunnels = Some(3);
        config.routes = vec![few];
    });
    let hold = async |n: usize| {
        let hello = Hello::backend(&tokens[n % 2], &format!("b{n}.0"));
        let stream = soon("TLS", hello.connect(gateway.address)).await.expect("TLS");
        h2::server::handshake(stream).await.expect("a preface")
    };
    let mut tunnels = Vec::new();
    for n in 0..3 {
        let mut requests = hold(n).await;
        let mut serving = JoinSet::new();
        serving.spawn(async move { while requests.accept().await.is_some() {} });
        tunnels.push(serving);
        gateway.until_registered(n + 1).await;
    }
    for n in 3..5 {
        let mut refused = hold(n).await;
        let end = soon("the end of a tunnel too many", refused.accept()).await;
        assert!(!matches!(end, Some(Ok(_))), "it is asked for nothing");
        assert_eq!(gateway.registry.all().len(), 3);
    }
    tunnels.pop();
    gateway.until_registered(2).await;
    let mut requests = hold(5).await;
    let mut serving = JoinSet::new();
    serving.spawn(async move { while requests.accept().await.is_some() {} });
    gateway.until_registered(3).await;
}
