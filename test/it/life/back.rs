//! The client comes back: after a crash of the gateway, before its first start, to another address; and
//! it doesn't where that would be no use.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ptth_client::config::{Gateway as Address, Trust};
use ptth_client::demo::Demo;
use ptth_client::dial::{Network, Tcp};
use ptth_link::token::Token;
use ptth_server::config::Admission;
use ptth_test::process::{Gateway, Process, run};
use ptth_test::room::{Guest, Room, process};
use ptth_test::wire::{Road, Weather};
use ptth_test::{GatewayBox, H1, OriginBox, soon};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// How soon after the gateway its client is there.
const BACK: Duration = Duration::from_secs(2);

/// Asks until a backend answers.
async fn answered(address: SocketAddr) {
    soon("an answer", async {
        loop {
            let Ok(mut visitor) = H1::to(address).await else { continue };
            // The same connection as long as it lasts: fewer handshakes for a busy machine.
            let get = "GET / HTTP/1.1\r\nHost: example.test\r\n\r\n";
            while visitor.try_send(get).await.is_ok() {
                match visitor.answer().await.status {
                    200 => return,
                    0 => break,
                    status => assert_eq!(status, 502),
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_killed_gateway_has_its_client_back_within_two_seconds() {
    let mut gateway = Gateway::start(&[]).await;
    let client = gateway.client(&[]);
    answered(gateway.address).await;
    for _ in 0..2 {
        let killed = gateway.kill().await;
        client.logs("lost").await;
        gateway = killed.restart().await;
        let back = Instant::now();
        answered(gateway.address).await;
        assert!(back.elapsed() <= BACK, "{:?}\n{}", back.elapsed(), client.said());
    }
}

#[tokio::test]
async fn a_client_may_be_started_before_its_gateway() {
    let killed = Gateway::start(&[]).await.kill().await;
    let client = killed.client(&[]);
    client.logs("the gateway can't be reached").await;
    let gateway = killed.restart().await;
    let back = Instant::now();
    answered(gateway.address).await;
    assert!(back.elapsed() <= BACK, "{:?}\n{}", back.elapsed(), client.said());
}

/// A name whose address changes.
#[derive(Clone)]
struct Renamed(Arc<Mutex<SocketAddr>>);

impl Network for Renamed {
    type Io = TcpStream;

    async fn connect(&self, asked: &Address) -> io::Result<(TcpStream, SocketAddr)> {
        assert_eq!((asked.host.as_str(), asked.port), ("gateway.test", 8443));
        let address = *self.0.lock().unwrap();
        let host = address.ip().to_string();
        Tcp.connect(&Address { host, port: address.port() }).await
    }
}

/// The name is asked on every dial.
#[tokio::test]
async fn a_gateway_that_moves_to_another_address_is_found() {
    let old = GatewayBox::start();
    let token = old.token.clone();
    let keys = vec![token.public()];
    let admission = Admission::Keys { keys, file: None, made: None };
    let new = GatewayBox::with(|config| config.admission = admission);
    let name = Renamed(Arc::new(Mutex::new(old.address)));
    let gateway = Address { host: "gateway.test".to_owned(), port: 8443 };
    let mut config = ptth_client::config::Config::new(gateway);
    config.trust = Trust::Insecure;
    config.token = Some(token);
    let _backend = Guest::start(&process(config), name.clone(), Demo);
    old.until_tunnels(2).await;
    *name.0.lock().unwrap() = new.address;
    drop(old);
    let back = Instant::now();
    new.until_tunnels(2).await;
    assert!(back.elapsed() <= BACK, "{:?}", back.elapsed());
}

/// A night without a network, and one with a network that swallows everything.
#[tokio::test(start_paused = true)]
async fn after_a_night_without_a_gateway_the_client_is_back_within_two_seconds() {
    let room = Room::new();
    let far = room.network(Road::default());
    far.set(Weather::Cut);
    let _backend = Guest::start(&process(room.client_config()), far.clone(), Demo);
    for weather in [Weather::Cut, Weather::Silent, Weather::Cut] {
        far.set(weather);
        sleep(Duration::from_secs(8 * 3600)).await;
        far.set(Weather::Fair);
        let back = Instant::now();
        room.until_tunnels(2).await;
        assert!(back.elapsed() <= BACK, "{weather:?}: {:?}", back.elapsed());
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_refused_token_ends_the_client_with_code_77_and_a_sentence() {
    let gateway = Gateway::start(&[]).await;
    let address = gateway.address.to_string();
    let wrong = Token::generate().reveal();
    let cases: [(&[(&str, &str)], &str); 2] =
        [(&[("TOKEN", &wrong)], "it doesn't know this token"), (&[], "it wants a token")];
    for (variables, why) in cases {
        let output = run("2ptth-client", &["--insecure", &address], variables).await;
        assert_eq!(output.code, Some(77), "{output:?}");
        let sentence =
            format!("2ptth-client: gateway {address}: the gateway refuses this client: {why}");
        // Perhaps not the last line: another tunnel's thread may still be talking.
        assert!(output.stderr.lines().any(|line| line.starts_with(&sentence)), "{output:?}");
        assert!(!output.stderr.contains(&wrong));
    }
    let open = GatewayBox::open();
    let first = Process::start("2ptth-client", &["--insecure", &open.address.to_string()], &[]);
    open.until_tunnels(2).await;
    let second = run("2ptth-client", &["--insecure", &open.address.to_string()], &[]).await;
    assert_eq!(second.code, Some(77), "{second:?}");
    assert!(second.stderr.contains("another backend serves this already"), "{}", second.stderr);
    drop(first);
}

/// Whoever isn't known on the very first dial never will be.
#[tokio::test]
async fn a_gateway_that_cannot_be_trusted_ends_the_client_with_code_1_and_a_sentence() {
    let gateway = GatewayBox::start();
    let address = gateway.address.to_string();
    let token = gateway.token.reveal();
    let pin = format!("sha256:{}", "0".repeat(64));
    let http = OriginBox::raw(|socket, _| async move { drop(socket) }).await;
    let cases: [(&[&str], &str); 2] = [
        (&[&address], "the gateway's certificate can't be trusted"),
        (&["--pin", &pin, &address], "the gateway's certificate has the pin sha256:"),
    ];
    for (arguments, why) in cases {
        let output = run("2ptth-client", arguments, &[("TOKEN", &token)]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        let mut lines = output.stderr.lines();
        let said = lines.any(|line| line.starts_with("2ptth-client: ") && line.contains(why));
        assert!(said, "{output:?}");
    }
    // A gateway that knows no such label: the alert says that it is none of ours.
    let output =
        run("2ptth-client", &["--insecure", "--alpn", "other", &address], &[("TOKEN", &token)])
            .await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("is no 2ptth gateway"), "{}", output.stderr);
    // What closes at once may be a gateway that is just starting: that is tried again, for ever.
    let client = Process::start("2ptth-client", &["--insecure", &http.address.to_string()], &[]);
    client.logs("trying again, for ever").await;
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).to_string();
    let client = Process::start("2ptth-client", &["--insecure", &nobody], &[]);
    client.logs("trying again, for ever").await;
}
