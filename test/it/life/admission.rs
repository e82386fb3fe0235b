//! Who may be a backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ptth_client::Stopped;
use ptth_client::dial::DialError;
use ptth_link::token::Token;
use ptth_test::wire::Weather;
use ptth_test::{Backend, GatewayBox, H1, Hello, Wire, soon};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Shakes hands and reads the first byte: with TLS 1.3 the verdict comes only there.
async fn knock(gateway: &GatewayBox, hello: &Hello) -> Result<TlsStream<TcpStream>, DialError> {
    soon("the gateway's verdict", async {
        let mut stream = hello.connect(gateway.address).await?;
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await?;
        assert!(preface.starts_with(b"PRI * HTTP/2.0"));
        Ok(stream)
    })
    .await
    .map_err(DialError::of)
}

fn refusal(knocked: Result<TlsStream<TcpStream>, DialError>) -> String {
    match knocked {
        Ok(_) => panic!("it was admitted"),
        Err(DialError::Refused(why)) => why.to_owned(),
        Err(err) => panic!("not a refusal: {err:?}"),
    }
}

#[tokio::test]
async fn only_the_right_key_comes_in_whatever_the_tls_version() {
    let gateway = GatewayBox::start();
    for version in [&version::TLS12, &version::TLS13] {
        let right = Hello::backend(&gateway.token, "a.0").only(version);
        knock(&gateway, &right).await.expect("the right key");
        let wrong = Hello::backend(&Token::generate(), "a.0").only(version);
        assert_eq!(refusal(knock(&gateway, &wrong).await), "it doesn't know this token");
        let none = Hello::offering(&[b"2ptth"]).only(version);
        assert_eq!(refusal(knock(&gateway, &none).await), "it wants a token");
    }
    assert!(gateway.pool.all().is_empty(), "nobody said a word of HTTP/2");
}

/// Our own client says what is wrong, and doesn't try again.
#[tokio::test]
async fn a_client_with_a_wrong_token_or_none_ends_with_a_sentence() {
    let gateway = GatewayBox::start();
    for (token, why) in
        [(Some(Token::generate()), "it doesn't know this token"), (None, "it wants a token")]
    {
        // By which the operator knows what to admit.
        let key = token.as_ref().map(|token| format!("; its public half is {}", token.public()));
        let mut config = gateway.client_config();
        config.token = token;
        let backend = Backend::start(config, ptth_client::demo::Demo);
        let stopped = backend.ended().await.expect_err("a refusal");
        assert!(matches!(stopped, Stopped::Refused(..)), "{stopped:?}");
        let expected = format!("the gateway refuses this client: {why}{}", key.unwrap_or_default());
        assert_eq!(stopped.to_string(), expected);
    }
}

/// Certificates around the right key, each odd in its own way.
#[tokio::test]
async fn what_a_certificate_says_beside_its_key_does_not_matter() {
    type Change = fn(&mut CertificateParams);
    let odd: [(&str, Change); 7] = [
        ("expired", |params| {
            params.not_before = rcgen::date_time_ymd(1999, 1, 1);
            params.not_after = rcgen::date_time_ymd(2000, 1, 1);
        }),
        ("of the future", |params| params.not_before = rcgen::date_time_ymd(2999, 1, 1)),
        ("without a name", |params| params.distinguished_name = Default::default()),
        ("with a long name", |params| {
            params.distinguished_name.push(DnType::CommonName, "n".repeat(300));
        }),
        ("with a name that a terminal would obey", |params| {
            params.distinguished_name.push(DnType::CommonName, "\u{1b}[2J\r\n\0.0");
        }),
        ("an authority's", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ("of another purpose", |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        }),
    ];
    let gateway = GatewayBox::start();
    for (what, change) in odd {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let (certificate, key) = signed_for_itself(&params, &gateway.token);
        let hello = Hello::offering(&[b"2ptth"]).showing(vec![certificate], key);
        knock(&gateway, &hello).await.unwrap_or_else(|err| panic!("{what}: {err}"));
    }
}

fn signed_for_itself(
    params: &CertificateParams,
    token: &Token,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let (_, key) = token.certificate("x.0", []).expect("a certificate");
    let pair = KeyPair::try_from(&key).expect("a key");
    (params.self_signed(&pair).unwrap().into(), key)
}

/// The right public key as an ornament doesn't help who lacks the private one.
#[tokio::test]
async fn the_right_key_elsewhere_in_the_certificate_admits_nobody() {
    let gateway = GatewayBox::start();
    let (right, _) = gateway.token.certificate("x.0", []).expect("a certificate");
    let public = gateway.token.public();
    let spki = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0], &public.as_bytes()[..]];
    let spki = spki.concat();
    assert!(right.windows(spki.len()).any(|window| window == spki), "that is how it looks");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(&[2, 25, 1, 2, 3], spki.clone()));
    params.distinguished_name.push(DnType::CommonName, public.to_string());
    let (certificate, key) = signed_for_itself(&params, &Token::generate());
    assert!(certificate.windows(spki.len()).any(|window| window == spki));
    let hello = Hello::offering(&[b"2ptth"]).showing(vec![certificate], key);
    assert_eq!(refusal(knock(&gateway, &hello).await), "it doesn't know this token");
    // Its certificate, without its key: TLS 1.2 and 1.3 both have it sign the handshake.
    for version in [&version::TLS12, &version::TLS13] {
        let (_, other) = Token::generate().certificate("x.0", []).expect("a certificate");
        let hello = Hello::offering(&[b"2ptth"]).only(version).showing(vec![right.clone()], other);
        let err = knock(&gateway, &hello).await.expect_err("a forged signature");
        assert!(!matches!(err, DialError::Refused(_)), "{err:?}");
    }
}

