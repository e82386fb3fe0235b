//! Hosts that the gateway's certificate doesn't cover, and the way from a visitor's thread to a tunnel.

use std::collections::BTreeSet;

use ptth_client::config::Trust;
use ptth_client::demo::Demo;
use ptth_server::config::CertificateSource;
use ptth_test::peer::{END_STREAM, HEADERS, data, headers};
use ptth_test::{Backend, Certificate, Folder, GatewayBox, H1, Hello, Peer};
use tokio::task::JoinSet;

async fn status(gateway: &GatewayBox, host: &str) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    H1::ask(gateway, request).await.status
}

/// Draft-thomson-ptth-potato's MUST NOT, unless the gateway is known by its pin or the user says so.
#[tokio::test]
async fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let folder = Folder::new();
    let certificate = Certificate::of(&["example.test", "*.wild.test", "192.0.2.7", "2001:db8::7"]);
    let (cert, key) = certificate.write(&folder);
    let ca = cert.clone();
    let gateway =
        GatewayBox::with(|c| c.certificates = vec![CertificateSource::Files { cert, key }]);
    let mut by_name = gateway.client_config();
    by_name.host = "example.test".to_owned();
    by_name.trust = Trust::Ca(ca);
    let mut any_host = by_name.clone();
    any_host.any_host = true;
    let by_pin = gateway.client_config();
    for (config, strict) in [(by_name, true), (any_host, false), (by_pin, false)] {
        let backend = Backend::start(config, Demo);
        gateway.until_tunnels(2).await;
        let covered = [
            "example.test",
            "EXAMPLE.Test",
            "example.test:8443",
            "a.wild.test",
            "192.0.2.7",
            "[2001:db8::7]:443",
        ];
        for host in covered {
            assert_eq!(status(&gateway, host).await, 200, "{host}");
        }
        let foreign =
            ["other.test", "wild.test", "a.b.wild.test", "example.test.evil.test", "192.0.2.8"];
        for host in foreign {
            let expected = if strict { 421 } else { 200 };
            assert_eq!(status(&gateway, host).await, expected, "{host}");
        }
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}

/// Tunnels are spread over the threads.
#[tokio::test]
async fn tunnels_are_spread_evenly_over_the_shards() {
    let gateway = GatewayBox::start();
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = gateway.client_config();
    config.tunnels = 3 * shards;
    let _backend = Backend::start(config, Demo);
    gateway.until_tunnels(3 * shards).await;
    let mut counts = vec![0; shards];
    for tunnel in gateway.pool.all() {
        counts[tunnel.shard] += 1;
    }
    assert_eq!(counts, vec![3; shards]);
}

/// A tunnel of one and the same process that says which one it is.
async fn named(gateway: &GatewayBox, name: &'static str, before: usize) -> JoinSet<()> {
    let hello = Hello::backend(&gateway.token, &format!("process.{before}"));
    let stream = hello.connect(gateway.address).await.expect("TLS");
    let mut peer = Peer::answering(stream, &[]).await;
    let mut tunnel = JoinSet::new();
    tunnel.spawn(async move {
        while let Some(frame) = peer.next().await {
            if frame.kind == HEADERS {
                let head = headers(frame.stream, 0, &[(":status", "200")]);
                peer.send([head, data(frame.stream, END_STREAM, name.as_bytes())].concat()).await;
            }
        }
    });
    gateway.until_tunnels(before + 1).await;
    tunnel
}

/// What one connection hears in a few requests.
async fn heard(gateway: &GatewayBox) -> BTreeSet<String> {
    let mut visitor = H1::connect(gateway).await;
    let mut heard = BTreeSet::new();
    for _ in 0..4 {
        visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
        let answer = visitor.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        heard.insert(answer.text());
    }
    heard
}

/// A visitor's connection stays with its thread, and so do its requests, as long as that has a tunnel of
/// the backend that gets them; between backends the load decides.
#[tokio::test]
async fn a_request_leaves_its_shard_only_when_that_has_no_tunnel() {
    const NAMES: [&str; 2] = ["one", "two"];
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    let gateway = GatewayBox::start();
    if shards != NAMES.len() {
        // With another number of threads there is nothing to tell apart by two names.
        return;
    }
    let one = named(&gateway, NAMES[0], 0).await;
    let _two = named(&gateway, NAMES[1], 1).await;
    let mut all = BTreeSet::new();
    // The kernel picks the thread by the visitor's port: that 40 fall to one is less likely than 1 in 10¹¹.
    for _ in 0..40 {
        let heard = heard(&gateway).await;
        assert_eq!(heard.len(), 1, "a connection that hears two left its thread: {heard:?}");
        all.extend(heard);
    }
    assert_eq!(all, NAMES.map(str::to_owned).into());
    drop(one);
    gateway.until_tunnels(1).await;
    for _ in 0..20 {
        assert_eq!(heard(&gateway).await, [NAMES[1].to_owned()].into());
    }
}
