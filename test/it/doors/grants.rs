//! What a credential was found good for is what its backend serves, and nothing wider.

use std::sync::Arc;

use ptth_server::config::{NameGrant, Names, Route, WhenTaken};
use ptth_server::lab::Credential;
use ptth_test::routes::{Changing, get};
use ptth_test::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::registration::{exchange, register};
use super::{bearer, credential, knock, registration};

/// An authorizer that says yes where each `2ptth-host` is one of these, and names the part of the Authorization
/// before its first `-` as the subject.
async fn authorizer(good: &'static [&'static str]) -> (Arc<dyn Credential>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut running = JoinSet::new();
    running.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.expect("a head"));
            }
            let head = String::from_utf8(head).expect("text");
            let field = |name: &str| {
                let lines = head.lines().filter_map(move |line| line.split_once(": "));
                let fields = lines.filter(|(it, _)| it.eq_ignore_ascii_case(name));
                fields.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
            };
            let yes = field("2ptth-host").iter().all(|host| good.contains(&host.as_str()));
            let status = if yes { "200 OK" } else { "403 Forbidden" };
            let shown = field("authorization").concat();
            let subject = shown.split('-').next().unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 {status}\r\n2ptth-subject: {subject}\r\nContent-Length: 0\r\n\r\n"
            );
            socket.write_all(answer.as_bytes()).await.expect("it is heard");
        }
    });
    (credential(&format!("external = {{ url = \"http://{address}/\" }}")), running)
}

fn hosts(names: &[&str]) -> Vec<ptth_server::lab::HostPattern> {
    names.iter().map(|name| name.parse().expect("a host")).collect()
}

/// Asked about one host of a route, an authorizer gives that one; of a wildcard the one host that was named.
/// A host that the route gets by a reload was never asked about.
#[tokio::test]
async fn an_authorizer_grants_the_hosts_that_it_was_asked_about() {
    let (external, _running) = authorizer(&["e1.test", "t1.w.test"]).await;
    let mut changing = Changing::start(|config| {
        let mut one = Route::new("one", hosts(&["e1.test", "e2.test"]));
        one.allow = Some(vec![external.clone()]);
        let mut wide = Route::new("wide", hosts(&["*.w.test"]));
        wide.allow = Some(vec![external]);
        config.routes = vec![one, wide];
    });
    let gateway = &changing.gateway;
    let (fields, mut e1) = register(gateway, "https%3A%2F%2Fe1.test", "secret").await;
    assert_eq!(fields["2ptth-url"], "https://e1.test:8443/");
    let (fields, mut t1) = register(gateway, "https%3A%2F%2Ft1.w.test", "secret").await;
    assert_eq!(fields["2ptth-url"], "https://t1.w.test:8443/");
    gateway.until_registered(2).await;
    assert_eq!(exchange(gateway, "e1.test", &mut e1).await, "/hello");
    assert_eq!(exchange(gateway, "T1.w.test:443", &mut t1).await, "/hello");
    for host in ["e2.test", "bank.w.test", "x.t1.w.test"] {
        assert_eq!(get(gateway, host, "/").await.0, 502, "{host}");
    }
    changing
        .change(|config| {
            config.routes[0].name = "renamed".to_owned();
            config.routes[0].hosts = hosts(&["e3.test", "e1.test"]);
            config.routes.swap(0, 1);
        })
        .await;
    let gateway = &changing.gateway;
    assert_eq!(exchange(gateway, "e1.test", &mut e1).await, "/hello");
    assert_eq!(exchange(gateway, "t1.w.test", &mut t1).await, "/hello");
    assert_eq!(get(gateway, "e3.test", "/").await.0, 502, "nobody was asked about it");
    drop(t1);
    gateway.until_registered(1).await;
    assert_eq!(get(gateway, "t1.w.test", "/").await.0, 502);
}

