//! Descriptors, places, and handshakes, against the built gateway.

use std::time::Duration;

use ptth_client::demo::Demo;
use ptth_test::{H1, ServerProcess, connect_to, soon};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::{ask, up, visitor};

/// A visitor who got through the handshake and an answer, or was refused on the way.
async fn attempt(gateway: &ServerProcess) -> Option<H1> {
    let stream = connect_to(gateway.address, &[b"http/1.1"]).await.ok()?;
    let mut visitor = H1::over(stream);
    visitor.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
    let answer = soon("an answer or a refusal", visitor.answer()).await;
    (answer.status == 200).then_some(visitor)
}

#[tokio::test]
async fn a_gateway_without_descriptors_serves_what_it_has_and_recovers() {
    let flags = ["--max-connections", "1000", "--max-connections-per-address", "1000"];
    let gateway = ServerProcess::limited(Some(64), &flags);
    let _backend = up(&gateway, Demo).await;
    let mut kept = visitor(&gateway).await;
    assert_eq!(ask(&mut kept).await.status, 200);
    // The kernel accepts them all; the gateway can't.
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(gateway.address).await.expect("the kernel's backlog"));
    }
    soon("exhaustion", async {
        while gateway.descriptors() < 64 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ask(&mut kept).await.status, 200, "amid the crowd");
    }
    drop(crowd);
    let recovery = Instant::now();
    let mut late = soon("recovery", async {
        loop {
            if let Some(late) = attempt(&gateway).await {
                return late;
            }
        }
    })
    .await;
    // Accepting again within 2 s, on a machine with nothing else to do.
    assert!(recovery.elapsed() < Duration::from_secs(10), "{:?}", recovery.elapsed());
    assert_eq!(ask(&mut late).await.status, 200);
    assert_eq!(ask(&mut kept).await.status, 200);
}

/// What idle connections took is given back when they are gone.
#[tokio::test]
async fn memory_of_visitors_who_left_is_given_back() {
    let gateway = ServerProcess::start(&["--max-connections-per-address", "1000"]);
    let before = gateway.resident();
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(connect_to(gateway.address, &[b"h2"]).await.expect("TLS"));
    }
    let full = gateway.resident() - before;
    drop(idle);
    soon("memory given back", async {
        while gateway.resident() > before + full / 3 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// Who says `http://` to the port for TLS is told so in words that a browser shows.
#[tokio::test]
async fn http_on_the_port_for_tls_is_told_so() {
    let gateway = ServerProcess::start(&[]);
    for begin in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "P"] {
        let mut visitor = H1::over(TcpStream::connect(gateway.address).await.expect("a place"));
        visitor.send(begin).await;
        let answer = soon("an answer", visitor.answer()).await;
        assert_eq!((answer.status, answer.complete), (400, true), "{begin:?}");
        assert!(answer.text().contains("https://"), "{}", answer.text());
        assert!(visitor.is_closed().await);
    }
}

/// A cap for each address.
#[tokio::test]
async fn one_address_gets_its_places_and_no_more() {
    let gateway = ServerProcess::start(&["--max-connections-per-address", "6"]);
    let backend = up(&gateway, Demo).await;
    let mut visitors = Vec::new();
    // The client's tunnels have some of the six.
    while let Some(visitor) = attempt(&gateway).await {
        visitors.push(visitor);
        assert!(visitors.len() < 6, "no cap");
    }
    assert!(!visitors.is_empty());
    for visitor in &mut visitors {
        assert_eq!(ask(visitor).await.status, 200);
    }
    visitors.pop();
    soon("a free place", async { while attempt(&gateway).await.is_none() {} }).await;
    drop(backend);
}

/// When the gateway closes a connection on which `pieces` come, one a second.
async fn closes(gateway: &ServerProcess, pieces: Vec<Vec<u8>>) -> Duration {
    let mut socket = TcpStream::connect(gateway.address).await.expect("a place");
    let start = Instant::now();
    let (mut reader, mut writer) = socket.split();
    let writing = async {
        for piece in pieces {
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            // The pace is what is tested here, on a clock that can't be paused.
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => {}
        _ = soon("the gateway's close", async { while matches!(reader.read(&mut [0; 4096]).await, Ok(1..)) {} }) => {}
    }
    start.elapsed()
}

/// The first bytes that a TLS client sends.
fn hello() -> Vec<u8> {
    let config = std::sync::Arc::new(ptth_test::visitor::tls(&[b"h2"]));
    let name = ServerName::try_from("example.test").expect("a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

/// 10 s for the ClientHello, 10 s for the rest; all at once, since they take their time.
#[tokio::test]
async fn slow_handshakes_meet_their_deadlines_and_delay_nobody() {
    let gateway = ServerProcess::start(&["--max-connections-per-address", "1000"]);
    let _backend = up(&gateway, Demo).await;
    let hello = hello();
    let drip = |bytes: &[u8]| bytes.iter().map(|byte| vec![*byte]).collect::<Vec<_>>();
    let silent = closes(&gateway, Vec::new());
    let dripping = closes(&gateway, drip(&hello));
    let half = closes(&gateway, vec![hello[..hello.len() / 2].to_vec()]);
    let unfinished = closes(&gateway, vec![hello.clone()]);
    let http = closes(&gateway, vec![b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()]);
    // Meanwhile others are served.
    let others = async {
        let mut crowd = Vec::new();
        for _ in 0..200 {
            crowd.push(TcpStream::connect(gateway.address).await.expect("a place"));
        }
        let asked = Instant::now();
        for _ in 0..20 {
            assert_eq!(ask(&mut visitor(&gateway).await).await.status, 200);
        }
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    };
    let (silent, dripping, half, unfinished, http, ()) =
        tokio::join!(silent, dripping, half, unfinished, http, others);
    for (what, took) in
        [("silent", silent), ("dripping", dripping), ("half", half), ("unfinished", unfinished)]
    {
        assert!((9..=15).contains(&took.as_secs()), "{what}: {took:?}");
    }
    assert!(http.as_secs() < 5, "plain HTTP: {http:?}");
}
