//! `2ptth-client doctor`.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use ptth_client::config::{
    Authorization, Config, Gateway, OriginAddress, OriginOptions, Proxies, Service, Trust, Value,
};
use ptth_client::dial::{Network, Tcp};
use ptth_client::doctor::examine;
use ptth_link::doctor::{Report, Verdict};
use ptth_link::token::Token;
use ptth_test::fake::Tls;
use ptth_test::origin::read_head;
use ptth_test::{Certificate, Fake, Folder, GatewayBox, OriginBox, soon};
use rcgen::date_time_ymd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{complaints, says};

pub(super) const PLACE: &str = "example.test:443";

fn service(config: Config, origin: OriginAddress) -> Service {
    Service { label: None, config, origin, asking: OriginOptions::default() }
}

/// All steps, with the demo behind the client.
pub(super) async fn examined(config: Config, network: impl Network) -> Report {
    looked(config, OriginAddress::Demo, network).await
}

pub(super) async fn looked(config: Config, origin: OriginAddress, network: impl Network) -> Report {
    let mut report = Report::default();
    let service = service(config, origin);
    let examining = examine(&service, network, None, &mut report);
    tokio::time::timeout(Duration::from_secs(3600), examining).await.expect("an end");
    report
}

pub(super) fn of(origin: &OriginBox) -> OriginAddress {
    OriginAddress::Http { host: origin.address.ip().to_string(), port: origin.address.port() }
}

/// A front at [`PLACE`] that answers heads by what `answer` says of each; without an answer it is silent.
fn front(
    fake: &Fake,
    tls: &Tls,
    answer: impl Fn(&str) -> Option<String> + Clone + Send + Sync + 'static,
) {
    fake.resolve(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 443))]);
    for place in [PLACE, "127.0.0.1:443"] {
        let (tls, answer) = (tls.clone(), answer.clone());
        fake.put(place, move |io, _| {
            let (tls, answer) = (tls.clone(), answer.clone());
            async move {
                let Ok(mut stream) = tls.accept(io).await else { return };
                loop {
                    let head = read_head(&mut stream).await;
                    match answer(&head).filter(|_| !head.is_empty()) {
                        Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                        None => return pending().await,
                    }
                }
            }
        });
    }
}

/// Of the time at which the test runs.
pub(super) fn page() -> String {
    let now = httpdate_now();
    format!("HTTP/1.1 404 Not Found\r\nDate: {now}\r\nContent-Length: 0\r\n\r\n")
}

fn httpdate_now() -> String {
    // The gateway's own clock, as it is written.
    httpdate::fmt_http_date(std::time::SystemTime::now())
}

pub(super) fn config(tls: &Tls) -> Config {
    let mut config = Config::new(Gateway::parse(PLACE).unwrap());
    config.trust = Trust::Pin(tls.pin);
    config
}

/// A whole way has nothing to complain of, and both directions carry bytes.
#[tokio::test]
async fn a_way_that_works_has_no_complaint() {
    let gateway = GatewayBox::start();
    let origin = OriginBox::http(|_| async { Response::new(Full::<Bytes>::from("x")) }).await;
    let report = soon("steps", looked(gateway.client_config(), of(&origin), Tcp)).await;
    assert_eq!(complaints(&report), [""; 0], "{report:#?}");
    for (name, text) in [
        ("proxy", "none"),
        ("names", "127.0.0.1 is an address"),
        ("tcp", "answers"),
        ("tls", "TLS 1.3"),
        ("clock", "agree within 5 s"),
        ("mtu", "is answered"),
        ("alpn", "door A"),
        ("tunnel", "https://127.0.0.1:"),
        ("round trip", " ms"),
        ("throughput", " MB/s"),
        ("origin", "answers 200 (HTTP/1.1, no TLS"),
        ("host", "127.0.0.1"),
    ] {
        says(&report, name, Verdict::Ok, text);
    }
}

/// Without a token, and with one that the gateway doesn't know: the label came through all the same.
#[tokio::test]
async fn a_wrong_token_is_told_with_its_public_half() {
    let gateway = GatewayBox::start();
    let wrong = Token::generate();
    let public = wrong.public().to_string();
    for (token, text) in [(Some(wrong), public.as_str()), (None, "it wants a token")] {
        let mut config = gateway.client_config();
        config.token = token;
        let report = soon("steps", examined(config, Tcp)).await;
        says(&report, "tunnel", Verdict::Fail, text);
        says(&report, "alpn", Verdict::Ok, "door A");
        assert_eq!(complaints(&report), ["tunnel"], "{report:#?}");
    }
}