/// Two routes that exchange their labels keep their backends, and two that exchange their hosts lose them.
#[tokio::test]
async fn a_reload_gives_no_backend_the_hosts_of_another() {
    let mut changing = Changing::start(|config| {
        config.routes = ["a", "b"]
            .map(|name| {
                let mut route = Route::new(name, hosts(&[&format!("{name}.test")]));
                route.allow = Some(vec![bearer(&format!("{name}-secret"))]);
                route
            })
            .into();
    });
    let (_, mut a) = register(&changing.gateway, "https%3A%2F%2Fa.test", "a-secret").await;
    let (_, mut b) = register(&changing.gateway, "https%3A%2F%2Fb.test", "b-secret").await;
    changing.gateway.until_registered(2).await;
    let exchange_names = |config: &mut ptth_server::config::Config| {
        let names = ["b", "a"].map(str::to_owned);
        config.routes.iter_mut().zip(names).for_each(|(route, name)| route.name = name);
    };
    changing.change(exchange_names).await;
    assert_eq!(exchange(&changing.gateway, "a.test", &mut a).await, "/hello");
    assert_eq!(exchange(&changing.gateway, "b.test", &mut b).await, "/hello");
    // A host more for the same credential is served at once, since the configuration says so.
    changing.change(|config| config.routes[0].hosts.insert(0, "alias.test".parse().unwrap())).await;
    assert_eq!(exchange(&changing.gateway, "alias.test", &mut a).await, "/hello");
    changing
        .change(|config| {
            config.routes[0].hosts = hosts(&["b.test"]);
            config.routes[1].hosts = hosts(&["a.test"]);
        })
        .await;
    for host in ["a.test", "b.test"] {
        assert_eq!(get(&changing.gateway, host, "/").await.0, 502, "{host}");
    }
}

/// Another principal of the same authorizer takes nobody's place by its name.
#[tokio::test]
async fn principals_of_one_authorizer_are_different_backends() {
    let (external, _running) = authorizer(&["shop.test"]).await;
    let changing = Changing::start(|config| {
        let mut shop = Route::new("shop", hosts(&["shop.test"]));
        shop.allow = Some(vec![external]);
        shop.when_taken = WhenTaken::Reject;
        config.routes = vec![shop];
    });
    let gateway = &changing.gateway;
    let list = "https%3A%2F%2Fshop.test";
    let named =
        |secret: &str| format!("Authorization: Bearer {secret}\r\n2ptth-instance: laptop.0\r\n");
    let mut first = knock(gateway).await;
    first.send(registration(list, &named("ann-1"))).await;
    assert_eq!(soon("an answer", first.head()).await.0, 101);
    let mut first = super::answering(first).await;
    gateway.until_registered(1).await;
    let mut asks = async |secret: &str| {
        let mut other = knock(gateway).await;
        other.send(registration(list, &named(secret))).await;
        let serving = async { while first.next().await.is_some() {} };
        tokio::select! {
            (status, _) = other.head() => status,
            () = serving => panic!("the first backend lost its place"),
        }
    };
    assert_eq!(asks("bob-1").await, 409, "another principal under the same name");
    assert_eq!(asks("ann-2").await, 101, "the same one with a new token");
}

/// A name that one entry lists isn't granted by another one that lists none.
#[tokio::test]
async fn a_listed_name_is_reserved() {
    let changing = Changing::start(|config| {
        let listed = NameGrant { names: Some(vec!["bob".to_owned()]), credential: bearer("bob-1") };
        let any = NameGrant { names: None, credential: bearer("any-1") };
        config.names = Some(Names::new("names.test", vec![any, listed]));
    });
    for (name, secret, expected) in
        [("bob", "any-1", 403), ("ann", "any-1", 101), ("bob", "bob-1", 101)]
    {
        let mut door = knock(&changing.gateway).await;
        let fields = format!("Authorization: Bearer {secret}\r\n2ptth-name: {name}\r\n");
        door.send(registration("*", &fields)).await;
        assert_eq!(soon("an answer", door.head()).await.0, expected, "{name} {secret}");
    }
}
