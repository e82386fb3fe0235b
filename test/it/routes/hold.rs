//! Requests that wait: for a backend to come, and for room on those that are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use ptth_client::Body;
use ptth_link::h2::goaway::Why;
use ptth_link::token::Token;
use ptth_server::config::{Config, Hold, Route};
use ptth_server::lab::Grant;
use ptth_server::lab::RouteId;
use ptth_server::lab::{Identity, Key};
use ptth_test::lab::Function;
use ptth_test::peer::{END_STREAM, MAX_CONCURRENT_STREAMS, Peer, headers};
use ptth_test::routes::{Tell, grant, names};
use ptth_test::{Answer, H1, Lab};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub(super) fn any(name: &str, host: &str) -> Route {
    Route::new(name, vec![host.parse().unwrap()])
}

fn holding(seconds: u64, requests: usize) -> impl Fn(&mut Config) {
    move |config| {
        let mut route = any("a", "a.test");
        route.hold = Some(Hold { time: Duration::from_secs(seconds), requests });
        config.routes = vec![route];
    }
}

fn a() -> Vec<Grant> {
    vec![grant("a.test")]
}

/// A process of its own, by its one letter.
pub(super) fn who(name: &str) -> Identity {
    let key = Some(Key::Other([7; 32]));
    Identity {
        key,
        name: format!("{name}.0"),
        instance: name.to_owned(),
        ours: true,
        ..Identity::default()
    }
}

pub(super) async fn asking(lab: &mut Lab, host: &str, path: &str) -> H1<DuplexStream> {
    let mut visitor = lab.h1();
    visitor.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    visitor
}

async fn ask(lab: &mut Lab, host: &str, path: &str) -> Answer {
    asking(lab, host, path).await.answer().await
}

/// Hold: for a backend that comes in time, and no longer.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_backend_and_no_longer_than_told() {
    let mut lab = Lab::with(holding(10, 100));
    let begun = Instant::now();
    let mut visitor = asking(&mut lab, "a.test", "/early").await;
    sleep(Duration::from_secs(9)).await;
    let ended = lab.serve_as(who("a"), a(), Tell("a"));
    assert_eq!(visitor.answer().await.text(), "a a.test /early");
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(ended);
    let mut lab = Lab::with(holding(10, 100));
    let begun = Instant::now();
    assert_eq!(ask(&mut lab, "a.test", "/").await.status, 502);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(10) && waited < Duration::from_secs(11), "{waited:?}");
}

/// Hold: bounded, and a visitor who leaves gives up his place.
#[tokio::test(start_paused = true)]
async fn no_more_requests_wait_than_told_and_a_place_comes_back_with_its_visitor() {
    let mut lab = Lab::with(holding(3600, 3));
    let mut waiting = Vec::new();
    for n in 0..3 {
        waiting.push(asking(&mut lab, "a.test", &format!("/{n}")).await);
    }
    // The clock only moves when all three wait.
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert_eq!(ask(&mut lab, "a.test", "/beyond").await.status, 502);
    assert_eq!(begun.elapsed(), Duration::ZERO, "at once");
    drop(waiting.pop());
    sleep(Duration::from_secs(1)).await;
    waiting.push(asking(&mut lab, "a.test", "/2").await);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(ask(&mut lab, "a.test", "/beyond").await.status, 502);
    let _ended = lab.serve_as(who("a"), a(), Tell("a"));
    for (n, mut visitor) in waiting.into_iter().enumerate() {
        assert_eq!(visitor.answer().await.text(), format!("a a.test /{n}"));
    }
}