/// Notes whether the gateway asked for a certificate.
#[derive(Debug, Default)]
struct Noting(AtomicBool);

impl ResolvesClientCert for Noting {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_visitor_is_never_asked_for_a_certificate() {
    for gateway in [GatewayBox::start(), GatewayBox::open()] {
        let cases: [(&[&[u8]], bool); 5] = [
            (&[b"h2", b"http/1.1"], false),
            (&[b"http/1.1"], false),
            (&[], false),
            (&[b"foo"], false),
            (&[b"2ptth"], true),
        ];
        for (labels, asked) in cases {
            for version in [&version::TLS12, &version::TLS13] {
                let noting = Arc::new(Noting::default());
                let hello = Hello::offering(labels).only(version);
                let mut config = hello.config();
                config.client_auth_cert_resolver = noting.clone();
                let socket = TcpStream::connect(gateway.address).await.unwrap();
                let connector = TlsConnector::from(Arc::new(config));
                let _ = soon("TLS", connector.connect(hello.server_name(), socket)).await;
                assert_eq!(noting.0.load(Ordering::Relaxed), asked, "{labels:?} {version:?}");
            }
        }
    }
}

/// Several tunnels of one process are one backend; a second process is told so.
#[tokio::test]
async fn an_open_gateway_serves_one_backend_and_refuses_the_second() {
    let gateway = GatewayBox::open();
    let mut config = gateway.client_config();
    config.token = None;
    config.tunnels = 3;
    let first = Backend::start(config.clone(), ptth_client::demo::Demo);
    gateway.until_tunnels(3).await;
    for token in [None, Some(Token::generate())] {
        let mut config = gateway.client_config();
        config.token = token;
        let stopped = Backend::start(config, ptth_client::demo::Demo).ended().await;
        let stopped = stopped.expect_err("the place is taken");
        assert!(matches!(stopped, Stopped::Taken), "{stopped:?}");
    }
    gateway.until_tunnels(3).await;
    assert_eq!(H1::get(&gateway, "/").await.status, 200);
    drop(first);
    gateway.until_tunnels(0).await;
    let _next = Backend::demo(&gateway).await;
}

/// No certificate at all is enough for an open gateway.
#[tokio::test]
async fn an_open_gateway_admits_who_shows_nothing() {
    let gateway = GatewayBox::open();
    for version in [&version::TLS12, &version::TLS13] {
        let hello = Hello::offering(&[b"2ptth"]).only(version);
        knock(&gateway, &hello).await.expect("anybody");
    }
}

/// Who vanished without a FIN keeps nobody out for longer than a PING takes.
#[tokio::test]
async fn a_backend_that_died_silently_does_not_lock_out_the_next() {
    let gateway = GatewayBox::open();
    let wire = Wire::to(gateway.address, Duration::ZERO).await;
    let mut config = gateway.client_config_via(wire.address);
    config.token = None;
    let _gone = Backend::start(config, ptth_client::demo::Demo);
    gateway.until_tunnels(2).await;
    wire.set(Weather::Silent);
    let next = Backend::start(gateway.client_config(), ptth_client::demo::Demo);
    let key = Some(gateway.token.public());
    let is_next = |tunnel: &Arc<ptth_server::lab::Tunnel>| {
        !tunnel.is_draining() && tunnel.identity.key == key.map(ptth_server::lab::Key::Ed25519)
    };
    let came = gateway.pool.until(|tunnels| tunnels.iter().filter(|t| is_next(t)).count() == 2);
    soon("the next backend", came).await;
    assert_eq!(H1::get(&gateway, "/").await.status, 200);
    drop(next);
}

/// A refusal that a reset overtakes is one that the refused never reads.
#[tokio::test]
async fn who_is_refused_can_read_why_though_he_talks_himself() {
    let open = GatewayBox::open();
    let _first = Backend::demo(&open).await;
    let mut taken = Hello::backend(&Token::generate(), "x.0").connect(open.address).await.unwrap();
    taken.write_all(&[0; 20_000]).await.unwrap();
    let mut words = Vec::new();
    let read = soon("the refusal", taken.read_to_end(&mut words)).await;
    read.expect("an orderly end, and no reset");
    assert!(words.ends_with(b"another backend is there and keeps its place"), "{words:?}");

    let closed = GatewayBox::start();
    let hello = Hello::backend(&Token::generate(), "x.0").only(&version::TLS13);
    let mut wrong = hello.connect(closed.address).await.unwrap();
    wrong.write_all(&[0; 20_000]).await.unwrap();
    let err = soon("the refusal", wrong.read(&mut [0])).await.expect_err("an alert");
    assert!(matches!(DialError::of(err), DialError::Refused("it doesn't know this token")));
    let end = soon("the end", wrong.get_mut().0.read(&mut [0])).await;
    assert_eq!(end.expect("an orderly end, and no reset"), 0);
}