/// A proxy that ends TLS answers requests, and takes no label that it doesn't know.
#[tokio::test(start_paused = true)]
async fn a_label_that_is_stripped_is_told() {
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let (fake, tls) = (Fake::default(), Tls::speaking(alpn));
        front(&fake, &tls, |_| Some(page()));
        let mut config = config(&tls);
        config.token = Some(Token::generate());
        let report = examined(config.clone(), fake.clone()).await;
        says(&report, "alpn", Verdict::Fail, "let the label 2ptth through");
        assert_eq!(complaints(&report), ["alpn"], "{report:#?}");
        // With an authorization there is another door, which has its own answer.
        config.authorization = Some(Authorization::Fixed(Value::parse("Bearer x").unwrap()));
        let report = examined(config, fake).await;
        says(&report, "alpn", Verdict::Warn, "door B");
        says(&report, "tunnel", Verdict::Fail, "404 Not Found");
    }
}

fn dated(first: (i32, u8, u8), last: (i32, u8, u8)) -> Certificate {
    Certificate::with(&["example.test"], |params| {
        params.not_before = date_time_ymd(first.0, first.1, first.2);
        params.not_after = date_time_ymd(last.0, last.1, last.2);
    })
}

/// Known by its authority, and not now: no credential goes there.
#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_time_is_told_with_its_date() {
    for (certificate, text) in [
        (dated((2020, 1, 1), (2021, 2, 3)), "expired on Feb  3"),
        (dated((2200, 4, 5), (2201, 1, 1)), "isn't valid before Apr  5"),
    ] {
        let (fake, folder) = (Fake::default(), Folder::new());
        let tls = Tls::showing(&certificate, &[b"http/1.1"]);
        front(&fake, &tls, |_| Some(page()));
        let mut config = config(&tls);
        config.trust = Trust::Ca(certificate.write(&folder).0);
        let report = examined(config, fake).await;
        says(&report, "tls", Verdict::Fail, text);
        says(&report, "tls", Verdict::Fail, "clock");
        says(&report, "tunnel", Verdict::Skip, "no credential");
        assert_eq!(complaints(&report), ["tls"], "{report:#?}");
    }
}

/// The gateway tells its time with each response.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_told_by_how_much() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    front(&fake, &tls, |_| {
        Some(
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n"
                .into(),
        )
    });
    let report = examined(config(&tls), fake).await;
    says(&report, "clock", Verdict::Fail, "s ahead of the gateway's");
    says(&report, "tls", Verdict::Ok, "by its pin");
}

/// By a pin, by the authorities of a file, by the system's, and by name.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_replaced_on_the_way_is_told() {
    let other = Certificate::of(&["example.test"]);
    let folder = Folder::new();
    let (ca, _) = other.write(&folder);
    for (trust, name, text) in [
        (Trust::Pin(other.pin()), "example.test", "compare with the pin"),
        (Trust::Ca(ca), "example.test", "something in between replaces the certificate"),
        (Trust::System, "example.test", "something in between replaces it"),
    ] {
        let fake = Fake::default();
        let tls = Tls::showing(&Certificate::of(&[name]), &[b"http/1.1"]);
        front(&fake, &tls, |_| Some(page()));
        let mut config = config(&tls);
        config.trust = trust;
        config.token = Some(Token::generate());
        let report = examined(config, fake).await;
        says(&report, "tls", Verdict::Fail, text);
        says(&report, "tunnel", Verdict::Skip, "no credential");
    }
    let (fake, folder) = (Fake::default(), Folder::new());
    let certificate = Certificate::of(&["other.test"]);
    let tls = Tls::showing(&certificate, &[b"http/1.1"]);
    front(&fake, &tls, |_| Some(page()));
    let mut config = config(&tls);
    config.trust = Trust::Ca(certificate.write(&folder).0);
    says(&examined(config, fake).await, "tls", Verdict::Fail, "isn't for \"example.test\"");
}

