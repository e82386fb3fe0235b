//! A network that goes silent, without a FIN; and time that passes. The clock is paused: 25 s cost nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use ptth_client::Body;
use ptth_client::demo::Demo;
use ptth_link::shutdown::Phase;
use ptth_server::lab::Tunnel;
use ptth_test::room::{Guest, Pipes, Room, process};
use ptth_test::service::service;
use ptth_test::wire::{Road, Weather};
use ptth_test::{Chunks, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// After this both ends know, and nobody waits any longer.
const NOTICED: Duration = Duration::from_secs(25);

/// Asks over HTTP/1.1 and reads to the end.
async fn get(room: &Room, network: &Pipes, path: &str) -> String {
    let mut stream = room.visit(network, &[b"http/1.1"]).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests in flight, before their response's head and in the midst of its body.
#[tokio::test(start_paused = true)]
async fn both_ends_notice_silence_within_25_seconds_and_no_request_hangs() {
    let room = Room::new();
    let (near, far) = (room.network(Road::default()), room.network(Road::default()));
    let (begun, mut begins) = mpsc::unbounded_channel();
    let never = service(move |request: Request<Body>| {
        let begun = begun.clone();
        async move {
            let _ = begun.send(());
            if request.uri().path() == "/head" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Chunks::of([]).endless()))
        }
    });
    let backend = Guest::start(&process(room.client_config()), far.clone(), never);
    room.until_tunnels(2).await;
    let mut asking = JoinSet::new();
    for path in ["/head", "/head", "/body", "/body"] {
        let mut stream = room.visit(&near, &[b"http/1.1"]).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        asking.spawn(async move {
            let mut answer = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(count) = stream.read(&mut chunk).await {
                answer.extend_from_slice(&chunk[..count]);
                let text = String::from_utf8_lossy(&answer);
                let ended = text.contains("Request id: ") && text.ends_with('\n');
                if count == 0 || ended {
                    break;
                }
            }
            (path, String::from_utf8_lossy(&answer).into_owned())
        });
        begins.recv().await.unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    far.set(Weather::Silent);
    let silent = Instant::now();
    while let Some(done) = asking.join_next().await {
        let (path, answer) = done.unwrap();
        assert!(silent.elapsed() <= NOTICED, "{path} after {:?}", silent.elapsed());
        match path {
            "/head" => assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}"),
            _ => {
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                assert!(!answer.contains("\r\n0\r\n"), "cut, not complete: {answer}");
            }
        }
    }
    room.until_tunnels(0).await;
    assert!(silent.elapsed() <= NOTICED, "{:?}", silent.elapsed());
    // The backend noticed too: once the network is back, so is it, without anybody's help.
    sleep(NOTICED.saturating_sub(silent.elapsed())).await;
    far.set(Weather::Fair);
    let back = Instant::now();
    room.until_tunnels(2).await;
    assert!(back.elapsed() <= Duration::from_secs(2), "{:?}", back.elapsed());
    drop(backend);
}

/// Who is only slow isn't dead.
#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_outlives_a_silence_shorter_than_two_pings() {
    let room = Room::new();
    let (near, far) = (room.network(Road::default()), room.network(Road::default()));
    let _backend = Guest::start(&process(room.client_config()), far.clone(), Demo);
    room.until_tunnels(2).await;
    let ids: Vec<_> = room.live().iter().map(|tunnel| tunnel.id).collect();
    for _ in 0..20 {
        far.set(Weather::Silent);
        sleep(Duration::from_millis(9_500)).await;
        far.set(Weather::Fair);
        sleep(Duration::from_secs(11)).await;
    }
    let now: Vec<_> = room.live().iter().map(|tunnel| tunnel.id).collect();
    assert_eq!(ids, now, "the same tunnels");
    assert!(get(&room, &near, "/").await.contains("Transmission is possible!"));
}

