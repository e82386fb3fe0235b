//! Our own client at our own gateway's door B: what holds by ALPN holds by HTTP, too.

use std::sync::Arc;
use std::time::Duration;

use ptth_client::config::{Authorization, Config as ClientConfig, Value, Via};
use ptth_client::demo::Demo;
use ptth_client::{Process, Stopped};
use ptth_link::token::Token;
use ptth_server::lab::Tunnel;
use ptth_test::fake::{Tls, splice};
use ptth_test::room::{Guest, Pipes, Room, process};
use ptth_test::wire::{Road, Weather};
use ptth_test::{Fake, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::two_routes;

const BOTH: [Via; 2] = [Via::Upgrade, Via::Connect];
/// How soon after the gateway its client is there, and how soon a silence is noticed.
const BACK: Duration = Duration::from_secs(2);
const NOTICED: Duration = Duration::from_secs(25);

fn config(room: &Room, via: Via, secret: &str) -> ClientConfig {
    let mut config = room.client_config();
    config.token = None;
    config.via = via;
    config.authorization = Some(Authorization::Fixed(Value::parse(secret).unwrap()));
    config
}

fn start(room: &Room, network: &Pipes, via: Via, secret: &str) -> (Process, Guest) {
    let process = process(config(room, via, secret));
    let guest = Guest::start(&process, network.clone(), Demo);
    (process, guest)
}

async fn get(room: &Room, network: &Pipes, host: &str) -> String {
    let mut stream = room.visit(network, &[b"http/1.1"]).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_registered_serves_its_route_and_leaves_in_order() {
    for via in BOTH {
        let room = Room::with(two_routes);
        let network = room.network(Road::default());
        let (_, guest) = start(&room, &network, via, "Bearer blog-secret");
        room.until_tunnels(2).await;
        let answer = get(&room, &network, "blog.example.test").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("possible"), "{answer}");
        let other = get(&room, &network, "shop.example.test").await;
        assert!(other.starts_with("HTTP/1.1 502 "), "{other}");
        let mut names: Vec<_> = room.live().iter().map(|t| t.identity.name.clone()).collect();
        names.dedup();
        assert_eq!(names.len(), 2, "{names:?}");
        guest.stop();
        soon("an orderly end", guest.ended()).await.expect("an orderly end");
        room.until_tunnels(0).await;
        let answer = get(&room, &network, "blog.example.test").await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{via:?} {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_ends_and_says_why() {
    type Case = (&'static str, Option<&'static str>, &'static str);
    let cases: [Case; 3] = [
        ("wrong", None, "401 Unauthorized"),
        ("blog-secret", Some("shop.example.test"), "403 Forbidden"),
        ("shop-secret", None, "409 Conflict"),
    ];
    for via in BOTH {
        for (secret, host, words) in cases {
            let room = Room::with(two_routes);
            let network = room.network(Road::default());
            let first = process(config(&room, via, "shop-secret"));
            let _first = Guest::start(&first, network.clone(), Demo);
            let served = async {
                while !get(&room, &network, "shop.example.test").await.starts_with("HTTP/1.1 200") {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            soon("the first", served).await;
            let mut config = config(&room, via, secret);
            config.asked_host = host.map(str::to_owned);
            let guest = Guest::start(&process(config), network.clone(), Demo);
            let stopped = soon(words, guest.ended()).await.expect_err(words);
            assert!(matches!(stopped, Stopped::Refused(..)), "{via:?} {stopped:?}");
            let said = stopped.to_string();
            assert!(said.contains(words) && !said.contains("secret"), "{via:?}: {said}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_registers_is_back_within_two_seconds_of_its_gateway() {
    for via in BOTH {
        let room = Room::with(two_routes);
        let network = room.network(Road::default());
        network.set(Weather::Cut);
        let _guest = start(&room, &network, via, "blog-secret");
        for weather in [Weather::Cut, Weather::Silent, Weather::Cut] {
            network.set(weather);
            sleep(Duration::from_secs(200)).await;
            network.set(Weather::Fair);
            let back = Instant::now();
            room.until_tunnels(2).await;
            assert!(back.elapsed() <= BACK, "{via:?} {weather:?}: {:?}", back.elapsed());
            sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_ends_of_a_registered_tunnel_notice_silence_within_25_seconds() {
    for via in BOTH {
        let room = Room::with(two_routes);
        let network = room.network(Road::default());
        let _guest = start(&room, &network, via, "blog-secret");
        room.until_tunnels(2).await;
        network.set(Weather::Silent);
        let silent = Instant::now();
        room.until_tunnels(0).await;
        assert!(silent.elapsed() <= NOTICED, "{via:?} {:?}", silent.elapsed());
        sleep(NOTICED.saturating_sub(silent.elapsed())).await;
        network.set(Weather::Fair);
        let back = Instant::now();
        room.until_tunnels(2).await;
        assert!(back.elapsed() <= BACK, "{via:?} {:?}", back.elapsed());
    }
}

/// After a change of network the dead tunnels aren't waited for.
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_registers_again_replaces_the_old_at_once() {
    for via in BOTH {
        let room = Room::with(two_routes);
        let (old, new) = (room.network(Road::default()), room.network(Road::default()));
        let (process, _gone) = start(&room, &old, via, "blog-secret");
        room.until_tunnels(2).await;
        let before: Vec<Arc<Tunnel>> = room.live();
        old.set(Weather::Silent);
        let begun = Instant::now();
        let _come = Guest::start(&process, new.clone(), Demo);
        let pool = room.pool();
        let replaced = pool.until(|_| before.iter().all(|tunnel| tunnel.is_draining()));
        soon("the replacement", replaced).await;
        room.until_tunnels(2).await;
        assert!(begun.elapsed() < Duration::from_millis(100), "{via:?} {:?}", begun.elapsed());
        timeout(Duration::from_secs(4), pool.until(|all| all.len() == 2)).await.unwrap();
    }
}

/// Behind a front that ends TLS and knows HTTP/1.1 alone, with a proxy on the way to it, and all by
/// itself.
#[tokio::test(start_paused = true)]
async fn behind_a_front_the_client_finds_the_door_by_itself() {
    let room = Arc::new(Room::with(two_routes));
    let network = room.network(Road::default());
    let (fake, front) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    let (gateway, pipes, tls) = (room.clone(), network.clone(), front.clone());
    fake.put("proxy.test:3128", move |mut io, _| {
        let (gateway, pipes, tls) = (gateway.clone(), pipes.clone(), tls.clone());
        async move {
            let head = ptth_test::origin::read_head(&mut io).await;
            assert!(head.starts_with("CONNECT example.test:443 "), "{head}");
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let Ok(near) = tls.accept(io).await else { return };
            splice(near, gateway.visit(&pipes, &[b"http/1.1"]).await).await;
        }
    });
    let mut config = config(&room, Via::Auto, "blog-secret");
    config.trust = ptth_client::config::Trust::Pin(front.pin);
    config.token = Some(Token::generate());
    config.proxies = ptth_client::config::Proxies::new("proxy.test:3128", "", "").unwrap();
    let guest = Guest::start(&process(config), fake.clone(), Demo);
    room.until_tunnels(2).await;
    let answer = get(&room, &network, "blog.example.test").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    guest.stop();
    soon("an orderly end", guest.ended()).await.expect("an orderly end");
}
