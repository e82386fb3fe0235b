//! The port that only says where to go.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ptth_client::demo::Demo;
use ptth_server::lab::serve_h1;
use ptth_test::{Answer, Backend, GatewayBox, H1, Lab, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::Instant;

fn gateway() -> GatewayBox {
    GatewayBox::with(|config| {
        config.redirect = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    })
}

async fn ask(gateway: &GatewayBox, method: &str, request: impl AsRef<[u8]>) -> Answer {
    let mut visitor = H1::over(TcpStream::connect(gateway.redirect()).await.expect("a connection"));
    visitor.send(request).await;
    let answer = visitor.answer_to(method).await;
    assert!(visitor.is_closed().await, "he has no business here any more");
    answer
}

/// A connection to that port of a lab, whose https is on 443.
fn connect(lab: &mut Lab) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    let mut visitor = lab.visitor();
    visitor.redirect = Some(443);
    lab.spawn(serve_h1(Arc::new(visitor), far));
    near
}

/// Any method, byte for byte the same target, and the port of the first `--listen`.
#[tokio::test]
async fn every_request_is_sent_to_https() {
    let gateway = gateway();
    let port = gateway.address.port();
    for (target, host, location) in [
        ("/", "a.test", format!("https://a.test:{port}/")),
        ("/", "a.test:80", format!("https://a.test:{port}/")),
        ("/a%2Fb?x=%20&y=a+b", "A.test", format!("https://A.test:{port}/a%2Fb?x=%20&y=a+b")),
        ("//evil.test/", "a.test", format!("https://a.test:{port}//evil.test/")),
        ("/?", "a.test", format!("https://a.test:{port}/?")),
        ("/", "[2001:db8::1]:80", format!("https://[2001:db8::1]:{port}/")),
        ("http://wins.test/p", "a.test", format!("https://wins.test:{port}/p")),
    ] {
        for method in ["GET", "HEAD", "POST", "BREW"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answer = ask(&gateway, method, request).await;
            assert_eq!(answer.status, 308, "{method} {target}");
            assert_eq!(answer.field("location"), location, "{method} {target}");
        }
    }
    let answer = ask(&gateway, "OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(answer.field("location"), format!("https://a.test:{port}/"));
    // A body isn't waited for, and an upgrade isn't one.
    let post = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nxx";
    assert_eq!(ask(&gateway, "POST", post).await.status, 308);
    let upgrade =
        "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(ask(&gateway, "GET", upgrade).await.status, 308);
}

/// The same strict reader; and nothing reaches the tunnel that is there.
#[tokio::test]
async fn what_is_malformed_is_refused_and_nothing_reaches_a_tunnel() {
    let gateway = gateway();
    let _backend = Backend::serving(&gateway, Demo).await;
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test/evil\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\nLocation : x\r\n\r\n",
        "GET /\r\nX: y HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = ask(&gateway, "GET", bad).await;
        assert!([400, 405, 505].contains(&answer.status), "{bad:?}: {}", answer.status);
        assert_eq!(answer.field("location"), "", "{bad:?}");
    }
    let connect = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n";
    assert_eq!(ask(&gateway, "GET", connect).await.status, 405);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(9000));
    assert_eq!(ask(&gateway, "GET", long).await.status, 414);
    for tunnel in gateway.pool.all() {
        assert_eq!(tunnel.in_flight(), 0);
    }
    let good = ask(&gateway, "GET", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(good.status == 308 && !good.text().contains("Transmission"), "{}", good.text());
}

/// The deadlines of the strict reader hold here, too; and 443 isn't written out.
#[tokio::test(start_paused = true)]
async fn slow_visitors_are_not_waited_for() {
    let mut lab = Lab::default();
    for (bytes, after) in [("", 10), ("GET / HTTP/1.1\r\nHost: a", 10)] {
        let mut near = connect(&mut lab);
        near.write_all(bytes.as_bytes()).await.unwrap();
        let start = Instant::now();
        let _ = near.read_to_end(&mut Vec::new()).await;
        let waited = start.elapsed().as_secs();
        assert!((after..=after + 2).contains(&waited), "{bytes:?}: {waited} s");
    }
    let mut near = connect(&mut lab);
    near.write_all(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("the end", near.read_to_string(&mut text)).await.unwrap();
    assert!(text.contains("location: https://a.test/x\r\n"), "{text}");
}

/// What may wait for sockets, where many are full, bounds no head.
#[tokio::test]
async fn a_long_head_is_read_however_many_sockets_are_full() {
    let mut lab = Lab::default();
    let _full: Vec<_> = (0..1000).map(|_| lab.budget.full()).collect();
    let mut near = connect(&mut lab);
    let cookie = "x".repeat(30_000);
    let head = format!("GET /x HTTP/1.1\r\nHost: a.test\r\nCookie: {cookie}\r\n\r\n");
    near.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon("the end", near.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 308 "), "{text}");
}