/// The same process dials anew while its old tunnels are still thought to be alive.
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_comes_again_replaces_the_old_at_once() {
    let room = Room::new();
    let (near, old, new) = (
        room.network(Road::default()),
        room.network(Road::default()),
        room.network(Road::default()),
    );
    let process = process(room.client_config());
    let _gone = Guest::start(&process, old.clone(), Demo);
    room.until_tunnels(2).await;
    let before: Vec<Arc<Tunnel>> = room.live();
    old.set(Weather::Silent);
    let begun = Instant::now();
    let _come = Guest::start(&process, new.clone(), Demo);
    let pool = room.pool();
    let replaced = pool.until(|_| before.iter().all(|tunnel| tunnel.is_draining()));
    soon("the replacement", replaced).await;
    room.until_tunnels(2).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    let names = |tunnels: &[Arc<Tunnel>]| {
        let mut names: Vec<_> = tunnels.iter().map(|t| t.identity.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&before), names(&room.live()), "the same names");
    for _ in 0..10 {
        assert!(get(&room, &near, "/").await.contains("Transmission is possible!"));
    }
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    // The old one's place isn't kept for long: one PING of three seconds.
    timeout(Duration::from_secs(4), room.pool().until(|all| all.len() == 2)).await.unwrap();
}

/// What runs on the replaced tunnel finishes, if it isn't dead.
#[tokio::test(start_paused = true)]
async fn what_runs_on_a_replaced_tunnel_finishes() {
    let room = Room::new();
    let (near, old, new) = (
        room.network(Road::default()),
        room.network(Road::default()),
        room.network(Road::default()),
    );
    let mut config = room.client_config();
    config.tunnels = 1;
    let process = process(config);
    let (begun, mut begins) = mpsc::unbounded_channel();
    let slow = service(move |_: Request<Body>| {
        let begun = begun.clone();
        async move {
            let _ = begun.send(());
            sleep(Duration::from_secs(60)).await;
            Ok::<_, Infallible>(Response::new("slow".to_owned()))
        }
    });
    let _old = Guest::start(&process, old, slow);
    room.until_tunnels(1).await;
    let asked = get(&room, &near, "/");
    let replace = async {
        begins.recv().await.unwrap();
        let _new = Guest::start(&process, new, Demo);
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = asked => answer,
        () = replace => unreachable!(),
    };
    assert!(answer.contains("slow"), "{answer}");
}

/// Each tunnel is renewed before its streams run out, and nobody notices.
#[tokio::test(start_paused = true)]
async fn tunnels_are_renewed_every_four_hours_without_a_failed_request() {
    let room = Room::new();
    let (near, far) = (room.network(Road::default()), room.network(Road::default()));
    let backend = Guest::start(&process(room.client_config()), far, Demo);
    room.until_tunnels(2).await;
    let before: Vec<_> = room.live().iter().map(|tunnel| tunnel.id).collect();
    for _ in 0..5 * 60 {
        sleep(Duration::from_secs(60)).await;
        assert!(get(&room, &near, "/").await.contains("Transmission is possible!"));
    }
    let after = room.live();
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|tunnel| !before.contains(&tunnel.id)), "new ones");
    assert_eq!(room.pool().all().len(), 2, "the old ones are gone");
    backend.stop();
    timeout(Duration::from_secs(5), backend.ended()).await.expect("an end").unwrap();
}

/// Told to stop in the midst of a renewal, with the gateway out of reach.
#[tokio::test(start_paused = true)]
async fn a_client_that_stops_while_it_renews_leaves_no_tunnel_behind() {
    let room = Room::new();
    let far = room.network(Road::default());
    let mut config = room.client_config();
    config.tunnels = 1;
    let renewing = Renewing { pipes: far.clone(), dialled: Arc::default() };
    let process = process(config);
    let backend = Guest::start(&process, renewing.clone(), Demo);
    room.until_tunnels(1).await;
    // The second dial is that of the renewal, and it hangs.
    while renewing.dialled.load(std::sync::atomic::Ordering::Relaxed) < 2 {
        sleep(Duration::from_secs(60)).await;
    }
    // After it has failed, too.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(room.live().len(), 1);
    assert_eq!(process.shown.count(None), (1, 1), "the old one serves, and is shown");
    backend.stop();
    timeout(Duration::from_secs(5), backend.ended()).await.expect("an end").unwrap();
    room.until_tunnels(0).await;
}

