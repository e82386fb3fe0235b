//! What a client is told, and what it makes of it.

use std::time::Duration;

use ptth_client::announced::Board;
use ptth_client::config::Config;
use ptth_client::demo::Demo;
use ptth_client::journal::Journal;
use ptth_client::{Process, Stopped};
use ptth_link::h2::goaway::{Why, farewell};
use ptth_link::shutdown::{Trigger, channel};
use ptth_test::asking::FakeGateway;
use ptth_test::peer::{END_STREAM, Outcome, headers, request};
use ptth_test::soon;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A client that holds tunnels to a fake gateway. Dropping it cuts them.
struct Client {
    board: watch::Receiver<Board>,
    holding: JoinSet<Result<(), Stopped>>,
    #[allow(dead_code, reason = "held for its drop, which would end the client")]
    trigger: Trigger,
}

impl Client {
    fn start(gateway: &FakeGateway, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = gateway.client_config();
        change(&mut config);
        let process = Process::new(config, Journal::default()).expect("a client's configuration");
        let board = process.answering.announced.watch();
        let (trigger, shutdown) = channel();
        let network = gateway.network.clone();
        let mut holding = JoinSet::new();
        holding
            .spawn(async move { process.hold(0..process.slots(), network, Demo, shutdown).await });
        Self { board, holding, trigger }
    }

    async fn stopped(&mut self) -> Stopped {
        let ended = soon("the client's end", self.holding.join_next()).await;
        ended.expect("it was started").expect("no panic").expect_err("the gateway refuses it")
    }
}

/// What can't succeed isn't tried again, and the user reads what to change.
#[tokio::test(start_paused = true)]
async fn a_reason_that_is_final_ends_the_client_with_a_sentence() {
    let table = [
        (Why::Taken, "the place is taken", "another backend serves this already"),
        (Why::Replaced, "", "another backend took over"),
        (Why::Forbidden, "blog.example.com isn't yours", "\"blog.example.com isn't yours\""),
        (Why::Forbidden, "", "may serve nothing of what was asked for"),
        (Why::Forbidden, "\u{1b}[2J", "\\u{1b}[2J"),
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

/// Whether it may come back is for the next dial to find out.
#[tokio::test(start_paused = true)]
async fn a_client_whose_tunnel_was_withdrawn_dials_again() {
    let mut gateway = FakeGateway::start();
    let mut client = Client::start(&gateway, |config| config.tunnels = 1);
    for _ in 0..3 {
        let mut tunnel = gateway.tunnel().await;
        tunnel.send(farewell(Why::Withdrawn, "the route is gone")).await;
        assert_eq!(tunnel.end().await, Some(0), "the client has finished in order");
    }
    let mut tunnel = gateway.tunnel().await;
    tunnel.send(farewell(Why::Forbidden, "no")).await;
    assert!(matches!(client.stopped().await, Stopped::Forbidden(Some(_))));
}

/// A tunnel that made room for a younger one of its own process is no reason to stop.
#[tokio::test(start_paused = true)]
async fn a_client_does_not_stop_for_what_it_did_itself() {
    let mut gateway = FakeGateway::start();
    let mut client = Client::start(&gateway, |config| config.tunnels = 2);
    let mut elder = gateway.tunnel().await;
    let mut younger = gateway.tunnel().await;
    // Both are up when their clients have read our SETTINGS.
    elder.ping().await;
    younger.ping().await;
    elder.send(farewell(Why::Replaced, "")).await;
    let begun = Instant::now();
    let mut again = tokio::select! {
        again = gateway.tunnel() => again,
        _ = younger.end() => panic!("the younger one has nothing to do with it"),
    };
    assert!(begun.elapsed() >= Duration::from_secs(30), "it waited to see: {:?}", begun.elapsed());
    assert!(client.holding.try_join_next().is_none(), "it runs");
    // Now the one that came up last is told: there is nobody else of ours.
    again.ping().await;
    again.send(farewell(Why::Replaced, "")).await;
    assert!(matches!(client.stopped().await, Stopped::Replaced));
}

/// The place of several tunnels went to another backend, and none of them takes it back.
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
        tunnel.send(farewell(Why::Replaced, "")).await;
    }
    assert!(matches!(client.stopped().await, Stopped::Replaced));
    assert!(begun.elapsed() < Duration::from_secs(1) && gateway.nobody_dials());
}

/// The gateway's own word, by which the client learns where visitors find it; no service is asked.
#[tokio::test(start_paused = true)]
async fn announced_addresses_are_heard_and_never_reach_the_service() {
    let mut gateway = FakeGateway::start();
    let mut client = Client::start(&gateway, |config| config.tunnels = 1);
    let mut tunnel = gateway.tunnel().await;
    tunnel.ping().await;
    assert_eq!(client.board.borrow()[0].urls, [""; 0]);
    let urls = ["https://bob.example.test/", "https://example.test/bob/"];
    for (stream, urls) in [(1, &urls[..]), (3, &urls[1..])] {
        let mut fields = request("OPTIONS", "*").to_vec();
        fields.extend(urls.iter().map(|url| ("2ptth-url", *url)));
        tunnel.send(headers(stream, END_STREAM, &fields)).await;
        assert_eq!(tunnel.outcome(stream).await, Outcome::Response(204, Vec::new()));
        assert!(client.board.has_changed().expect("the client runs"));
        assert_eq!(client.board.borrow_and_update()[0].urls, urls);
    }
    // What a visitor can send is the service's to answer.
    for (stream, method, path) in [(5, "OPTIONS", "*"), (7, "OPTIONS", "/"), (9, "GET", "/")] {
        tunnel.send(headers(stream, END_STREAM, &request(method, path))).await;
        let Outcome::Response(200, body) = tunnel.outcome(stream).await else { panic!("{path}") };
        assert_eq!(body, b"Transmission is possible!\n");
    }
    assert!(!client.board.has_changed().expect("the client runs"));
}
