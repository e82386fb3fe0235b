//! The places that are kept for backends when visitors hold all others.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ptth_link::token::Token;
use ptth_test::visitor::{connect_from, tcp_from};
use ptth_test::{Backend, GatewayBox, H1, Hello, connect_h2, soon};
use rustls::ClientConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::ask;
/// A gateway of eight visitors, who are there.
async fn crowded() -> (GatewayBox, Vec<H1>) {
    let gateway = GatewayBox::with(|config| {
        config.limits.connections = Some(8);
        config.limits.connections_per_address = Some(1000);
    });
    let mut crowd = Vec::new();
    for _ in 0..8 {
        let mut visitor = H1::connect(&gateway).await;
        assert_eq!(ask(&mut visitor).await.status, 502);
        crowd.push(visitor);
    }
    (gateway, crowd)
}

/// A cap in all, and a reserve for backends.
#[tokio::test]
async fn a_backend_comes_in_when_visitors_hold_all_their_places() {
    let (gateway, mut crowd) = crowded().await;
    let mut late = H1::connect(&gateway).await;
    let refusal = ask(&mut late).await;
    assert_eq!(
        (refusal.status, refusal.field("connection").as_str()),
        (503, "close"),
        "one too many"
    );
    assert!(late.is_closed().await);
    let mut tasks = JoinSet::new();
    let late = connect_h2(&gateway, &mut tasks).await;
    let request = http::Request::get("https://example.test/").body(()).expect("a request");
    let answer = late.clone().send_request(request, true).expect("a stream").0;
    assert_eq!(soon("a refusal", answer).await.expect("a response").status(), 503);
    let _backend = Backend::demo(&gateway).await;
    for visitor in &mut crowd {
        assert_eq!(ask(visitor).await.status, 200);
    }
}

/// Four addresses hold all places, each its share. Whoever comes has one of theirs, a connection without a
/// request; the others go on.
#[tokio::test]
async fn four_addresses_keep_no_fifth_out() {
    let gateway = GatewayBox::with(|config| {
        config.limits.connections = Some(16);
        config.limits.connections_per_address = Some(4);
    });
    let (mut crowd, mut newcomers) = (Vec::new(), Vec::new());
    for number in 0..16 {
        let own = Ipv4Addr::new(127, 0, 2, 1 + number % 4);
        let mut visitor =
            H1::over(connect_from(own, gateway.address, &[b"http/1.1"]).await.expect("TLS"));
        assert_eq!(ask(&mut visitor).await.status, 502);
        crowd.push(visitor);
    }
    for number in 0..4 {
        let own = Ipv4Addr::new(127, 0, 3, 1 + number);
        let mut visitor =
            H1::over(connect_from(own, gateway.address, &[b"http/1.1"]).await.expect("TLS"));
        let answer = ask(&mut visitor).await;
        assert_eq!((answer.status, answer.field("connection")), (502, String::new()), "{number}");
        newcomers.push(visitor);
    }
    let mut closed = 0;
    for mut visitor in crowd {
        let gone = visitor.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_err()
            || visitor.answer().await.status != 502;
        closed += usize::from(gone);
    }
    assert_eq!(closed, 4);
}

/// Forty addresses, of which each has four connections that do that, one after the other.
fn strangers<F>(each: impl Fn(Ipv4Addr) -> F + Clone + Send + 'static) -> JoinSet<()>
where
    F: Future<Output = ()> + Send,
{
    let mut strangers = JoinSet::new();
    for number in 0..160 {
        let each = each.clone();
        strangers.spawn(async move {
            loop {
                each(Ipv4Addr::new(127, 0, 2, 1 + number % 40)).await;
            }
        });
    }
    strangers
}

/// Fills the reserve with `strangers`, and has a backend come to it.
async fn comes_in(gateway: &GatewayBox, mut strangers: JoinSet<()>, fill: &Notify) {
    for _ in 0..64 {
        soon("a stranger", fill.notified()).await;
    }
    let begun = Instant::now();
    let backend = Backend::demo(gateway).await;
    let took = begun.elapsed();
    assert!(strangers.try_join_next().is_none(), "they go on");
    // A quiet machine needs a tenth of a second. Who was refused once comes again after one.
    assert!(took < Duration::from_secs(6), "{took:?}");
    drop(backend);
}

/// A place of the reserve is for who proves a key within two seconds, and few are one network's. Each of
/// these had kept its own for ten seconds.
#[tokio::test]
async fn strangers_who_say_nothing_keep_no_backend_out() {
    let (gateway, _crowd) = crowded().await;
    let hello = Hello::offering(&[b"2ptth"]);
    let (fill, address) = (Arc::new(Notify::new()), gateway.address);
    let filling = fill.clone();
    let silent = strangers(move |own| {
        let (hello, fill) = (hello.clone(), filling.clone());
        async move {
            let config = Arc::new(hello.config());
            let mut client = ClientConnection::new(config, hello.server_name()).expect("a client");
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("a ClientHello");
            let Ok(mut socket) = tcp_from(own, address).await else { return };
            let _ = socket.write_all(&bytes).await;
            fill.notify_one();
            while matches!(socket.read(&mut [0; 4096]).await, Ok(1..)) {}
        }
    });
    comes_in(&gateway, silent, &fill).await;
}

/// The same for those who fail: neither the wait before the next attempt nor the last words are spent in the reserve.
#[tokio::test]
async fn strangers_with_a_wrong_key_keep_no_backend_out() {
    let (gateway, _crowd) = crowded().await;
    let hello = Hello::backend(&Token::generate(), "stranger.0");
    let (fill, address) = (Arc::new(Notify::new()), gateway.address);
    let filling = fill.clone();
    let wrong = strangers(move |own| {
        let (hello, fill) = (hello.clone(), filling.clone());
        async move {
            let Ok(socket) = tcp_from(own, address).await else { return };
            let connector = TlsConnector::from(Arc::new(hello.config()));
            let shaken = connector.connect(hello.server_name(), socket).await;
            fill.notify_one();
            if let Ok(mut stream) = shaken {
                while matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {}
            }
        }
    });
    comes_in(&gateway, wrong, &fill).await;
}