/// Hold: whatever else of the configuration changes, who waits for what is still there goes on to.
#[tokio::test(start_paused = true)]
async fn a_reload_does_not_disturb_who_waits() {
    let mut lab = Lab::with(holding(100, 100));
    let mut visitor = asking(&mut lab, "a.test", "/x").await;
    sleep(Duration::from_secs(1)).await;
    lab.reload(|config| {
        holding(50, 100)(config);
        config.routes.push(any("b", "b.test"));
    });
    sleep(Duration::from_secs(1)).await;
    let _ended = lab.serve_as(who("a"), a(), Tell("a"));
    assert_eq!(visitor.answer().await.text(), "a a.test /x");
}

/// Hold: what waits for a host and path that no route has any more is told at once. What its route is called is
/// no matter: it waits for whoever serves that host.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_route_that_is_no_more_is_told_at_once() {
    type Change = fn(&mut Config);
    let changes: [(Change, u16); 4] = [
        (|config| config.routes = vec![any("b", "a.test")], 200),
        (|config| config.routes = vec![any("a", "b.test"), any("b", "a.test")], 200),
        (|config| config.routes = vec![any("a", "b.test")], 503),
        // Then all hosts are one route's, which has no backend.
        (|config| config.routes.clear(), 502),
    ];
    for (change, expected) in changes {
        let mut lab = Lab::with(holding(3600, 100));
        let mut visitor = asking(&mut lab, "a.test", "/x").await;
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        lab.reload(change);
        let _b = lab.serve_as(who("b"), vec![grant("b.test")], Tell("b"));
        let _a = lab.serve_as(who("a"), a(), Tell("a"));
        let answer = visitor.answer().await;
        assert_eq!(answer.status, expected);
        match expected {
            200 => assert_eq!(answer.text(), "a a.test /x"),
            503 => assert_eq!(answer.field("retry-after"), "1"),
            _ => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

/// Hold, names: over a reload, which hands the waiting from one table to the next.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_name_also_over_a_reload() {
    let token = Token::generate();
    let with_names = |config: &mut Config| {
        let mut names = names(&[(&token, None)]);
        names.route.hold = Some(Hold { time: Duration::from_secs(3600), requests: 2 });
        config.names = Some(names);
    };
    let host = "bob.tunnel.example.test";
    let bob = || vec![Grant::by_key(RouteId::Name("bob".to_owned()))];
    let identity = |name| Identity { key: Some(Key::Ed25519(token.public())), ..who(name) };
    for reload in [false, true] {
        let mut lab = Lab::with(with_names);
        let mut visitor = asking(&mut lab, host, "/x").await;
        sleep(Duration::from_secs(1)).await;
        if reload {
            lab.reload(with_names);
            lab.reload(with_names);
        }
        let _other = asking(&mut lab, "eve.tunnel.example.test", "/x").await;
        sleep(Duration::from_secs(1)).await;
        // The places are counted over all names, since strangers choose them.
        let begun = Instant::now();
        assert_eq!(ask(&mut lab, "zed.tunnel.example.test", "/").await.status, 404);
        assert_eq!(ask(&mut lab, host, "/").await.status, 404);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let _ended = lab.serve_as(identity("b"), bob(), Tell("bob"));
        assert_eq!(visitor.answer().await.text(), "bob bob.tunnel.example.test /x");
        let mut late = asking(&mut lab, "zed.tunnel.example.test", "/x").await;
        sleep(Duration::from_secs(1)).await;
        // Another domain: nobody waits for the old one's any more.
        lab.reload(|config| {
            with_names(config);
            config.names.as_mut().unwrap().domain = "other.test".to_owned();
        });
        assert_eq!(late.answer().await.status, 503);
    }
}

/// Hold: the backend goes while a request waits for room on it; then it waits for the next one.
#[tokio::test(start_paused = true)]
async fn a_queued_request_whose_backend_goes_waits_for_the_next_backend() {
    let mut lab = Lab::with(|config| {
        holding(100, 100)(config);
        config.routes[0].queue = Duration::from_secs(50);
    });
    let first = raw(&mut lab, a(), 1).await;
    let _fills = asking(&mut lab, "a.test", "/fills").await;
    sleep(Duration::from_secs(1)).await;
    let mut queued = asking(&mut lab, "a.test", "/queued").await;
    sleep(Duration::from_secs(1)).await;
    drop(first);
    sleep(Duration::from_secs(1)).await;
    let _ended = lab.serve_as(who("b"), a(), Tell("b"));
    assert_eq!(queued.answer().await.text(), "b a.test /queued");
}

/// A raw backend that allows so many streams and answers none, read in the background.
async fn raw(lab: &mut Lab, sites: Vec<Grant>, streams: u32) -> tokio::task::JoinSet<()> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    lab.attach_to(near, Identity::default(), sites);
    let mut peer = Peer::answering(far, &[(MAX_CONCURRENT_STREAMS, streams)]).await;
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move { while peer.next().await.is_some() {} });
    sleep(Duration::from_millis(1)).await;
    reading
}

