//! A backend that comes where another one is.

use ptth_client::Stopped;
use ptth_link::token::Token;
use ptth_server::config::WhenTaken;
use ptth_test::routes::{Tell, backend, client, get, route, until_serving};
use ptth_test::{Backend, GatewayBox, H1, soon};

/// A gateway with one route, `a.test`, for two tokens.
fn gateway(when_taken: WhenTaken) -> (GatewayBox, Token, Token) {
    let (one, other) = (Token::generate(), Token::generate());
    let gateway = GatewayBox::with(|config| {
        let mut route = route("a", &["a.test"], &[&one, &other]);
        route.when_taken = when_taken;
        config.routes = vec![route];
    });
    (gateway, one, other)
}

#[tokio::test]
async fn balance_lets_both_serve() {
    let (gateway, one, other) = gateway(WhenTaken::Balance);
    let _one = backend(&gateway, &one, "one");
    let _other = backend(&gateway, &other, "other");
    until_serving(&gateway, "a.test", 2).await;
    let mut seen = std::collections::BTreeSet::new();
    let both = async {
        while seen.len() < 2 {
            seen.insert(get(&gateway, "a.test", "/").await.1);
        }
    };
    soon("both", both).await;
}

/// The one that was there is told, ends, and doesn't come back, so that there is no flip-flop; and so
/// it is whether it has the same token or another one.
#[tokio::test]
async fn replace_ends_the_one_that_was_there_and_it_stays_away() {
    for same in [false, true] {
        let (gateway, one, other) = gateway(WhenTaken::Replace);
        let other = if same { &one } else { &other };
        let first = backend(&gateway, &one, "first");
        until_serving(&gateway, "a.test", 1).await;
        let mut visitor = H1::connect(&gateway).await;
        visitor.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(visitor.answer().await.text(), "first a.test /");
        let second = backend(&gateway, other, "second");
        let stopped = first.ended().await.expect_err("it was replaced");
        assert!(matches!(stopped, Stopped::Replaced), "{stopped:?}");
        for _ in 0..10 {
            visitor.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
            assert_eq!(visitor.answer().await.text(), "second a.test /");
        }
        second.stop();
        second.ended().await.expect("it ends in order");
    }
}

#[tokio::test]
async fn reject_keeps_the_one_that_was_there_until_it_leaves() {
    let (gateway, one, other) = gateway(WhenTaken::Reject);
    let first = backend(&gateway, &one, "first");
    until_serving(&gateway, "a.test", 1).await;
    for _ in 0..2 {
        let stopped = backend(&gateway, &other, "second").ended().await.expect_err("a refusal");
        assert!(matches!(stopped, Stopped::Taken), "{stopped:?}");
        assert_eq!(get(&gateway, "a.test", "/").await.1, "first a.test /");
    }
    first.stop();
    first.ended().await.expect("it ends in order");
    until_serving(&gateway, "a.test", 0).await;
    let _second = backend(&gateway, &other, "second");
    until_serving(&gateway, "a.test", 1).await;
    assert_eq!(get(&gateway, "a.test", "/").await.1, "second a.test /");
}

/// One that stands by comes when the first is gone, by either door.
#[tokio::test]
async fn a_backend_that_stands_by_takes_over() {
    let (gateway, one, other) = gateway(WhenTaken::Reject);
    let first = backend(&gateway, &one, "first");
    until_serving(&gateway, "a.test", 1).await;
    let mut config = client(&gateway, &other);
    config.standby = true;
    let _second = Backend::start(config, Tell("second"));
    for _ in 0..20 {
        assert_eq!(get(&gateway, "a.test", "/").await.1, "first a.test /");
    }
    first.stop();
    first.ended().await.expect("it ends in order");
    let taken_over = async { while get(&gateway, "a.test", "/").await.1 != "second a.test /" {} };
    soon("the second", taken_over).await;
}

/// The tunnels of one process don't push each other out, nor keep each other from coming.
#[tokio::test]
async fn several_tunnels_of_one_process_are_one_backend() {
    for when_taken in [WhenTaken::Replace, WhenTaken::Reject] {
        let (gateway, one, other) = gateway(when_taken);
        let with = |token, name| {
            let mut config = client(&gateway, token);
            config.tunnels = 3;
            Backend::start(config, Tell(name))
        };
        let first = with(&one, "first");
        until_serving(&gateway, "a.test", 3).await;
        let second = with(&other, "second");
        match when_taken {
            WhenTaken::Reject => {
                let stopped = second.ended().await.expect_err("a refusal");
                assert!(matches!(stopped, Stopped::Taken), "{stopped:?}");
                assert_eq!(get(&gateway, "a.test", "/").await.1, "first a.test /");
            }
            _ => {
                let stopped = first.ended().await.expect_err("it was replaced");
                assert!(matches!(stopped, Stopped::Replaced), "{stopped:?}");
                until_serving(&gateway, "a.test", 3).await;
                assert_eq!(get(&gateway, "a.test", "/").await.1, "second a.test /");
            }
        }
    }
}
