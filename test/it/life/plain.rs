//! HTTP without TLS, for a proxy in front that has it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use ptth_client::Body;
use ptth_client::demo::Demo;
use ptth_link::shutdown::channel;
use ptth_server::config::{Admission, CertificateSource, Config, Trusted};
use ptth_server::lab::Shard;
use ptth_server::lab::{Rewind, serve_plain};
use ptth_test::h2::read;
use ptth_test::lab::Function;
use ptth_test::process::Process;
use ptth_test::{Backend, GatewayBox, H1, H2, Hello, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

fn gateway() -> GatewayBox {
    GatewayBox::with(|config| {
        config.plain = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    })
}

async fn connect(gateway: &GatewayBox) -> TcpStream {
    TcpStream::connect(gateway.plain()).await.expect("a connection")
}

/// Both wires work, and the scheme is what it is, on the tunnel and in the fields.
#[tokio::test]
async fn requests_without_tls_cross_as_http() {
    let gateway = gateway();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = seen.clone();
    let service = Function(move |request: Request<Body>| {
        let field = |name| request.headers().get(name).map(|value| value.to_str().unwrap());
        let scheme = request.uri().scheme_str().unwrap_or_default();
        let all = [Some(scheme), field("x-forwarded-proto"), field("forwarded")];
        noting.lock().unwrap().push(all.map(|text| text.unwrap_or_default().to_owned()));
        async { Response::new(Full::new(Bytes::from_static(b"ok"))) }
    });
    let _backend = Backend::serving(&gateway, service).await;
    for forged in [false, true] {
        let mut h1 = H1::over(connect(&gateway).await);
        let proto = if forged { "X-Forwarded-Proto: https\r\n" } else { "" };
        h1.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{proto}Content-Length: 2\r\n\r\nhi"))
            .await;
        assert_eq!(h1.answer().await.text(), "ok");
        // The connection is kept.
        h1.send(format!("GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n{proto}\r\n")).await;
        assert_eq!(h1.answer().await.text(), "ok");
        let h2 = H2::over(connect(&gateway).await).await;
        let mut request = Request::get("https://a.test/");
        if forged {
            request = request.header("x-forwarded-proto", "https");
        }
        let (response, _) = h2.open(request.body(()).unwrap(), true).await;
        assert_eq!(read(response).await.text(), "ok");
    }
    let expected = ["http", "http", "for=127.0.0.1;host=\"a.test\";proto=http"];
    for seen in seen.lock().unwrap().drain(..) {
        assert_eq!(seen, expected);
    }
}

/// A preface in pieces, and one that isn't one.
#[tokio::test]
async fn http2_is_known_by_its_whole_preface() {
    let gateway = gateway();
    let mut h2 = connect(&gateway).await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        h2.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut head = [0; 9];
    soon("SETTINGS", h2.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "{head:?}");
    for other in ["PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n", "PRI * HTTP/1.1\r\n\r\n", "\0\0\0\x04"] {
        let mut h1 = H1::over(connect(&gateway).await);
        h1.send(format!("{other}\r\n\r\n")).await;
        let status = h1.answer().await.status;
        assert!([400, 405, 505].contains(&status), "{other:?}: {status}");
    }
    // Its first byte alone is also that of POST.
    let mut h1 = H1::over(connect(&gateway).await);
    h1.send("P").await;
    tokio::task::yield_now().await;
    h1.send("UT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(h1.answer().await.status, 502);
}

/// Nobody becomes a backend here by the way he begins.
#[tokio::test]
async fn tls_and_backends_are_strangers_to_the_plain_port() {
    let gateway = gateway();
    for hello in [Hello::backend(&gateway.token, "raw.0"), Hello::offering(&[b"h2"])] {
        soon("the end", hello.connect(gateway.plain())).await.expect_err("there is no TLS here");
    }
    assert!(gateway.pool.all().is_empty());
}

/// How long the gateway keeps a connection without TLS that begins so and then is silent.
async fn keeps(shard: &Arc<Shard>, bytes: &[u8]) -> u64 {
    let (mut near, far) = duplex(1 << 16);
    let mut serving = JoinSet::new();
    let shard = shard.clone();
    serving.spawn(async move {
        let permit = shard.connections.take(Some([192, 0, 2, 1].into()), || true).expect("one");
        let peer = ([192, 0, 2, 1], 1).into();
        serve_plain(&shard, Rewind::new(far), peer, permit).await;
    });
    near.write_all(bytes).await.unwrap();
    let start = Instant::now();
    let mut read = Vec::new();
    near.read_to_end(&mut read).await.unwrap();
    start.elapsed().as_secs()
}

/// The deadlines are those of TLS.
#[tokio::test(start_paused = true)]
async fn slow_visitors_without_tls_meet_their_deadlines() {
    let source = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let (_trigger, shutdown) = channel();
    let (shard, _) =
        Shard::alone(&Config::new(source, Admission::make()), shutdown).expect("a gateway");
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(keeps(&shard, b"").await, 10, "silence");
    assert_eq!(keeps(&shard, b"PRI * HT").await, 10, "half a preface");
    let half_a_head = keeps(&shard, b"GET / HTTP/1.1\r\nHost: a").await;
    assert!((10..=12).contains(&half_a_head), "half a head: {half_a_head}");
    assert_eq!(keeps(&shard, good).await, 75, "idle");
    let idle = keeps(&shard, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!((75..=80).contains(&idle), "HTTP/2 without a request: {idle}");
}

#[tokio::test]
async fn five_hundred_silent_connections_delay_nobody() {
    let gateway = GatewayBox::with(|config| {
        config.plain = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        config.limits.connections = Some(2000);
        config.limits.connections_per_address = Some(2000);
    });
    let _backend = Backend::serving(&gateway, Demo).await;
    let mut crowd = Vec::new();
    for n in 0..500 {
        let mut silent = connect(&gateway).await;
        // A third of them stops in the middle of the preface, or of a head.
        let begun: &[u8] = [&b""[..], b"PRI * HTTP", b"GET / HT"][n % 3];
        silent.write_all(begun).await.unwrap();
        crowd.push(silent);
    }
    let asked = Instant::now();
    for _ in 0..20 {
        let mut visitor = H1::over(connect(&gateway).await);
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(visitor.answer().await.status, 200);
    }
    // Under the deadline that would have freed the first of them.
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    drop(crowd);
}

/// Behind somebody else's TLS the real gateway needs no certificate, and ends in order.
#[tokio::test]
async fn the_real_gateway_starts_with_a_plain_port_alone() {
    let gateway = Process::start("2ptth-server", &["--plain", "127.0.0.1:0"], &[]);
    let address = gateway.says("plain HTTP on ").await;
    let address = address.rsplit(' ').next().expect("an address");
    let address: SocketAddr = address.parse().expect("an address");
    let mut visitor = H1::over(TcpStream::connect(address).await.expect("a connection"));
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 502);
    gateway.logs("every visitor has the address of the proxy").await;
    gateway.signal("TERM");
    let output = gateway.ended().await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        !output.stdout.contains("listening on") && !output.stdout.contains("pin"),
        "{output:?}"
    );
}

/// A trusted proxy's X-Forwarded-Proto is what the visitor used; see also `hostile::proxied`.
#[tokio::test(start_paused = true)]
async fn the_scheme_follows_a_trusted_proxy() {
    let trusted = Trusted::parse(&["192.0.2.0/24"]).expect("a network");
    let mut lab = ptth_test::Lab::with(|config| config.trusted = trusted);
    let service = Function(|request: Request<Body>| async move {
        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
        Response::new(Full::new(Bytes::from(scheme)))
    });
    drop(lab.serve(service).await);
    for (address, said, expected) in [
        ([192, 0, 2, 1], "https", "https"),
        ([192, 0, 2, 1], "http", "http"),
        ([192, 0, 2, 1], "ws", "http"),
        ([198, 51, 100, 1], "https", "http"),
    ] {
        let mut visitor = lab.visitor();
        visitor.address = address.into();
        visitor.scheme = http::uri::Scheme::HTTP;
        let (near, far) = duplex(1 << 16);
        lab.spawn(ptth_server::lab::serve_h1(Arc::new(visitor), near));
        let mut asking = H1::over(far);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: {said}\r\n\r\n");
        asking.send(head).await;
        assert_eq!(asking.answer().await.text(), expected, "{address:?} {said}");
        sleep(Duration::from_millis(1)).await;
    }
}
