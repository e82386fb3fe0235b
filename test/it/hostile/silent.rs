//! Peers who come and say nothing, at every stage at which one can fall silent.

use std::time::Duration;

use ptth_client::demo::Demo;
use ptth_test::{Backend, GatewayBox, H1, Hello, connect};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// They delay neither visitors nor a backend that comes after them.
#[tokio::test]
async fn fifteen_hundred_silent_peers_delay_nobody() {
    let gateway = GatewayBox::with(|config| {
        config.limits.connections = Some(8000);
        config.limits.connections_per_address = Some(8000);
    });
    let first = Backend::serving(&gateway, Demo).await;
    let (mut sockets, mut sessions) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        sockets.push(TcpStream::connect(gateway.address).await.expect("TCP"));
    }
    for n in 0..500 {
        let mut silent = connect(&gateway, &[b"h2"]).await.expect("TLS");
        if n % 2 == 0 {
            // The preface alone, without the SETTINGS that belong to it (RFC 9113 §3.4).
            silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a preface");
            silent.flush().await.expect("a preface");
        }
        sessions.push(silent);
    }
    for n in 0..500 {
        sessions.push(match n % 2 {
            0 => connect(&gateway, &[b"http/1.1"]).await.expect("TLS"),
            // Backends who were admitted and then say nothing in HTTP/2.
            _ => {
                let hello = Hello::backend(&gateway.token, "silent.0");
                hello.connect(gateway.address).await.expect("TLS")
            }
        });
    }
    let asked = Instant::now();
    for _ in 0..20 {
        assert_eq!(H1::get(&gateway, "/").await.status, 200);
    }
    let second = Backend::start(gateway.client_config(), Demo);
    gateway.until_tunnels(4).await;
    // Under the deadline that frees the first of them.
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    drop((first, second, sockets, sessions));
}