/// All full: waits, then 503 and Retry-After.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_room_as_long_as_the_queue_says() {
    let mut lab = Lab::with(|config| {
        let mut route = any("a", "a.test");
        route.queue = Duration::from_secs(3);
        config.routes = vec![route];
    });
    let _backend = raw(&mut lab, a(), 1).await;
    let _fills = asking(&mut lab, "a.test", "/fills").await;
    sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    let answer = ask(&mut lab, "a.test", "/").await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, "1".to_owned()));
    assert_eq!(begun.elapsed().as_secs(), 3);
}

/// One tunnel for two routes: room that a request of the one gives back is for those who wait at the
/// other, too.
#[tokio::test(start_paused = true)]
async fn room_on_a_shared_tunnel_wakes_those_who_wait_at_another_route() {
    let mut lab = Lab::with(|config| {
        config.routes = vec![any("a", "a.test"), any("b", "b.test")];
        config.routes[1].queue = Duration::from_secs(600);
    });
    let (near, far) = tokio::io::duplex(64 * 1024);
    lab.attach_to(near, Identity::default(), [a(), vec![grant("b.test")]].concat());
    let mut peer = Peer::answering(far, &[(MAX_CONCURRENT_STREAMS, 1)]).await;
    let asked = Arc::new(Notify::new());
    let go = Arc::new(Notify::new());
    let (was_asked, may_go) = (asked.clone(), go.clone());
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move {
        while let Some(frame) = peer.next().await {
            if frame.kind == ptth_test::peer::HEADERS {
                was_asked.notify_one();
                may_go.notified().await;
                peer.send(headers(frame.stream, 1, &[(":status", "204")])).await;
            }
        }
    });
    sleep(Duration::from_millis(1)).await;
    let mut one = asking(&mut lab, "a.test", "/").await;
    asked.notified().await;
    let mut other = asking(&mut lab, "b.test", "/").await;
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    go.notify_one();
    assert_eq!(one.answer().await.status, 204);
    asked.notified().await;
    go.notify_one();
    assert_eq!(other.answer().await.status, 204);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// An address gets half of a tunnel, and not half by each of the tunnel's routes.
