//! The configuration changes while everything runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Request, Response};
use ptth_client::{Body, Stopped};
use ptth_link::token::Token;
use ptth_test::lab::Function;
use ptth_test::routes::*;
use ptth_test::{Backend, Folder, H2, soon};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A backend that answers when it may; and how often it was asked.
fn slow(changing: &Changing, token: &Token) -> (Backend, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (leave, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (leave.clone(), asked.clone());
    let answer = move |_: Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        let wait = wait.clone();
        async move {
            wait.acquire().await.expect("it stays open").forget();
            Response::new(String::from("done"))
        }
    };
    (Backend::start(client(&changing.gateway, token), Function(answer)), leave, asked)
}

async fn until_asked(asked: &AtomicUsize) {
    soon("the request", async {
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn ids(changing: &Changing) -> Vec<String> {
    changing.gateway.registry.all().iter().map(|tunnel| tunnel.id.to_string()).collect()
}

/// Routes and credentials come and go around a tunnel that is still allowed: it lives on, and the
/// exchange on it.
#[tokio::test]
async fn a_tunnel_that_is_still_allowed_lives_on_with_what_runs() {
    let (a, b) = (Token::generate(), Token::generate());
    let mut changing =
        Changing::start(|config| config.routes = vec![route("a", &["a.test"], &[&a])]);
    let (_backend, leave, asked) = slow(&changing, &a);
    until_serving(&changing.gateway, "a.test", 1).await;
    let before = ids(&changing);
    let visitor = Arc::new(H2::connect(&changing.gateway).await);
    let mut running = JoinSet::new();
    let asking = visitor.clone();
    running.spawn(async move { get_on(&asking, ("a.test", "/"), &[]).await });
    until_asked(&asked).await;
    changing
        .change(|config| {
            // Another credential beside it, another route before it, another host for it.
            let mut hosts = route("a", &["a.test", "also.test"], &[&b, &a]);
            hosts.no_backend = ptth_server::config::NoBackend::Status(http::StatusCode::NOT_FOUND);
            config.routes = vec![route("b", &["b.test"], &[&b]), hosts];
        })
        .await;
    assert_eq!(ids(&changing), before);
    leave.add_permits(2);
    let answer = soon("the answer", running.join_next()).await.unwrap().unwrap();
    assert_eq!((answer.text(), answer.complete), ("done".to_owned(), true));
    assert_eq!(get_on(&visitor, ("also.test", "/"), &[]).await.text(), "done");
    let _b = backend(&changing.gateway, &b, "b");
    until_serving(&changing.gateway, "b.test", 1).await;
    assert_eq!(get(&changing.gateway, "b.test", "/").await.1, "b b.test /");
}

/// One that isn't allowed any more finishes what it does, gets nothing new, and is told.
#[tokio::test]
async fn a_tunnel_whose_grant_was_withdrawn_is_drained_and_told() {
    let (a, b) = (Token::generate(), Token::generate());
    let mut changing = Changing::start(|config| {
        config.routes = vec![route("a", &["a.test"], &[&a]), route("b", &["b.test"], &[&b])];
    });
    let (goes, leave, asked) = slow(&changing, &a);
    let _stays = backend(&changing.gateway, &b, "b");
    until_serving(&changing.gateway, "a.test", 1).await;
    until_serving(&changing.gateway, "b.test", 1).await;
    let visitor = Arc::new(H2::connect(&changing.gateway).await);
    let mut running = JoinSet::new();
    let asking = visitor.clone();
    running.spawn(async move { get_on(&asking, ("a.test", "/"), &[]).await });
    until_asked(&asked).await;
    changing.change(|config| config.routes[0].allow = Some(vec![key(&Token::generate())])).await;
    assert_eq!(get_on(&visitor, ("a.test", "/"), &[]).await.status, 502);
    assert_eq!(get_on(&visitor, ("b.test", "/"), &[]).await.status, 200);
    leave.add_permits(1);
    let answer = soon("the answer", running.join_next()).await.unwrap().unwrap();
    assert_eq!((answer.text(), answer.complete), ("done".to_owned(), true));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // It dials again to hear the verdict: nobody knows its key.
    let stopped = goes.ended().await.expect_err("a refusal");
    assert!(matches!(stopped, Stopped::Refused(..)), "{stopped:?}");
}

/// A key that moves from one route to another serves the other, without anybody touching the client.
#[tokio::test]
async fn a_key_that_moves_to_another_route_takes_its_backend_there() {
    let (a, b) = (Token::generate(), Token::generate());
    let mut changing = Changing::start(|config| {
        config.routes = vec![route("a", &["a.test"], &[&a]), route("b", &["b.test"], &[&b])];
    });
    let _backend = backend(&changing.gateway, &a, "moving");
    until_serving(&changing.gateway, "a.test", 1).await;
    changing
        .change(|config| {
            config.routes[0].allow = Some(vec![key(&b)]);
            config.routes[1].allow = Some(vec![key(&a)]);
        })
        .await;
    until_serving(&changing.gateway, "b.test", 1).await;
    assert_eq!(get(&changing.gateway, "b.test", "/").await.1, "moving b.test /");
    assert_eq!(get(&changing.gateway, "a.test", "/").await.0, 502);
}

/// What can't be read changes nothing.
#[tokio::test]
async fn a_bad_configuration_is_refused_whole_and_the_old_one_stays() {
    let a = Token::generate();
    let mut changing =
        Changing::start(|config| config.routes = vec![route("a", &["a.test"], &[&a])]);
    let _backend = backend(&changing.gateway, &a, "a");
    until_serving(&changing.gateway, "a.test", 1).await;
    let (before, policy) = (ids(&changing), changing.gateway.registry.policy());
    changing.spoil().await;
    assert!(Arc::ptr_eq(&policy, &changing.gateway.registry.policy()));
    assert_eq!(ids(&changing), before);
    assert_eq!(get(&changing.gateway, "a.test", "/").await.1, "a a.test /");
    changing.change(|config| config.routes.push(route("b", &["b.test"], &[&a]))).await;
    assert_eq!(ids(&changing), before);
}

/// From a real file and a file of keys that it names, with all that editors do to them.
#[tokio::test]
async fn changed_files_are_applied_and_bad_ones_are_not() {
    let folder = Folder::new();
    let (a, b) = (Token::generate(), Token::generate());
    let route = |name: &str| {
        format!(
            "[[route]]\nname = '{name}'\nhosts = ['{name}.test']\n[[route.allow]]\nkey_file = 'keys'\n"
        )
    };
    let text = |routes: &str| format!("listen = '127.0.0.1:0'\nself_signed = true\n{routes}");
    folder.write("keys", a.public().to_string());
    let file = folder.write("2ptth.toml", text(&route("a")));
    let filed = Filed::start(&file);
    let gateway = &filed.gateway;
    let _a = backend(gateway, &a, "a");
    until_serving(gateway, "a.test", 1).await;
    let before: Vec<_> = gateway.registry.all().iter().map(|tunnel| tunnel.id).collect();
    let same = || {
        let now = gateway.registry.all();
        before.iter().all(|id| now.iter().any(|it| it.id == *id && !it.is_draining()))
    };
    folder.write("keys", format!("\u{feff}# two\r\n{}\r\n\r\n{}\r\n", a.public(), b.public()));
    filed.reread().await;
    let b_backend = backend(gateway, &b, "b");
    until_serving(gateway, "a.test", 2).await;
    assert!(same());
    let crlf = text(&format!("{}{}", route("b"), route("a"))).replace('\n', "\r\n");
    folder.write("2ptth.toml", format!("\u{feff}{crlf}\r\n"));
    filed.reread().await;
    assert!(same());
    assert_eq!(get(gateway, "b.test", "/").await.0, 502);
    let policy = gateway.registry.policy();
    let twice = text(&format!("{0}{0}", route("a")));
    let bad = ["", "[[route]]\n", "listen = 3 weeks", &twice, "\u{0}"];
    for bad in bad {
        folder.write("2ptth.toml", bad);
        filed.reread().await;
        assert!(Arc::ptr_eq(&policy, &gateway.registry.policy()), "{bad:?}");
    }
    folder.write("2ptth.toml", text(&route("a")));
    folder.write("keys", "garbage");
    filed.reread().await;
    assert!(Arc::ptr_eq(&policy, &gateway.registry.policy()));
    folder.write("keys", format!("{}\n", a.public()));
    filed.reread().await;
    b_backend.ended().await.expect_err("its key was withdrawn");
    assert!(same());
    assert_eq!(get(gateway, "a.test", "/").await.1, "a a.test /");
    assert_eq!(get(gateway, "b.test", "/").await.0, 404);
}

/// A volume of a Kubernetes ConfigMap: each file is a link into `..data`, which is a link to a folder. The kubelet writes
/// a new folder, replaces the one link, and removes the old folder.
#[cfg(unix)]
#[tokio::test]
async fn a_config_map_that_is_replaced_is_noticed_without_an_order() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let (a, b) = (Token::generate(), Token::generate());
    let fill = |version: &str, token: &Token, host: &str| {
        let of = |name: &str| folder.path(&format!("{version}/{name}"));
        std::fs::create_dir(folder.path(version)).unwrap();
        std::fs::write(of("keys"), token.public().to_string()).unwrap();
        let text = format!("[[route]]\nhosts = ['{host}']\n[[route.allow]]\nkey_file = 'keys'\n");
        std::fs::write(
            of("2ptth.toml"),
            format!("listen = '127.0.0.1:0'\nself_signed = true\n{text}"),
        )
        .unwrap();
    };
    fill("..1", &a, "a.test");
    symlink("..1", folder.path("..data")).unwrap();
    for name in ["2ptth.toml", "keys"] {
        symlink(format!("..data/{name}"), folder.path(name)).unwrap();
    }
    let filed = Filed::start(&folder.path("2ptth.toml"));
    let _a = backend(&filed.gateway, &a, "a");
    until_serving(&filed.gateway, "a.test", 1).await;
    fill("..2", &b, "b.test");
    symlink("..2", folder.path("..data_tmp")).unwrap();
    std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    std::fs::remove_dir_all(folder.path("..1")).unwrap();
    let policy = filed.gateway.registry.policy();
    soon("the new configuration", async {
        while Arc::ptr_eq(&policy, &filed.gateway.registry.policy()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let _b = backend(&filed.gateway, &b, "b");
    until_serving(&filed.gateway, "b.test", 1).await;
    assert_eq!(get(&filed.gateway, "b.test", "/").await.1, "b b.test /");
    assert_eq!(get(&filed.gateway, "a.test", "/").await.0, 404);
}

/// Two names under load, while everything around them is reloaded again and again: no request fails,
/// and none is answered by the other.
#[tokio::test]
async fn two_names_never_see_each_others_requests_while_the_table_changes() {
    let (a, b) = (Token::generate(), Token::generate());
    let mut changing = Changing::start(|config| {
        config.routes = vec![route("a", &["a.test"], &[&a]), route("b", &["*.b.test"], &[&b])];
        config.names = Some(names(&[(&a, None)]));
    });
    let gateway = &changing.gateway;
    let _a = backend(gateway, &a, "a");
    let _b = backend(gateway, &b, "b");
    let mut bob = client(gateway, &a);
    bob.name = Some("bob".to_owned());
    let _bob = Backend::start(bob, Tell("bob"));
    let hosts = [("a", "a.test"), ("b", "x.b.test"), ("bob", "bob.tunnel.example.test")];
    for (_, host) in hosts {
        until_serving(gateway, host, 1).await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let mut load = JoinSet::new();
    for (n, (name, host)) in hosts.into_iter().enumerate() {
        let visitor = H2::connect(gateway).await;
        let (over, counts) = (over.clone(), counts.clone());
        load.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let answer = get_on(&visitor, (host, "/"), &[]).await;
                assert_eq!(answer.text(), format!("{name} {host} /"), "{}", answer.status);
                counts[n].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let enough = || counts.iter().all(|count| count.load(Ordering::Relaxed) >= 20);
    let mut n = 0;
    while n < 20 || !(enough() || load.is_empty()) {
        n += 1;
        changing
            .change(|config| {
                config.routes.truncate(2);
                config.routes.reverse();
                config.routes.push(route("c", &[&format!("r{n}.test")], &[&a, &b]));
            })
            .await;
        // Whoever found something else than his own ended with a panic.
        if let Some(done) = load.try_join_next() {
            done.expect("the right answers");
        }
    }
    over.store(true, Ordering::Relaxed);
    soon("the load", load.join_all()).await;
}
