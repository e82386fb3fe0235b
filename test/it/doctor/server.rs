//! `2ptth-server doctor`.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use ptth_link::doctor::{Report, Verdict};
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config};
use ptth_server::doctor::examine;
use ptth_test::process::run;
use ptth_test::routes::{credential, route};
use ptth_test::{Certificate, Folder, OriginBox, soon};
use rcgen::date_time_ymd;
use tokio::net::TcpListener;

use super::{complaints, says};

fn config(folder: &Folder, certificate: &Certificate) -> Config {
    let (cert, key) = certificate.write(folder);
    let keys = vec![Token::generate().public()];
    let admission = Admission::Keys { keys, file: None, made: None };
    Config::new(CertificateSource::Files { cert, key }, admission)
}

async fn examined(config: &Config) -> Report {
    let mut report = Report::default();
    soon("steps", examine(config, &mut report)).await;
    report
}

#[tokio::test]
async fn a_certificate_that_visitors_would_not_take_is_told() {
    let folder = Folder::new();
    let report = examined(&config(&folder, &Certificate::of(&["one"]))).await;
    says(&report, "certificate", Verdict::Warn, "of one, ");
    says(&report, "certificate", Verdict::Warn, "give the whole chain");
    says(&report, "port", Verdict::Skip, "no certificate has a public name");
    says(&report, "clock", Verdict::Ok, "GMT");
    let old = Certificate::with(&["one"], |params| params.not_after = date_time_ymd(2021, 1, 1));
    let report = examined(&config(&folder, &old)).await;
    says(&report, "certificate", Verdict::Fail, "expired on");
    let mut other = Certificate::of(&["one"]);
    other.key = Certificate::of(&["one"]).key;
    let report = examined(&config(&folder, &other)).await;
    says(&report, "certificate", Verdict::Fail, "isn't the key of the certificate");
}

/// An authorizer that isn't there, an authenticator with an error of its own, and one that answers.
#[tokio::test]
async fn each_server_that_decides_who_comes_in_is_asked() {
    let folder = Folder::new();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let absent = free.local_addr().unwrap();
    drop(free);
    let answering = |status: StatusCode| async move {
        OriginBox::http(move |_| async move {
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = status;
            response
        })
        .await
    };
    let (fine, broken) = (
        answering(StatusCode::UNAUTHORIZED).await,
        answering(StatusCode::INTERNAL_SERVER_ERROR).await,
    );
    let mut config = config(&folder, &Certificate::of(&["one"]));
    for (name, address) in [("gone", absent), ("fine", fine.address)] {
        let mut route = route(name, &[&format!("{name}.test")], &[]);
        let url = format!("external = {{ url = \"http://{address}/?s3cret\" }}");
        route.allow = Some(vec![credential(&url)]);
        config.routes.push(route);
    }
    let report = examined(&config).await;
    says(&report, "authorizer", Verdict::Fail, "the authorizer isn't there");
    says(&report, "authorizer", Verdict::Ok, "answers 401");
    says(&report, "opens", Verdict::Ok, "gone (gone.test/)  backends: external  visitors: all");
    assert!(!format!("{report:?}").contains("s3cret"));
    let text = format!(
        "[[route]]\nname = \"a\"\nhosts = [\"a.test\"]\n[[route.allow]]\nkey = \"{}\"\n[route.gate]\nrate = \"1/1s\"\nforward = {{ url = \"http://{}/\" }}\n",
        Token::generate().public(),
        broken.address
    );
    let file = folder.write("routes.toml", text).display().to_string();
    let output = run("2ptth-server", &["doctor", "--self-signed", "--config", &file], &[]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("\nWARN  authorizer  a (a.test/): Forward("), "{output:?}");
    assert!(
        output.stdout.contains("backends: keys  visitors: by rate, authenticator"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_gateway_that_any_backend_may_serve_is_told() {
    let folder = Folder::new();
    let mut config = config(&folder, &Certificate::of(&["one"]));
    config.admission = Admission::Open;
    config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let report = examined(&config).await;
    says(&report, "opens", Verdict::Warn, "all hosts and paths  backends: ANY  visitors: all");
    config.limits.connections = Some(usize::MAX);
    let report = examined(&config).await;
    says(&report, "descriptors", Verdict::Fail, "raise LimitNOFILE=");
    assert!(complaints(&report).contains(&"descriptors"));
}

/// Nothing of the configuration can be used, and the exit code says so.
#[tokio::test]
async fn a_configuration_with_a_mistake_fails_its_first_step() {
    let output = run("2ptth-server", &["doctor", "--token-file", "/no/such"], &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.starts_with("FAIL  settings"), "{output:?}");
    let output = run("2ptth-server", &["doctor", "--idle", "x"], &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
}
