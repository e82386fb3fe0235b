//! The gate of a route while its configuration changes, and that of a gateway without routes.

use ptth_test::routes::Tell;
use ptth_test::{Ask, Backend, Dialect, GatewayBox, H1, soon};

use super::{World, is_page};

const RATE: &str = "[route.gate]\nrate = { requests = 1, per = '1h', burst = 2 }";

#[tokio::test]
async fn a_reload_that_leaves_a_gate_alone_forgets_no_rate() {
    let world = World::new("", RATE).await;
    assert_eq!(world.get(&[]).await.status, 200);
    world.change("queue = 3", RATE).await;
    assert_eq!(world.get(&[]).await.status, 200);
    is_page(&world.get(&[]).await, 429, "E-GATE-RATE");
    world.change("", RATE).await;
    is_page(&world.get(&[]).await, 429, "E-GATE-RATE");
    let wider = RATE.replace("burst = 2", "burst = 3");
    world.change("", &wider).await;
    assert_eq!(world.get(&[]).await.status, 200, "another gate");
    world.change("", "").await;
    for _ in 0..5 {
        assert_eq!(world.get(&[]).await.status, 200, "none");
    }
    // A gate that can't be used changes nothing.
    world.change("", "[route.gate]\nallow = []").await;
    assert_eq!(world.get(&[]).await.status, 200);
}

/// What waits for a backend passed the gate of its time, and not the next one.
#[tokio::test]
async fn a_request_that_waits_does_not_slip_past_a_new_gate() {
    let mut world = World::without_backend("hold = 30", "");
    let mut visitor = H1::connect(world.gateway()).await;
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    let waits = |policy: &ptth_server::lab::Policy| {
        policy.find("example.test", "/").is_ok_and(|found| found.route.pool.held() > 0)
    };
    soon("the wait", async {
        while !waits(&world.gateway().registry.policy()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.change("hold = 30", "[route.gate]\ndeny = '127.0.0.1'").await;
    is_page(&visitor.answer().await, 503, "E-ROUTE-CHANGED");
    world.serve().await;
    assert!(world.seen().is_empty());
}

/// Of a gateway without routes, as the flags make it.
#[tokio::test]
async fn a_gateway_without_routes_has_a_gate_by_its_flags() {
    let gateway = GatewayBox::with(|config| {
        let gate = ptth_server::config::Gate {
            deny: vec!["192.0.2.0/24".parse().unwrap()],
            max_body: Some(10),
            ..Default::default()
        };
        config.gate = Some(gate);
        config.trusted = ptth_server::config::Trusted::parse(&["127.0.0.1"]).unwrap();
    });
    let _backend = Backend::serving(&gateway, Tell("a")).await;
    for dialect in Dialect::BOTH {
        let ask = Ask::get("/");
        assert_eq!(dialect.ask(&gateway, &ask).await.status, 200);
        let refused = dialect.ask(&gateway, &ask.with("x-forwarded-for", "192.0.2.9")).await;
        is_page(&refused, 403, "E-GATE-ADDRESS");
        is_page(&dialect.ask(&gateway, &Ask::post("/", "01234567890")).await, 413, "E-GATE-BODY");
    }
}
