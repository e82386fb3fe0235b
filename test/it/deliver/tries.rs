//! Order, retries, and when a request is given up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::RETRY_AFTER;
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource};
use ptth_server::lab::Policy;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::*;

/// The pauses double; the key and the id stay.
#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_with_the_same_key() {
    let mut hooks = Hooks::new();
    let (_guest, mut seen) = hooks.backend(&[503, 500, 429, 408, 200]).await;
    assert_eq!(hooks.post("hooks.test", "/x", b"same").await.status, 202);
    let mut before = next(&mut seen).await;
    let key = before.field("idempotency-key").to_owned();
    let id = before.field("2ptth-request-id").to_owned();
    assert!(!key.is_empty() && !id.is_empty());
    for least in [1, 2, 4, 8] {
        let again = next(&mut seen).await;
        assert_eq!(again.body, b"same");
        assert_eq!(
            (again.field("idempotency-key"), again.field("2ptth-request-id")),
            (&*key, &*id)
        );
        let pause = again.at - before.at;
        let most = Duration::from_millis(2000 * least + 100);
        assert!(pause >= Duration::from_secs(least) && pause < most, "{least}: {pause:?}");
        before = again;
    }
    hooks.until_empty().await;
    let counts = Counts { queued: 1, delivered: 1, retried: 4, ..Counts::default() };
    assert_eq!(hooks.counts(), counts);
}