#[tokio::test(start_paused = true)]
async fn one_address_cannot_take_a_tunnel_by_way_of_several_routes() {
    let mut lab = Lab::with(|config| config.routes = vec![any("a", "a.test"), any("b", "b.test")]);
    let (near, far) = tokio::io::duplex(64 * 1024);
    lab.attach_to(near, Identity::default(), [a(), vec![grant("b.test")]].concat());
    let mut peer = Peer::answering(far, &[(MAX_CONCURRENT_STREAMS, 100)]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    lab.spawn(async move {
        while let Some(frame) = peer.next().await {
            count.fetch_add(usize::from(frame.kind == ptth_test::peer::HEADERS), Ordering::Relaxed);
        }
    });
    sleep(Duration::from_millis(1)).await;
    let mut greedy = lab.h2(&[]).await;
    for n in 0..80 {
        let host = if n % 2 == 0 { "a.test" } else { "b.test" };
        let fields =
            [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/")];
        greedy.send(headers(2 * n + 1, END_STREAM, &fields)).await;
    }
    lab.spawn(async move { while greedy.next().await.is_some() {} });
    sleep(Duration::from_millis(100)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 50);
    let _other = asking(&mut lab, "b.test", "/").await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 51);
}

/// A backend that lost one of its two routes keeps the other, and gets the one back that nobody has.
#[tokio::test(start_paused = true)]
async fn who_is_replaced_on_one_route_keeps_the_others() {
    let b = || vec![grant("b.test")];
    let mut lab = Lab::with(|config| {
        config.routes = vec![any("a", "a.test"), any("b", "b.test")];
        config.routes[0].when_taken = ptth_server::config::WhenTaken::Replace;
    });
    let _first = lab.serve_as(who("first"), [a(), b()].concat(), Tell("first"));
    sleep(Duration::from_millis(1)).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    lab.attach_to(near, who("second"), a());
    let mut peer = Peer::answering(far, &[]).await;
    {
        let reading = async { while peer.next().await.is_some() {} };
        let looking = async {
            sleep(Duration::from_millis(1)).await;
            assert_eq!(ask(&mut lab, "b.test", "/").await.text(), "first b.test /");
            assert_eq!(lab.registry.all().len(), 2);
            assert_eq!(lab.pool.all().len(), 1);
            assert_eq!(lab.pool.all()[0].identity.instance, "second");
        };
        tokio::select! { () = reading => panic!("it was refused"), () = looking => {} }
    }
    drop(peer);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ask(&mut lab, "a.test", "/").await.text(), "first a.test /");
    let third = lab.serve_as(who("third"), [a(), b()].concat(), Tell("third"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(ask(&mut lab, "a.test", "/").await.text(), "third a.test /");
    drop(third);
}

pub(super) fn told(ended: ptth_client::serve::Ended) -> Option<Why> {
    match ended {
        ptth_client::serve::Ended::Told(why, _) => Some(why),
        _ => None,
    }
}

/// Our client doesn't dial again when it is replaced; another program does, and again, and finds the
/// place taken as long as whoever took it answers.
#[tokio::test(start_paused = true)]
async fn a_foreign_backend_that_was_replaced_does_not_push_out_the_one_that_came() {
    let foreign = |key: u8| Identity { key: Some(Key::Other([key; 32])), ..Identity::default() };
    let mut lab = Lab::with(|config| {
        config.routes = vec![any("a", "a.test")];
        config.routes[0].when_taken = ptth_server::config::WhenTaken::Replace;
    });
    let answered =
        |name| Function(move |_: Request<Body>| async move { Response::new(String::from(name)) });
    let first = lab.serve_as(foreign(1), a(), answered("first"));
    sleep(Duration::from_millis(1)).await;
    let second = lab.serve_as(foreign(2), a(), answered("second"));
    assert_eq!(told(first.await.unwrap()), Some(Why::Replaced));
    for _ in 0..20 {
        let again = lab.serve_as(foreign(1), a(), answered("first"));
        assert_eq!(told(again.await.unwrap()), Some(Why::Taken));
        assert_eq!(ask(&mut lab, "a.test", "/").await.text(), "second");
        sleep(Duration::from_secs(30)).await;
    }
    // A newcomer may.
    let third = lab.serve_as(foreign(3), a(), answered("third"));
    assert_eq!(told(second.await.unwrap()), Some(Why::Replaced));
    assert_eq!(ask(&mut lab, "a.test", "/").await.text(), "third");
    // After a minute without an attempt, so may the first.
    sleep(Duration::from_secs(61)).await;
    let _first = lab.serve_as(foreign(1), a(), answered("first"));
    assert_eq!(told(third.await.unwrap()), Some(Why::Replaced));
    assert_eq!(ask(&mut lab, "a.test", "/").await.text(), "first");
}
