//! What the two programs say when something isn't as it should be, to who has to mend it.

use std::net::Ipv4Addr;

use ptth_link::token::Token;
use ptth_test::origin::read_head;
use ptth_test::process::{Gateway, Process, run};
use ptth_test::{H1, OriginBox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The key to add is in the gateway's log, and what to tell the operator on the client's terminal.
#[tokio::test]
async fn a_key_that_is_not_known_is_named_at_both_ends() {
    let gateway = Gateway::start(&[]).await;
    let address = gateway.address.to_string();
    let token = Token::generate();
    let arguments = ["--insecure", "--via", "alpn", &address];
    let output = run("2ptth-client", &arguments, &[("TOKEN", &token.reveal())]).await;
    assert_eq!(output.code, Some(77), "{output:?}");
    let public = token.public().to_string();
    assert!(output.stderr.contains(&format!("gateway {address}: ")), "{output:?}");
    assert!(output.stderr.contains(&public), "{output:?}");
    gateway.process.logs(&format!("its key isn't known here: {public}")).await;
    let output = run("2ptth-client", &arguments, &[]).await;
    assert_eq!(output.code, Some(77), "{output:?}");
    assert!(output.stderr.contains("it wants a token"), "{output:?}");
}

/// A wrong port is the commonest mistake, and what answers there is told apart.
#[tokio::test]
async fn a_port_that_is_no_gateways_is_told_as_what_it_is() {
    let http = OriginBox::raw(|mut socket, _| async move {
        let _ = socket.read_u8().await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let address = http.address.to_string();
    let output = run("2ptth-client", &["--insecure", &address], &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(&format!("gateway {address}: ")), "{output:?}");
    assert!(output.stderr.contains("doesn't speak TLS"), "{output:?}");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let client = Process::start("2ptth-client", &["--insecure", &address], &[]);
    client.logs(&format!("gateway={address} the gateway can't be reached")).await;
}

/// Who restarts his gateway reads no warnings; who loses it does.
#[tokio::test]
async fn only_a_gateway_that_is_lost_is_a_warning() {
    for (signal, warns) in [("TERM", false), ("KILL", true)] {
        let gateway = Gateway::start(&[]).await;
        let client = gateway.client(&["--tunnels", "1"]);
        gateway.process.logs(" up name=").await;
        gateway.process.signal(signal);
        let line = client.logs(if warns { "lost: " } else { "the gateway stops" }).await;
        assert_eq!(line.contains("WARN"), warns, "{line}");
        assert!(!line.contains("WARN") || line.contains("gateway="), "{line}");
    }
}

/// Whatever the level of the log: for this the user started it.
#[tokio::test]
async fn the_public_address_is_shown_and_what_is_behind_it() {
    let gateway = Gateway::start(&[]).await;
    let client = gateway.client(&["--log", "off"]);
    let line = client.says(" -> ").await;
    let port = gateway.address.port();
    assert!(line.ends_with(&format!("https://127.0.0.1:{port}/ -> the built-in demo")), "{line}");
    assert_eq!(client.said().lines().filter(|line| line.contains("INFO")).count(), 0);
}

/// One format, with its zone: for what is logged at once, for single connections and for exchanges.
#[tokio::test]
async fn all_lines_begin_alike_and_have_no_trailing_blanks() {
    let gateway = Gateway::start(&[]).await;
    let client = gateway.client(&["--log", "trace"]);
    gateway.process.logs(" up name=").await;
    let mut visitor = H1::to(gateway.address).await.unwrap();
    visitor.send("GET /here HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = visitor.answer().await;
    assert_eq!(answer.status, 200);
    let exchange = client.says("GET \"/here\" 200 ").await;
    assert!(exchange.contains(" visitor=127.0.0.1 http=1.1 id="), "{exchange}");
    let id = exchange.rsplit_once(" id=").unwrap().1;
    let told = gateway.process.logs(&format!("exchange: {id} visitor=127.0.0.1")).await;
    assert!(told.contains(" GET \"localhost\" \"/here\" HTTP/1.1 ms="), "{told:?}");
    assert!(told.ends_with(" status=200"), "{told:?}");
    for process in [&client, &gateway.process] {
        process.signal("TERM");
    }
    for output in [client.ended().await, gateway.process.ended().await] {
        let exchanges = output.stdout.lines().filter(|line| line.contains("/here"));
        for line in output.stderr.lines().chain(exchanges) {
            let (time, rest) = line.split_once(' ').expect("a time");
            let shape: String =
                time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{line}");
            assert_eq!(rest.trim_end(), rest, "{line}");
        }
        for line in output.stderr.lines() {
            let level = line.split_whitespace().nth(1).unwrap();
            assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line}");
        }
    }
}

/// Who leaves before there is an answer has his line, too, at both ends.
#[tokio::test]
async fn an_exchange_that_is_taken_back_is_told() {
    let (asked, mut asks) = tokio::sync::mpsc::unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let asked = asked.clone();
        async move {
            if read_head(&mut socket).await.starts_with("GET /later") {
                let _ = asked.send(());
            }
            // As long as somebody waits.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let gateway = Gateway::start(&[]).await;
    let client = gateway.client(&[&format!("http://{}", origin.address)]);
    gateway.process.logs(" up name=").await;
    let mut visitor = H1::to(gateway.address).await.unwrap();
    visitor.send("GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    asks.recv().await.unwrap();
    drop(visitor);
    client.says("GET \"/later\" taken back by the visitor after ").await;
    let line = gateway.process.logs("taken back by the visitor").await;
    assert!(line.contains("\"/later\" HTTP/1.1 ms="), "{line}");
}
