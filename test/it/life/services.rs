//! What a client is told, and what it makes of it.

use std::time::Duration;

use ptth_client::config::Config;
use ptth_client::demo::Demo;
use ptth_client::journal::Journal;
use ptth_client::{Process, Stopped};
use ptth_link::goaway::{FORBIDDEN, REPLACED, TAKEN, WITHDRAWN, Why, farewell};
use ptth_link::shutdown::{Trigger, channel};
use ptth_test::fake::FakeGateway;
use ptth_test::soon;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A client that holds tunnels to a fake gateway. Dropping it cuts them.
struct Client {
    holding: JoinSet<Result<(), Stopped>>,
    #[allow(dead_code, reason = "held for its drop, which would end the client")]
    trigger: Trigger,
}

impl Client {
    fn start(gateway: &FakeGateway, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = gateway.client_config();
        change(&mut config);
        let process = Process::new(config, Journal::default()).expect("a client's configuration");
        let (trigger, shutdown) = channel();
        let network = gateway.network.clone();
        let mut holding = JoinSet::new();
        holding
            .spawn(async move { process.hold(0..process.slots(), network, Demo, shutdown).await });
        Self { holding, trigger }
    }

    async fn stopped(&mut self) -> Stopped {
        let ended = soon("the client's end", self.holding.join_next()).await;
        ended.expect("it was started").expect("no panic").expect_err("the gateway refuses it")
    }
}

/// C4, B3: what can't succeed isn't tried again, and the user reads what to change.
#[tokio::test(start_paused = true)]
async fn a_reason_that_is_final_ends_the_client_with_a_sentence() {
    let table = [
        (TAKEN, "the place is taken", "another backend serves this already"),
        (REPLACED, "", "another backend took over"),
        (FORBIDDEN, "blog.example.com isn't yours", "\"blog.example.com isn't yours\""),
        (FORBIDDEN, "", "may serve nothing of what was asked for"),
        (FORBIDDEN, "\u{1b}[2J", "\\u{1b}[2J"),
    ];
    for (code, words, sentence) in table {
        let mut gateway = FakeGateway::start();
        let mut client = Client::start(&gateway, |config| config.tunnels = 1);
        let mut tunnel = gateway.tunnel().await;
        tunnel.send(farewell(code, words)).await;
        let stopped = client.stopped().await;
        assert!(stopped.is_refusal(), "{stopped:?}");
        assert!(stopped.to_string().contains(sentence), "{stopped}");
        assert!(gateway.nobody_dials(), "{stopped}");
    }
}

/// C6: whether it may come back is for the next dial to find out.
#[tokio::test(start_paused = true)]
async fn a_client_whose_tunnel_was_withdrawn_dials_again() {
    let mut gateway = FakeGateway::start();
    let mut client = Client::start(&gateway, |config| config.tunnels = 1);
    for _ in 0..3 {
        let mut tunnel = gateway.tunnel().await;
        tunnel.send(farewell(WITHDRAWN, "the route is gone")).await;
        assert_eq!(tunnel.end().await, Some(0), "the client has finished in order");
    }
    let mut tunnel = gateway.tunnel().await;
    tunnel.send(farewell(FORBIDDEN, "no")).await;
    assert!(matches!(client.stopped().await, Stopped::Forbidden(Some(_))));
}

/// C4: a tunnel that made room for a younger one of its own process is no reason to stop.
#[tokio::test(start_paused = true)]
async fn a_client_does_not_stop_for_what_it_did_itself() {
    let mut gateway = FakeGateway::start();
    let mut client = Client::start(&gateway, |config| config.tunnels = 2);
    let mut elder = gateway.tunnel().await;
    let mut younger = gateway.tunnel().await;
    // Both are up when their clients have read our SETTINGS.
    elder.ping().await;
    younger.ping().await;
    elder.send(farewell(REPLACED, "")).await;
    let begun = Instant::now();
    let mut again = tokio::select! {
        again = gateway.tunnel() => again,
        _ = younger.end() => panic!("the younger one has nothing to do with it"),
    };
    assert!(begun.elapsed() >= Duration::from_secs(30), "it waited to see: {:?}", begun.elapsed());
    assert!(client.holding.try_join_next().is_none(), "it runs");
    // Now the one that came up last is told: there is nobody else of ours.
    again.ping().await;
    again.send(farewell(REPLACED, "")).await;
    assert!(matches!(client.stopped().await, Stopped::Replaced));
}

/// C4: the place of several tunnels went to another backend, and none of them takes it back.
#[tokio::test(start_paused = true)]
async fn a_client_all_of_whose_tunnels_were_replaced_stops_at_once() {
    let mut gateway = FakeGateway::start();
    let mut client = Client::start(&gateway, |config| config.tunnels = 3);
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        tunnels.push(gateway.tunnel().await);
    }
    for tunnel in &mut tunnels {
        tunnel.ping().await;
    }
    let begun = Instant::now();
    for tunnel in &mut tunnels {
        tunnel.send(farewell(Why::Replaced.code(), "")).await;
    }
    assert!(matches!(client.stopped().await, Stopped::Replaced));
    assert!(begun.elapsed() < Duration::from_secs(1) && gateway.nobody_dials());
}
