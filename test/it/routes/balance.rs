//! Several backends of one route: who gets the next request, and what the death of one costs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use ptth_client::Body;
use ptth_link::token::Token;
use ptth_server::config::Route;
use ptth_server::lab::Identity;
use ptth_test::lab::Function;
use ptth_test::peer::{MAX_CONCURRENT_STREAMS, Peer};
use ptth_test::routes::{Tell, backend, client, get_on, grant, route, until_serving};
use ptth_test::{Backend, GatewayBox, H2, Lab, soon};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// A gateway with one route, `a.test`, for one token.
fn gateway() -> (GatewayBox, Token) {
    let token = Token::generate();
    let gateway =
        GatewayBox::with(|config| config.routes = vec![route("a", &["a.test"], &[&token])]);
    (gateway, token)
}

/// Requests that came to a backend and wait for leave to be answered.
struct Held {
    came: AtomicUsize,
    changed: Notify,
    leave: Semaphore,
}

impl Held {
    fn new() -> Arc<Self> {
        let (came, changed) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { came, changed, leave: Semaphore::new(0) })
    }

    fn count(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

/// A backend with so many tunnels that holds what it is asked.
fn holding(gateway: &GatewayBox, token: &Token, tunnels: usize, held: &Arc<Held>) -> Backend {
    let mut config = client(gateway, token);
    config.tunnels = tunnels;
    let held = held.clone();
    let answer = move |_: Request<Body>| {
        let held = held.clone();
        async move {
            held.came.fetch_add(1, Ordering::Relaxed);
            held.changed.notify_one();
            held.leave.acquire().await.expect("it stays open").forget();
            Response::new(String::from("held"))
        }
    };
    Backend::start(config, Function(answer))
}

#[tokio::test]
async fn whoever_has_the_fewest_requests_in_flight_gets_the_next() {
    // By backend and not by tunnel: who holds more of them doesn't get more.
    for tunnels in [1, 3] {
        let (gateway, token) = gateway();
        let (one, other) = (Held::new(), Held::new());
        let mut backends = vec![holding(&gateway, &token, tunnels, &one)];
        until_serving(&gateway, "a.test", tunnels).await;
        let visitor = H2::connect(&gateway).await;
        let mut asking = Vec::new();
        for n in 1..=10 {
            if n == 4 {
                // The newcomer gets all until it has as many; then they take turns.
                backends.push(holding(&gateway, &token, 1, &other));
                until_serving(&gateway, "a.test", tunnels + 1).await;
            }
            asking.push(Box::pin(get_on(&visitor, ("a.test", "/"), &[])));
            let came = async {
                while one.count() + other.count() < n {
                    tokio::select! {
                        () = one.changed.notified() => {}
                        () = other.changed.notified() => {}
                    }
                }
            };
            let last = asking.last_mut().expect("one was pushed");
            soon("the request", async {
                tokio::select! { () = came => {}, _ = last => panic!("it was answered") }
            })
            .await;
            if n == 6 {
                assert_eq!((one.count(), other.count()), (3, 3), "{tunnels}");
            }
        }
        assert_eq!((one.count(), other.count()), (5, 5), "{tunnels}");
        one.leave.add_permits(5);
        other.leave.add_permits(5);
        for asked in asking {
            assert_eq!(asked.await.status, 200);
        }
    }
}

/// One visitor, one connection, never two requests at a time.
#[tokio::test]
async fn equals_take_turns() {
    let (gateway, token) = gateway();
    let _one = backend(&gateway, &token, "one");
    let _other = backend(&gateway, &token, "other");
    until_serving(&gateway, "a.test", 2).await;
    let visitor = H2::connect(&gateway).await;
    let mut ones = 0;
    for _ in 0..40 {
        let answer = get_on(&visitor, ("a.test", "/"), &[]).await;
        ones += usize::from(answer.text().starts_with("one"));
    }
    assert!((10..=30).contains(&ones), "{ones} of 40");
}

/// One of two dies. What it held is lost; the rest isn't.
#[tokio::test]
async fn a_backend_that_dies_takes_only_its_own_requests_with_it() {
    let (gateway, token) = gateway();
    let (dying, living) = (Held::new(), Held::new());
    let dies = holding(&gateway, &token, 1, &dying);
    let _lives = holding(&gateway, &token, 1, &living);
    until_serving(&gateway, "a.test", 2).await;
    let visitor = Arc::new(H2::connect(&gateway).await);
    let mut asked = JoinSet::new();
    for _ in 0..20 {
        let visitor = visitor.clone();
        asked.spawn(async move { get_on(&visitor, ("a.test", "/"), &[]).await.status });
    }
    let all_there = async {
        while dying.count() + living.count() < 20 {
            tokio::task::yield_now().await;
        }
    };
    soon("the requests", all_there).await;
    let lost = dying.count();
    assert!((8..=12).contains(&lost), "{lost}");
    drop(dies);
    until_serving(&gateway, "a.test", 1).await;
    living.leave.add_permits(1000);
    for _ in 0..50 {
        assert_eq!(get_on(&visitor, ("a.test", "/"), &[]).await.status, 200);
    }
    let statuses = soon("the answers", asked.join_all()).await;
    let failed = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!((failed, statuses.len()), (lost, 20), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)));
}

/// In the middle of load. Whatever began after the gateway had taken it out succeeds.
#[tokio::test]
async fn no_request_fails_that_came_after_a_backends_death() {
    let (gateway, token) = gateway();
    let dies = backend(&gateway, &token, "dies");
    let _lives = backend(&gateway, &token, "lives");
    until_serving(&gateway, "a.test", 2).await;
    let gone = Arc::new(AtomicBool::new(false));
    let late = Arc::new(Mutex::new(Vec::new()));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let visitor = H2::connect(&gateway).await;
        let (gone, late) = (gone.clone(), late.clone());
        load.spawn(async move {
            let mut after = 0;
            while after < 25 {
                let began_after = gone.load(Ordering::SeqCst);
                let answer = get_on(&visitor, ("a.test", "/"), &[]).await;
                if began_after {
                    after += 1;
                    late.lock().expect("no panic").push(answer.status);
                }
            }
        });
    }
    drop(dies);
    until_serving(&gateway, "a.test", 1).await;
    gone.store(true, Ordering::SeqCst);
    soon("the load", load.join_all()).await;
    let late = late.lock().expect("no panic");
    assert!(late.len() == 100 && late.iter().all(|status| *status == 200), "{late:?}");
}

/// A tunnel that can take no more is passed over, though it has fewer in flight.
#[tokio::test(start_paused = true)]
async fn a_saturated_tunnel_is_passed_over() {
    let site = || vec![grant("a.test")];
    let mut lab =
        Lab::with(|config| config.routes = vec![Route::new("a", vec!["a.test".parse().unwrap()])]);
    let (near, far) = tokio::io::duplex(64 * 1024);
    lab.attach_to(near, Identity::default(), site());
    let mut full = Peer::answering(far, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
    lab.spawn(async move { while full.next().await.is_some() {} });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let ask = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut held = lab.h1();
    held.send(ask).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ended = lab.serve_as(Identity { ours: true, ..Identity::default() }, site(), Tell("free"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..20 {
        let mut visitor = lab.h1();
        visitor.send(ask).await;
        assert_eq!(visitor.answer().await.text(), "free a.test /");
    }
}