/// Connects once, and never again.
#[derive(Clone, Debug)]
struct Renewing {
    pipes: Pipes,
    dialled: Arc<std::sync::atomic::AtomicUsize>,
}

impl ptth_client::dial::Network for Renewing {
    type Io = tokio::io::DuplexStream;

    async fn connect(
        &self,
        _: &ptth_client::config::Gateway,
    ) -> std::io::Result<(tokio::io::DuplexStream, std::net::SocketAddr)> {
        if self.dialled.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
        Ok(self.pipes.open())
    }
}

/// The gateway's side: what runs finishes, and idle connections are let go at once.
#[tokio::test(start_paused = true)]
async fn a_draining_gateway_lets_go_of_idle_visitors_and_keeps_its_tunnels_for_the_others() {
    let room = Room::new();
    let (near, far) = (room.network(Road::default()), room.network(Road::default()));
    let (begun, mut begins) = mpsc::unbounded_channel();
    let slow = service(move |_: Request<Body>| {
        let begun = begun.clone();
        async move {
            let _ = begun.send(());
            sleep(Duration::from_secs(20)).await;
            Ok::<_, Infallible>(Response::new("slow".to_owned()))
        }
    });
    let _backend = Guest::start(&process(room.client_config()), far, slow);
    room.until_tunnels(2).await;
    let mut idle = room.visit(&near, &[b"http/1.1"]).await;
    let asked = get(&room, &near, "/");
    let stop = async {
        begins.recv().await.unwrap();
        room.advance(Phase::Draining);
        // It has a second to say what it came for.
        let _ = timeout(Duration::from_secs(2), idle.read(&mut [0])).await.expect("let go");
    };
    let (answer, ()) = tokio::join!(asked, stop);
    assert!(answer.contains("slow"), "{answer}");
    room.advance(Phase::Closing);
    room.until_tunnels(0).await;
}

/// A backend that freezes, or is cut off, while a request waits: it is asked at once.
#[tokio::test(start_paused = true)]
async fn a_request_to_a_backend_that_froze_is_answered_within_8_seconds() {
    for idle in [0, 3, 7, 11] {
        let room = Room::new();
        let (near, far) = (room.network(Road::default()), room.network(Road::default()));
        let _backend = Guest::start(&process(room.client_config()), far.clone(), Demo);
        room.until_tunnels(2).await;
        sleep(Duration::from_secs(idle)).await;
        assert!(get(&room, &near, "/").await.contains("Transmission is possible!"));
        far.set(Weather::Silent);
        let begun = Instant::now();
        let answer = get(&room, &near, "/").await;
        assert!(begun.elapsed() <= Duration::from_secs(8), "{idle}: {:?}", begun.elapsed());
        assert!(
            answer.starts_with("HTTP/1.1 502") || answer.starts_with("HTTP/1.1 504"),
            "{answer}"
        );
        assert!(room.live().len() < 2, "the tunnel is gone, too");
    }
}

/// What is slow isn't dead: it answers PINGs.
#[tokio::test(start_paused = true)]
async fn a_request_to_a_slow_backend_far_away_is_waited_for() {
    let room = Room::new();
    let road = Road { delay: Duration::from_secs(3), rate: None };
    let (near, far) = (room.network(Road::default()), room.network(road));
    let slow = service(move |_: Request<Body>| async move {
        sleep(Duration::from_secs(40)).await;
        Ok::<_, Infallible>(Response::new("slow".to_owned()))
    });
    let _backend = Guest::start(&process(room.client_config()), far, slow);
    room.until_tunnels(2).await;
    assert!(get(&room, &near, "/").await.contains("slow"));
}
