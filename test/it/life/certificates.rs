//! Several certificates on one port: who is shown which, how each is renewed, and what may not be mixed.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ptth_client::Body;
use ptth_server::Order;
use ptth_server::config::CertificateSource;
use ptth_test::h2::read;
use ptth_test::lab::Function;
use ptth_test::routes::Changing;
use ptth_test::{Backend, Certificate, Folder, GatewayBox, H1, H2, Hello, soon};
use rustls::{HandshakeKind, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A gateway whose certificates are in files, each in a folder of its own.
struct Many {
    gateway: GatewayBox,
    files: Vec<(Folder, Certificate)>,
}

impl Many {
    /// One certificate for each list of names; the first is the default.
    fn start(names: &[&[&str]]) -> Self {
        let files = names.iter().map(|names| (Folder::new(), Certificate::of(names)));
        let files: Vec<_> = files.collect();
        let sources = files.iter().map(|(folder, certificate)| {
            let (cert, key) = certificate.write(folder);
            CertificateSource::Files { cert, key }
        });
        let sources = sources.collect();
        let gateway = GatewayBox::with(|config| config.certificates = sources);
        Self { gateway, files }
    }

    /// Which certificate a handshake shows; one that is none of the files' is `None`.
    async fn shown(&self, hello: &Hello) -> Option<usize> {
        let stream = hello.connect(self.gateway.address).await.expect("TLS");
        let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec();
        self.files.iter().position(|(_, certificate)| certificate.der == shown)
    }

    async fn until_shown(&self, hello: &Hello, index: usize) {
        soon("the new certificate", async {
            while self.shown(hello).await != Some(index) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

const NAMES: [&[&str]; 3] =
    [&["example.test", "*.wild.test"], &["a.wild.test", "Other.Test"], &["*.other.test"]];

/// Exact beats wildcard, a wildcard is one label, and whoever names nothing known gets the first.
/// Visitors and backends, TLS 1.2 and 1.3.
#[tokio::test]
async fn each_name_is_shown_its_own_certificate() {
    let many = Many::start(&NAMES);
    let table = [
        (Some("example.test"), 0),
        (Some("b.wild.test"), 0),
        (Some("a.wild.test"), 1),
        (Some("A.WILD.test"), 1),
        (Some("other.test"), 1),
        (Some("x.other.test"), 2),
        (Some("x.y.other.test"), 0),
        (Some("wild.test"), 0),
        (Some("unknown.test"), 0),
        (None, 0),
    ];
    for (name, expected) in table {
        for version in [&version::TLS12, &version::TLS13] {
            let visitors: [&[&[u8]]; 3] = [&[b"h2", b"http/1.1"], &[b"http/1.1"], &[]];
            let mut hellos = visitors.map(Hello::offering).to_vec();
            hellos.push(Hello::backend(&many.gateway.token, "raw.0"));
            for hello in hellos {
                let hello = match name {
                    Some(name) => hello.naming(name),
                    None => hello.without_name(),
                };
                let hello = hello.only(version);
                assert_eq!(many.shown(&hello).await, Some(expected), "{name:?} {hello:?}");
            }
        }
    }
}

/// Each is renewed by itself, and a bad one holds up no other.
#[tokio::test]
async fn each_certificate_is_renewed_by_itself() {
    let mut many = Many::start(&NAMES);
    let hellos = ["example.test", "other.test", "x.other.test"]
        .map(|name| Hello::offering(&[b"http/1.1"]).naming(name));
    let _backend = Backend::demo(&many.gateway).await;
    let mut visitor = H1::over(hellos[1].connect(many.gateway.address).await.unwrap());
    // The first two go bad, in both ways; the last has new names.
    many.files[0].0.write("cert.pem", "garbage");
    many.files[1].0.write("key.pem", &Certificate::of(&["other.test"]).key);
    let renewed = Certificate::of(&["*.other.test", "new.test"]);
    renewed.write(&many.files[2].0);
    many.files[2].1 = renewed;
    many.gateway.order(Order::Reload);
    many.until_shown(&hellos[2], 2).await;
    assert_eq!(many.shown(&hellos[0]).await, Some(0), "the old one");
    assert_eq!(many.shown(&hellos[1]).await, Some(1), "the old one");
    let new = Hello::offering(&[b"http/1.1"]).naming("new.test");
    assert_eq!(many.shown(&new).await, Some(2), "its names are looked at again");
    let renewed = Certificate::of(NAMES[1]);
    renewed.write(&many.files[1].0);
    many.files[1].1 = renewed;
    many.gateway.order(Order::Reload);
    many.until_shown(&hellos[1], 1).await;
    visitor.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    assert_eq!(visitor.answer().await.status, 200, "running connections live on");
}

/// What both wires answer to a request for `host` on a connection that names `sni`.
async fn statuses(many: &Many, sni: Option<&'static str>, host: &str) -> [u16; 2] {
    let hello = |labels: &[&[u8]]| match sni {
        Some(sni) => Hello::offering(labels).naming(sni),
        None => Hello::offering(labels).without_name(),
    };
    let address = many.gateway.address;
    let mut h1 = H1::over(hello(&[b"http/1.1"]).connect(address).await.expect("TLS"));
    h1.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let first = h1.answer().await;
    if first.status == 421 {
        assert!(first.text().contains("not for that host"), "{}", first.text());
        // It is no reason to distrust the rest of the connection.
        let fine = sni.unwrap_or_default();
        h1.send(format!("GET / HTTP/1.1\r\nHost: {fine}\r\n\r\n")).await;
        assert_eq!(h1.answer().await.status, 200);
    }
    let h2 = H2::over(hello(&[b"h2"]).connect(address).await.expect("TLS")).await;
    let request = Request::get(format!("https://{host}/")).body(()).expect("a request");
    [first.status, read(h2.open(request, true).await.0).await.status]
}

/// SNI and Host that belong to different policies are misdirected, over both wires; RFC 9110
/// §15.5.20. The backend never hears of such a request.
#[tokio::test]
async fn a_request_for_a_name_of_another_certificate_is_misdirected() {
    let many = Many::start(&NAMES);
    let hosts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = hosts.clone();
    let service = Function(move |request: Request<Body>| {
        let host = request.uri().authority().map(|host| host.to_string()).unwrap_or_default();
        heard.lock().unwrap().push(host);
        async { http::Response::new(Full::new(Bytes::from_static(b"ok"))) }
    });
    let _backend = Backend::serving(&many.gateway, service).await;
    let table = [
        (Some("example.test"), "example.test", 200),
        (Some("example.test"), "EXAMPLE.test:8443", 200),
        (Some("example.test"), "b.wild.test", 200),
        (Some("example.test"), "a.wild.test", 421),
        (Some("example.test"), "other.test", 421),
        (Some("example.test"), "Other.Test:443", 421),
        (Some("example.test"), "unknown.test", 200),
        (Some("other.test"), "a.wild.test", 200),
        (Some("other.test"), "x.other.test", 421),
        (Some("other.test"), "unknown.test", 421),
        (Some("unknown.test"), "192.0.2.7", 200),
        (Some("unknown.test"), "other.test", 421),
        (None, "other.test", 200),
        (None, "example.test", 200),
    ];
    for (sni, host, expected) in table {
        hosts.lock().unwrap().clear();
        assert_eq!(statuses(&many, sni, host).await, [expected; 2], "{sni:?} {host}");
        let leaked = expected == 421 && hosts.lock().unwrap().iter().any(|heard| heard == host);
        assert!(!leaked, "{sni:?} {host} reached the backend");
    }
}

/// With one certificate there is nothing to tell apart: any host goes, as ever.
#[tokio::test]
async fn one_certificate_misdirects_nobody() {
    let many = Many::start(&[&["example.test"]]);
    let _backend = Backend::demo(&many.gateway).await;
    for host in ["example.test", "other.test", "192.0.2.7"] {
        assert_eq!(statuses(&many, Some("example.test"), host).await, [200; 2], "{host}");
    }
}

/// A certificate that the configuration gains is shown, one that it loses no more, and the one that
/// was made at start stays the same.
#[tokio::test]
async fn the_configuration_gains_and_loses_certificates_while_it_runs() {
    let folder = Folder::new();
    let certificate = Certificate::of(&["shop.test"]);
    let (cert, key) = certificate.write(&folder);
    let mut changing = Changing::start(|_| {});
    let shown = async |gateway: &GatewayBox, name: &'static str| {
        let hello = Hello::offering(&[b"h2"]).naming(name);
        let stream = hello.connect(gateway.address).await.expect("TLS");
        stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
    };
    let first = shown(&changing.gateway, "shop.test").await;
    assert_ne!(first, certificate.der);
    changing
        .change(|config| config.certificates.push(CertificateSource::Files { cert, key }))
        .await;
    assert_eq!(shown(&changing.gateway, "shop.test").await, certificate.der);
    assert_eq!(shown(&changing.gateway, "example.test").await, first);
    changing.change(|config| config.certificates.truncate(1)).await;
    assert_eq!(shown(&changing.gateway, "shop.test").await, first);
}

/// What was resumed under one certificate isn't under the next, in either version: a reload makes new ticket keys.
#[tokio::test]
async fn sessions_of_an_old_certificate_are_not_resumed() {
    for version in [&version::TLS12, &version::TLS13] {
        let many = Many::start(&[&["example.test"]]);
        let hello = Hello::offering(&[b"http/1.1"]).only(version);
        let connector = TlsConnector::from(Arc::new(hello.config()));
        let kind = async || {
            let socket = TcpStream::connect(many.gateway.address).await.expect("TCP");
            let stream = soon("TLS", connector.connect(hello.server_name(), socket)).await;
            let mut visitor = H1::over(stream.expect("TLS"));
            // The tickets of TLS 1.3 come with the first bytes that are read.
            visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
            visitor.answer().await;
            visitor.stream.get_ref().1.handshake_kind()
        };
        assert_eq!(kind().await, Some(HandshakeKind::Full));
        assert_eq!(kind().await, Some(HandshakeKind::Resumed));
        let renewed = Certificate::of(&["example.test"]);
        renewed.write(&many.files[0].0);
        many.gateway.order(Order::Reload);
        let shown = async || {
            let fresh = Hello::offering(&[b"http/1.1"]).connect(many.gateway.address).await;
            let fresh = fresh.expect("TLS");
            fresh.get_ref().1.peer_certificates().is_some_and(|it| it[0].as_ref() == renewed.der)
        };
        soon("the new certificate", async { while !shown().await {} }).await;
        assert_eq!(kind().await, Some(HandshakeKind::Full), "{version:?}");
    }
}