/// Neither is tried further.
#[tokio::test(start_paused = true)]
async fn a_name_without_an_address_and_a_port_that_is_closed_are_told() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[]));
    let report = examined(config(&tls), fake.clone()).await;
    says(&report, "names", Verdict::Fail, "example.test can't be looked up");
    says(&report, "tls", Verdict::Skip, "nothing answers");
    fake.resolve(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 443))]);
    let report = examined(config(&tls), fake.clone()).await;
    says(&report, "names", Verdict::Ok, "example.test is A 127.0.0.1");
    says(&report, "tcp", Verdict::Fail, "nothing listens there");
    // One address of two is enough.
    front(&fake, &tls, |_| Some(page()));
    fake.resolve(&["127.0.0.1:443", "[::1]:443"].map(|it| it.parse().unwrap()));
    let report = examined(config(&tls), fake).await;
    says(&report, "names", Verdict::Ok, "A 127.0.0.1, AAAA ::1");
    says(&report, "tcp", Verdict::Warn, "[::1]:443 can't be reached");
    says(&report, "tls", Verdict::Ok, "by its pin");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_the_environment_is_told_and_tried() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    fake.resolve(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 3128))]);
    let mut config = config(&tls);
    config.proxies = Proxies::new("http://user:secret@proxy.test:3128", "", "").unwrap();
    let report = examined(config.clone(), fake.clone()).await;
    says(&report, "proxy", Verdict::Ok, "http://proxy.test:3128 leads to the gateway");
    says(&report, "tcp", Verdict::Fail, "127.0.0.1:3128 can't be reached");
    assert!(!format!("{report:?}").contains("secret"));
    for place in ["127.0.0.1:3128", "proxy.test:3128"] {
        fake.put(place, |mut io, _| async move {
            read_head(&mut io).await;
            let _ = io.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        });
    }
    let report = examined(config, fake).await;
    says(&report, "tls", Verdict::Fail, "the proxy http://proxy.test:3128 refuses (403)");
}

/// What listens there is no gateway: it speaks no TLS.
#[tokio::test]
async fn a_port_of_something_else_is_told() {
    let other = OriginBox::raw(|mut socket, _| async move {
        let _ = socket.write_all(b"SSH-2.0-x\r\n").await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let config = Config::new(Gateway::parse(&other.address.to_string()).unwrap());
    let report = soon("steps", examined(config, Tcp)).await;
    says(&report, "tls", Verdict::Fail, "doesn't speak TLS");
}

/// A path that drops large packets lets the handshake of TLS through.
#[tokio::test(start_paused = true)]
async fn large_packets_that_are_lost_are_told() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
    front(&fake, &tls, |head| (head.len() < 1400).then(page));
    let report = examined(config(&tls), fake).await;
    says(&report, "mtu", Verdict::Fail, "lower the MTU");
    says(&report, "tls", Verdict::Ok, "by its pin");
}

/// A NAT that forgets drops what comes next; a gateway that closes says so.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_forgotten_while_idle_is_told() {
    for (closes, verdict, text) in [
        (Some(false), Verdict::Fail, "is lost within 60s"),
        (Some(true), Verdict::Skip, "closes an idle connection itself after 30 s"),
        (None, Verdict::Ok, "survives 60s"),
    ] {
        let (fake, tls) = (Fake::default(), Tls::speaking(&[b"http/1.1"]));
        fake.resolve(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 443))]);
        for place in [PLACE, "127.0.0.1:443"] {
            let tls = tls.clone();
            fake.put(place, move |io, _| {
                let tls = tls.clone();
                async move {
                    let Ok(mut stream) = tls.accept(io).await else { return };
                    while !read_head(&mut stream).await.is_empty() {
                        stream.write_all(page().as_bytes()).await.unwrap();
                        match closes {
                            Some(true) => {
                                tokio::time::sleep(Duration::from_secs(30)).await;
                                let _ = stream.shutdown().await;
                                return;
                            }
                            Some(false) => pending().await,
                            None => {}
                        }
                    }
                }
            });
        }
        let mut report = Report::default();
        let service = service(config(&tls), OriginAddress::Demo);
        examine(&service, fake, Some(Duration::from_secs(60)), &mut report).await;
        says(&report, "idle", verdict, text);
    }
}
