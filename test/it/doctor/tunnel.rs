//! `2ptth-client doctor`: the tunnel and what is behind it, and the program as a whole.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use ptth_client::config::OriginAddress;
use ptth_client::dial::Tcp;
use ptth_link::doctor::Verdict;
use ptth_link::token::Token;
use ptth_server::config::{Admission, Route};
use ptth_test::fake::Tls;
use ptth_test::frames::{PREFACE, settings};
use ptth_test::origin::read_head;
use ptth_test::process::{Gateway, run};
use ptth_test::routes::credential;
use ptth_test::{Fake, GatewayBox, OriginBox, soon};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::client::{PLACE, config, examined, looked, of, page};
use super::{complaints, says};

/// It asks, as a gateway does, and answers no PING; visitors don't come that way.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_answers_no_ping_is_told() {
    let (fake, tls) = (Fake::default(), Tls::speaking(&[b"2ptth", b"http/1.1"]));
    fake.resolve(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 443))]);
    for place in [PLACE, "127.0.0.1:443"] {
        let tls = tls.clone();
        fake.put(place, move |io, _| {
            let tls = tls.clone();
            async move {
                let Ok(mut stream) = tls.accept(io).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"2ptth") {
                    let first = [PREFACE, &settings(&[])].concat();
                    stream.write_all(&first).await.unwrap();
                    return pending().await;
                }
                // A request for `/` is answered, and nothing else.
                let head = read_head(&mut stream).await;
                if head.starts_with("HEAD") {
                    stream.write_all(page().as_bytes()).await.unwrap();
                }
                let _ = stream.shutdown().await;
            }
        });
    }
    let report = examined(config(&tls), fake).await;
    says(&report, "alpn", Verdict::Ok, "door A");
    says(&report, "tunnel", Verdict::Ok, "https://example.test/");
    says(&report, "round trip", Verdict::Fail, "no answer to a PING");
    says(&report, "throughput", Verdict::Warn, "can't be asked from here");
}

/// An origin that isn't there, one that speaks TLS alone, and one that knows its own name alone.
#[tokio::test]
async fn an_origin_that_does_not_answer_or_refuses_hosts_is_told() {
    let gateway = GatewayBox::start();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let closed = OriginAddress::Http { host: "127.0.0.1".to_owned(), port };
    let report = soon("steps", looked(gateway.client_config(), closed, Tcp)).await;
    says(&report, "origin", Verdict::Fail, "write the port that it has");
    assert_eq!(complaints(&report), ["origin"], "{report:#?}");
    let picky = OriginBox::http(|request| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let own = host.starts_with("127.0.0.1");
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = if own { StatusCode::OK } else { StatusCode::FORBIDDEN };
        response
    })
    .await;
    let mut config = gateway.client_config();
    config.host = "example.test".to_owned();
    config.asked_host = Some("example.test".to_owned());
    let report = soon("steps", looked(config, of(&picky), Tcp)).await;
    says(&report, "origin", Verdict::Ok, "answers 200");
    says(&report, "host", Verdict::Warn, "--host-header origin");
}

/// A path is asked for that no route of its has.
#[tokio::test]
async fn what_a_gateway_does_not_let_it_serve_is_told() {
    let gateway = GatewayBox::with(|config| {
        let admission = std::mem::replace(&mut config.admission, Admission::Open);
        let Admission::Keys { keys, .. } = admission else { panic!("keys") };
        let hosts = vec!["example.test".parse().unwrap()];
        let mut route = Route::new("one", hosts);
        let key = format!("key = \"{}\"", keys[0]);
        route.allow = Some(vec![credential(&key)]);
        config.routes.push(route);
    });
    let mut config = gateway.client_config();
    config.path = Some("/other".to_owned());
    let report = soon("steps", examined(config, Tcp)).await;
    says(&report, "tunnel", Verdict::Fail, "not allowed to serve the path");
    assert_eq!(complaints(&report), ["tunnel"], "{report:#?}");
}

/// The program: a line a step or an array, the exit code, and no secret.
#[tokio::test]
async fn the_program_tells_its_steps_and_ends_with_1_if_one_failed() {
    let gateway = Gateway::start(&[]).await;
    let (address, token) = (gateway.address.to_string(), gateway.token.reveal());
    let pin = ["--insecure", &address];
    let fine = run("2ptth-client", &[&["doctor"], &pin[..]].concat(), &[("TOKEN", &token)]).await;
    assert_eq!(fine.code, Some(0), "{fine:?}");
    assert!(fine.stdout.contains("\nOK    tunnel      the gateway admits the token"), "{fine:?}");
    let wrong = Token::generate().reveal();
    let arguments = [&["doctor", "--json"], &pin[..]].concat();
    let json = run("2ptth-client", &arguments, &[("TOKEN", &wrong)]).await;
    assert_eq!(json.code, Some(1), "{json:?}");
    assert!(json.stdout.starts_with("[\n") && json.stdout.contains("\"verdict\": \"FAIL\""));
    for output in [&fine, &json] {
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!said.contains(token.trim_start_matches("2ptth_")), "{said}");
        assert!(!said.contains(wrong.trim_start_matches("2ptth_")), "{said}");
    }
    let help = run("2ptth-client", &["doctor", "--help"], &[]).await;
    assert!(help.code == Some(0) && help.stdout.contains("--idle TIME"), "{help:?}");
    let bad = run("2ptth-client", &["doctor", "--pin", "x", &address], &[]).await;
    assert!(bad.code == Some(1) && bad.stdout.contains("FAIL  settings"), "{bad:?}");
}