/// An origin that says when, within reason.
#[tokio::test(start_paused = true)]
async fn retry_after_is_heeded_up_to_five_minutes() {
    for (value, least, most) in [("60", 60, 61), ("99999", 300, 301), ("soon", 1, 3)] {
        let mut hooks = Hooks::new();
        let mut busy = answer(503);
        busy.headers_mut().insert(RETRY_AFTER, value.parse().unwrap());
        let (_guest, mut seen) = hooks.scripted([busy]).await;
        hooks.post("hooks.test", "/", b"x").await;
        let first = next(&mut seen).await.at;
        let pause = (next(&mut seen).await.at - first).as_secs();
        assert!(pause >= least && pause < most, "{value}: {pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_refuses_is_delivered() {
    let mut hooks = Hooks::new();
    let (_guest, mut seen) = hooks.backend(&[400, 404, 302]).await;
    for path in ["/1", "/2", "/3", "/4"] {
        hooks.post("hooks.test", path, b"x").await;
        assert_eq!(next(&mut seen).await.path, path);
        hooks.until_empty().await;
    }
    assert_eq!(hooks.counts(), Counts { queued: 4, delivered: 4, ..Counts::default() });
}

/// A tunnel that breaks under a request is one failure; a backend that is away isn't any.
#[tokio::test(start_paused = true)]
async fn a_backend_that_dies_gets_the_request_again_when_it_is_back() {
    let mut hooks = Hooks::new();
    let stuck = service(|_: Request<Body>| async {
        std::future::pending::<()>().await;
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut config = hooks.room.client_config();
    config.tunnels = 1;
    let guest = Guest::start(&process(config), hooks.room.network(Road::default()), stuck);
    hooks.room.until_tunnels(1).await;
    hooks.post("hooks.test", "/x", b"x").await;
    sleep(Duration::from_secs(5)).await;
    drop(guest);
    eventually("the tunnel's end", hooks.room.until_tunnels(0)).await;
    // Hours, of which none counts as an attempt.
    sleep(Duration::from_secs(20 * 3600)).await;
    assert_eq!(hooks.counts().retried, 1);
    let (_guest, mut seen) = hooks.backend(&[]).await;
    assert_eq!(next(&mut seen).await.path, "/x");
}

#[tokio::test(start_paused = true)]
async fn requests_set_out_in_the_order_in_which_they_came() {
    let mut hooks = Hooks::new();
    let paths: Vec<_> = (0..40).map(|n| format!("/{n}")).collect();
    for path in &paths {
        hooks.post("hooks.test", path, b"x").await;
    }
    let (_guest, mut seen) = hooks.backend(&[]).await;
    for path in &paths {
        assert_eq!(next(&mut seen).await.path, *path);
    }
}

/// An origin that is slow meets eight at a time, and doesn't hold up another route's.
#[tokio::test(start_paused = true)]
async fn a_route_has_a_few_requests_under_way() {
    let mut hooks = Hooks::new();
    let at_work = Arc::new(AtomicUsize::new(0));
    let leave = Arc::new(Semaphore::new(0));
    let (working, gate) = (at_work.clone(), leave.clone());
    let slow = service(move |_: Request<Body>| {
        let (working, gate) = (working.clone(), gate.clone());
        async move {
            working.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.unwrap().forget();
            working.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let _guest = Guest::start(
        &process(hooks.room.client_config()),
        hooks.room.network(Road::default()),
        slow,
    );
    hooks.room.until_tunnels(2).await;
    for _ in 0..20 {
        assert_eq!(hooks.post("hooks.test", "/", b"x").await.status, 202);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(at_work.load(Ordering::Relaxed), 8);
    hooks.post("other.test", "/", b"x").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(at_work.load(Ordering::Relaxed), 9);
    leave.add_permits(21);
    hooks.until_empty().await;
    assert_eq!(hooks.counts().delivered, 21);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_fails_all_day_is_asked_all_day() {
    let mut hooks = Hooks::new();
    let (_guest, mut seen) = hooks.backend(&[500; 2000]).await;
    hooks.post("hooks.test", "/", b"x").await;
    let first = next(&mut seen).await.at;
    let mut last = first;
    while last.duration_since(first).as_secs() < 23 * 3600 {
        last = next(&mut seen).await.at;
    }
    assert_eq!((hooks.outbox().held().0, hooks.counts().dropped), (1, 0));
    hooks.until_empty().await;
    assert_eq!(first.elapsed().as_secs() / 3600, 24);
    let counts = hooks.counts();
    assert_eq!((counts.queued, counts.delivered, counts.dropped), (1, 0, 1));
    assert!((300..600).contains(&counts.retried), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_day_without_a_backend_a_request_is_given_up() {
    let mut hooks = Hooks::new();
    hooks.post("hooks.test", "/", b"x").await;
    sleep(Duration::from_secs(24 * 3600 - 1)).await;
    assert_eq!((hooks.outbox().held().0, hooks.counts().dropped), (1, 0));
    sleep(Duration::from_secs(12)).await;
    assert_eq!((hooks.outbox().held().0, hooks.counts().dropped), (0, 1));
}

/// What was acknowledged waits for a route as it waits for a backend; and what its route took, it owes, also
/// when it answers at once no more.
#[tokio::test(start_paused = true)]
async fn a_route_that_is_absent_for_a_while_loses_nothing() {
    let mut hooks = Hooks::new();
    hooks.post("hooks.test", "/gone", b"x").await;
    hooks.post("other.test", "/kept", b"x").await;
    reload(&hooks, |config| {
        config.routes.remove(0);
        config.routes[0].respond = None;
    });
    let (_guest, mut seen) = hooks.backend(&[]).await;
    assert_eq!(next(&mut seen).await.path, "/kept");
    sleep(Duration::from_secs(11)).await;
    assert_eq!((hooks.outbox().held().0, hooks.counts().dropped), (1, 0));
    // Back under another label, behind an alias.
    reload(&hooks, |config| {
        config.routes[0].name = "renamed".to_owned();
        config.routes[0].hosts.insert(0, "alias.test".parse().unwrap());
    });
    assert_eq!(next(&mut seen).await.path, "/gone");
    hooks.until_empty().await;
    assert_eq!(hooks.counts().dropped, 0);
}

/// Which backend gets what was kept is decided by its host and path and the policy of that moment: labels that
/// two routes exchange change nothing, and hosts that they exchange take what was kept along.
#[tokio::test(start_paused = true)]
async fn a_kept_request_goes_where_its_host_leads_and_to_no_other_tenant() {
    for exchanged in ["names", "hosts"] {
        let mut hooks = Hooks::new();
        let other = Token::generate();
        let owners = |hooks: &Hooks| [hooks.room.token.clone(), other.clone()];
        let allow = |tokens: [Token; 2], config: &mut Config| {
            for (route, token) in config.routes.iter_mut().zip(tokens) {
                route.allow = Some(vec![ptth_test::routes::key(&token)]);
            }
        };
        reload(&hooks, |config| allow(owners(&hooks), config));
        for n in 0..5 {
            hooks.post("hooks.test", &format!("/{n}"), b"x").await;
        }
        reload(&hooks, |config| {
            allow(owners(&hooks), config);
            let [one, two, ..] = &mut config.routes[..] else { panic!("two routes") };
            if exchanged == "names" {
                std::mem::swap(&mut one.name, &mut two.name);
            } else {
                std::mem::swap(&mut one.hosts, &mut two.hosts);
            }
        });
        // The one of the first token, whose host is `hooks.test` unless the hosts were exchanged.
        let (_guest, mut seen) = hooks.backend(&[]).await;
        if exchanged == "names" {
            for n in 0..5 {
                assert_eq!(next(&mut seen).await.path, format!("/{n}"));
            }
            hooks.until_empty().await;
        } else {
            sleep(Duration::from_secs(60)).await;
            assert!(seen.try_recv().is_err(), "it is another tenant's now");
            assert_eq!(hooks.outbox().held().0, 5);
        }
    }
}

/// Three hundred requests of one sender to a path that hangs don't keep another sender's waiting.
#[tokio::test(start_paused = true)]
async fn a_path_that_hangs_holds_up_no_other_sender() {
    let mut hooks = Hooks::new();
    let (tell, mut seen) = unbounded_channel();
    let origin = service(move |request: Request<Body>| {
        let tell = tell.clone();
        async move {
            let hangs = request.uri().path() == "/hangs";
            let _ = tell.send(Seen::read(request).await);
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(answer(200))
        }
    });
    let mut config = hooks.room.client_config();
    config.tunnels = 1;
    let network = hooks.room.network(Road::default());
    let _guest = Guest::start(&process(config), network, origin);
    eventually("the tunnel", hooks.room.until_tunnels(1)).await;
    let flood = hooks.address();
    for _ in 0..240 {
        assert_eq!(hooks.post_from(flood, "hooks.test", "/hangs", b"x").await.status, 202);
    }
    let begun = Instant::now();
    hooks.post("hooks.test", "/fine", b"x").await;
    while next(&mut seen).await.path != "/fine" {}
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// What waits for a backend that is away holds up nothing of another backend, though both came while one route
/// had them.
#[tokio::test(start_paused = true)]
async fn what_waits_for_one_backend_holds_up_no_other() {
    // Those in front get another route, or the one behind them.
    for moved in ["/away", "/fine"] {
        let mut hooks = Hooks::new();
        for n in 0..12 {
            hooks.post("hooks.test", &format!("/away/{n}"), b"x").await;
        }
        hooks.post("hooks.test", "/fine", b"x").await;
        reload(&hooks, |config| {
            let mut new = config.routes[0].clone();
            new.name = "new".to_owned();
            new.path = moved.into();
            let other = Some(vec![ptth_test::routes::key(&Token::generate())]);
            if moved == "/away" {
                new.allow = other;
                config.routes.push(new);
            } else {
                config.routes[0].allow = other;
                config.routes.insert(0, new);
            }
        });
        let (_guest, mut seen) = hooks.backend(&[]).await;
        let begun = Instant::now();
        assert_eq!(next(&mut seen).await.path, "/fine");
        assert!(begun.elapsed() < Duration::from_secs(31), "{moved}: {:?}", begun.elapsed());
        assert_eq!(hooks.outbox().held().0, 12);
    }
}

/// The prefix that stays here is the one of the route by which it goes out, at each attempt.
#[tokio::test(start_paused = true)]
async fn a_prefix_is_stripped_as_the_route_says_when_it_is_delivered() {
    let mut hooks = Hooks::new();
    let strip = |path: &'static str| {
        move |config: &mut Config| {
            config.routes[0].path = path.into();
            config.routes[0].strip = true;
        }
    };
    reload(&hooks, strip("/in"));
    hooks.post("hooks.test", "/in/side/x", b"x").await;
    reload(&hooks, strip("/in/side"));
    let (_guest, mut seen) = hooks.backend(&[503]).await;
    assert_eq!(next(&mut seen).await.path, "/x");
    reload(&hooks, |config| config.routes[0].name = "plain again".to_owned());
    assert_eq!(next(&mut seen).await.path, "/in/side/x");
    hooks.until_empty().await;
}

/// Puts the routes in force that there were at first, changed.
fn reload(hooks: &Hooks, change: impl FnOnce(&mut Config)) {
    let registry = &hooks.room.shard.registry;
    let known = &hooks.room.shard.tls.known;
    let names = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let mut config = Config::new(names, Admission::make());
    configure(&mut config, LIMIT);
    change(&mut config);
    let policy = Policy::new(&config, known, 1, Some(&registry.policy()));
    registry.swap(policy);
}
