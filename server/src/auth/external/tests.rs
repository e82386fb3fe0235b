//! Authorizers that answer well, badly, slowly or never, with bytes written by hand.

mod settings;

use std::net::SocketAddr;

use ptth_link::crypto::provider;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::auth::testing::*;
use crate::https::MAX_FIELDS;
use crate::tls::testing::Scratch;

/// A gateway that asks at this address, with some further settings.
fn gateway(address: SocketAddr, further: Value) -> Arc<dyn Credential> {
    let mut settings = json!({ "url": format!("http://{address}/may?key=s3cret") });
    settings.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    load(&Scratch::new(), json!({ "external": settings })).unwrap().0
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Shows `Bearer abc` and wants two hosts.
async fn ask(gateway: &Arc<dyn Credential>) -> Result<Pass, Refusal> {
    let value = HeaderValue::from_static("Bearer abc");
    let hosts = ["a.example".to_owned(), "b.example".to_owned()];
    gateway.check(&Claim { authorization: Some(&value), hosts: &hosts, ..nothing() }).await
}

/// Reads a head, byte for byte.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Takes one question and answers with these bytes, then closes. Gives the question.
async fn answer(listener: &TcpListener, bytes: &[u8]) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let head = head(&mut socket).await;
    // The gateway may be gone already.
    socket.write_all(bytes).await.ok();
    head
}

/// The verdict when an authorizer answers with these bytes.
async fn verdict(bytes: &[u8]) -> Result<(), Refusal> {
    let (listener, address) = listen().await;
    let gateway = gateway(address, json!({}));
    let (verdict, _) = tokio::join!(ask(&gateway), answer(&listener, bytes));
    verdict.map(|pass| {
        assert!(pass.name.is_none() && gateway.keeps(pass.mark));
    })
}

const NO: Result<(), Refusal> = Err(Refusal::Wrong("the authorizer says no"));
const ILL: Result<(), Refusal> =
    Err(Refusal::Unavailable("the authorizer has a failure of its own"));
const ODD: Result<(), Refusal> = Err(Refusal::Unavailable("the authorizer gives no proper answer"));
const SLOW: Result<Pass, Refusal> = Err(Refusal::Unavailable("the authorizer is too slow"));

#[tokio::test]
async fn it_gets_what_was_shown_and_what_is_wanted_and_nothing_else() {
    let (listener, address) = listen().await;
    let by_get = gateway(address, json!({ "method": "GET" }));
    let gateway = gateway(address, json!({}));
    let (verdict, asked) =
        tokio::join!(ask(&gateway), answer(&listener, b"HTTP/1.1 200 OK\r\n\r\n"));
    assert!(verdict.is_ok());
    let (line, fields) = asked.split_once("\r\n").unwrap();
    assert_eq!(line, "POST /may?key=s3cret HTTP/1.1");
    let mut fields: Vec<&str> = fields.trim_end().split("\r\n").collect();
    fields.sort_unstable();
    let host = format!("host: {address}");
    let mut expected = [
        "2ptth-host: a.example",
        "2ptth-host: b.example",
        "authorization: Bearer abc",
        "content-length: 0",
        &host,
        "x-forwarded-for: 192.0.2.7",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    let (verdict, asked) =
        tokio::join!(ask(&by_get), answer(&listener, b"HTTP/1.1 200 OK\r\n\r\n"));
    assert!(verdict.is_ok() && asked.starts_with("GET /may?key=s3cret HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("2ptth-host: a.example") && !asked.contains("content-length"),
        "{asked}"
    );

    let value = HeaderValue::from_static("whatever");
    let mapped = "::ffff:192.0.2.9".parse().unwrap();
    let claim =
        Claim { authorization: Some(&value), name: Some("bob"), address: mapped, ..nothing() };
    let (_, asked) =
        tokio::join!(gateway.check(&claim), answer(&listener, b"HTTP/1.1 200 OK\r\n\r\n"));
    for field in ["authorization: whatever", "2ptth-name: bob", "x-forwarded-for: 192.0.2.9"] {
        assert!(asked.contains(&format!("\r\n{field}\r\n")), "{asked}");
    }
}

#[tokio::test]
async fn two_hundred_is_yes_and_all_else_is_no() {
    let table: [(&[u8], Result<(), Refusal>); 22] = [
        (b"HTTP/1.1 200 OK\r\n\r\n", Ok(())),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nno", Ok(())),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Ok(())),
        (b"HTTP/1.1 299 \r\n\r\n", Ok(())),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n", NO),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/200\r\n\r\n", NO),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", NO),
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n", NO),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\n200", NO),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", NO),
        (b"HTTP/1.1 600 \r\n\r\n", NO),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", ILL),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", ILL),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", ILL),
        (b"", ODD),
        (b"HTTP/1.1 200 OK\r\n", ODD),
        (b"HTTP/1.1 20 OK\r\n\r\n", ODD),
        (b"HTTP/2 200\r\n\r\n", ODD),
        (b"200 OK\r\n\r\n", ODD),
        (b"\0\x01\x02\xff\r\n\r\n", ODD),
        (b"HTTP/1.1 100 Continue\r\n\r\n", ODD),
    ];
    for (bytes, expected) in table {
        assert_eq!(verdict(bytes).await, expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

/// The authorizer isn't asked without something shown, nor for what no field can carry.
#[tokio::test]
async fn nobody_is_asked_about_nothing_or_nonsense() {
    let (_listener, address) = listen().await;
    let gateway = gateway(address, json!({}));
    assert_eq!(judge(&gateway, &nothing()), Err(Refusal::Absent));
    let value = HeaderValue::from_static("Bearer abc");
    let many = vec!["a.example".to_owned(); MAX_HOSTS + 1];
    let odd = ["a\r\nx: y".to_owned()];
    for (hosts, name) in [(&many[..], None), (&odd[..], None), (&[][..], Some("a\n"))] {
        let claim = Claim { authorization: Some(&value), hosts, name, ..nothing() };
        assert!(matches!(judge(&gateway, &claim), Err(Refusal::Wrong(_))));
    }
    assert_eq!(gateway.challenge(), Some("Bearer"));
}

#[tokio::test]
async fn one_that_is_down_refuses() {
    let (listener, address) = listen().await;
    drop(listener);
    let verdict = ask(&gateway(address, json!({}))).await;
    assert_eq!(verdict, Err(Refusal::Unavailable("the authorizer isn't there")));
}

/// The clock is paused: the five seconds pass when nothing else can happen.
#[tokio::test(start_paused = true)]
async fn one_that_never_answers_refuses_in_time() {
    let (listener, address) = listen().await;
    for (further, seconds) in [(json!({}), 5), (json!({ "timeout": "2s" }), 2)] {
        let gateway = gateway(address, further);
        let before = tokio::time::Instant::now();
        assert_eq!(ask(&gateway).await, SLOW);
        assert_eq!(before.elapsed().as_secs(), seconds);
    }
    drop(listener);
}

/// The time is for the whole answer, not for each byte of it.
#[tokio::test(start_paused = true)]
async fn one_that_drips_refuses_in_time() {
    let (listener, address) = listen().await;
    let gateway = gateway(address, json!({}));
    let drip = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            socket.write_all(b"y").await.ok();
        }
    };
    let verdict = select! {
        verdict = ask(&gateway) => verdict,
        never = drip => never,
    };
    assert_eq!(verdict, SLOW);
}

#[tokio::test]
async fn a_head_has_its_bounds() {
    let long = |bytes: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    let many = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(fields));
    for (head, expected) in [
        (long(12 << 10), Ok(())),
        (long(20 << 10), ODD),
        (many(MAX_FIELDS), Ok(())),
        (many(MAX_FIELDS + 1), ODD),
    ] {
        assert_eq!(verdict(head.as_bytes()).await, expected, "{:.30} {}", head, head.len());
    }
}

/// A head without an end is refused early, whether it is one field or many.
#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let begun = "HTTP/1.1 200 OK\r\nx: ";
    for (begun, piece) in [
        (begun, &[b'y'; 8192][..]),
        (begun, &b"x: y\r\n".repeat(1000)),
        ("", &b"HTTP/1.1 100 C\r\n\r\n".repeat(9)),
    ] {
        let (listener, address) = listen().await;
        let gateway = gateway(address, json!({ "timeout": "60s" }));
        let flood = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut sent = 0;
            socket.write_all(begun.as_bytes()).await.ok();
            while sent < 1 << 30 && socket.write_all(piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        };
        let (verdict, sent) = tokio::join!(ask(&gateway), flood);
        assert_eq!(verdict.map(|_| ()), ODD);
        // What the sockets hold, and not much more.
        assert!(sent < 64 << 20, "it read {sent} bytes");
    }
}

#[tokio::test]
async fn only_so_many_questions_are_asked_at_a_time() {
    let (listener, address) = listen().await;
    let gateway = gateway(address, json!({ "timeout": "60s" }));
    let mut asking = JoinSet::new();
    for _ in 0..=MAX_AT_A_TIME {
        let gateway = Arc::clone(&gateway);
        asking.spawn(async move { ask(&gateway).await.map(|_| ()) });
    }
    let mut sockets: Vec<TcpStream> = Vec::new();
    while sockets.len() < MAX_AT_A_TIME {
        let mut socket = listener.accept().await.unwrap().0;
        head(&mut socket).await;
        sockets.push(socket);
    }
    // All but one have asked by now. The last may not even dial: nothing is there to be accepted
    // until another has its answer.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    select! {
        biased;
        _ = listener.accept() => panic!("one too many"),
        () = std::future::ready(()) => {}
    }
    sockets[0].write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let mut last = listener.accept().await.unwrap().0;
    head(&mut last).await;
    last.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    for _ in 0..2 {
        assert_eq!(asking.join_next().await.unwrap().unwrap(), Ok(()));
    }
}

/// What a dropped question held is there for the next.
#[tokio::test]
async fn a_question_that_nobody_waits_for_is_over() {
    let (listener, address) = listen().await;
    let gateway = gateway(address, json!({ "timeout": "60s" }));
    for _ in 0..MAX_AT_A_TIME * 2 {
        let mut socket = select! {
            _ = ask(&gateway) => panic!("nobody answered"),
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let mut rest = Vec::new();
        // The end, in the middle of a request at most.
        socket.read_to_end(&mut rest).await.ok();
    }
}

#[tokio::test]
async fn over_tls_only_a_known_certificate_is_asked() {
    let (listener, address) = listen().await;
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], signing_key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let folder = Scratch::new();
    folder.write("ca.pem", cert.pem());
    let port = address.port();
    let serve = async || {
        let socket = listener.accept().await.unwrap().0;
        let Ok(mut stream) = acceptor.accept(socket).await else { return };
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
    };
    let untrusted = Refusal::Unavailable("the authorizer's certificate isn't trusted");
    let table = [
        (json!({ "url": format!("https://localhost:{port}/"), "ca": "ca.pem" }), Ok(())),
        (json!({ "url": format!("https://localhost:{port}/") }), Err(untrusted)),
        // Its name isn't in the certificate.
        (json!({ "url": format!("https://127.0.0.1:{port}/"), "ca": "ca.pem" }), Err(untrusted)),
    ];
    for (settings, expected) in table {
        let (gateway, _) = load(&folder, json!({ "external": settings.clone() })).unwrap();
        let (verdict, ()) = tokio::join!(ask(&gateway), serve());
        assert_eq!(verdict.map(|_| ()), expected, "{settings}");
    }
    // An authorizer without TLS.
    let url = format!("https://localhost:{port}/");
    let (gateway, _) =
        load(&folder, json!({ "external": { "url": url, "ca": "ca.pem" } })).unwrap();
    let plain = async {
        let mut socket = listener.accept().await.unwrap().0;
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    };
    let (verdict, ()) = tokio::join!(ask(&gateway), plain);
    let broken = Refusal::Unavailable("the authorizer breaks the TLS handshake off");
    assert_eq!(verdict.map(|_| ()), Err(broken));
}

/// The authorizer's address is what is kept.
#[test]
fn another_authorizer_keeps_nobody() {
    let folder = Scratch::new();
    let make = |settings: Value| load(&folder, json!({ "external": settings })).unwrap().0;
    let pass = Mark::of("external", &[b"https://a.example/x"]);
    assert!(make(json!({ "url": "https://a.example/x" })).keeps(pass));
    assert!(make(json!({ "url": "https://a.example/x", "timeout": 9 })).keeps(pass));
    assert!(!make(json!({ "url": "https://a.example/y" })).keeps(pass));
}

#[test]
fn settings_that_can_not_work_are_told() {
    let folder = Scratch::new();
    folder.write("odd.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    folder.write("none.pem", "nothing here\n");
    let url = "https://a.example/";
    let table = [
        (json!({ "url": "a.example/s3cret" }), "must be like `https://"),
        (json!({ "url": "http://8.8.8.8/s3cret" }), "to a public address"),
        (json!({ "url": "http://[2001:db8::1]/" }), "to a public address"),
        (json!({ "url": "http://127.0.0.1/", "ca": "none.pem" }), "`ca` is for an `https://`"),
        (json!({ "url": url, "ca": "none.pem" }), "none.pem holds no certificate"),
        (json!({ "url": url, "ca": "odd.pem" }), "odd.pem isn't proper PEM"),
        (json!({ "url": url, "ca": "gone.pem" }), "gone.pem can't be read"),
    ];
    for (settings, expected) in table {
        let said = refused(&folder, json!({ "external": settings }));
        assert!(said.contains(expected) && !said.contains("s3cret"), "{said}");
    }
    let said = misspelt(json!({ "external": { "url": url, "timeout": "2h" } }));
    assert!(said.contains("up to 60 seconds"), "{said}");
    let said = misspelt(json!({ "external": { "url": url, "cert": "x" } }));
    assert!(said.contains("unknown field `cert`"), "{said}");
    assert!(misspelt(json!({ "external": {} })).contains("missing field `url`"));

    let settings = json!({ "url": "http://8.8.8.8/?s3cret", "allow_plain": true });
    let (credential, files) = load(&folder, json!({ "external": settings })).unwrap();
    assert_eq!(files.warnings.len(), 1);
    let shown = format!("{:?} {credential:?}", files.warnings);
    assert!(shown.contains("http://8.8.8.8:80") && !shown.contains("s3cret"), "{shown}");
}

/// A name may lead anywhere, and change: what counts is where the socket ended.
#[tokio::test]
async fn plain_text_stays_near_whatever_the_name_says() {
    let (listener, address) = listen().await;
    let url = format!("http://localhost:{}/", address.port());
    let (gateway, _) = load(&Scratch::new(), json!({ "external": { "url": url } })).unwrap();
    let (verdict, _) = tokio::join!(ask(&gateway), answer(&listener, b"HTTP/1.1 200 OK\r\n\r\n"));
    assert!(verdict.is_ok());
}
