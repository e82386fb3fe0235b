//! Who is there: the labels that a peer offers.

use ptth_link::alpn::{BACKEND_LABELS, POTATO_00, POTATO_01, POTATO_02};
use ptth_test::{GatewayBox, Hello, soon};
use rustls::{AlertDescription, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Every handshake with these labels, by version and with and without SNI.
async fn each(
    gateway: &GatewayBox,
    labels: &[&[u8]],
    mut check: impl AsyncFnMut(TlsStream<TcpStream>),
) {
    for version in VERSIONS {
        for named in [true, false] {
            let mut hello = Hello::backend(&gateway.token, "raw.0").only(version);
            hello = hello.offering_instead(labels);
            if !named {
                hello = hello.without_name();
            }
            let what = format!("{labels:?} over {version:?}, SNI {named}");
            let stream = soon(&what, hello.connect(gateway.address)).await;
            let stream = stream.unwrap_or_else(|err| panic!("{what}: {err}"));
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version), "{what}");
            soon(&what, check(stream)).await;
        }
    }
}

async fn expect_bytes(stream: &mut TlsStream<TcpStream>, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.expect("bytes");
    assert_eq!(got, expected, "{}", String::from_utf8_lossy(&got));
}

/// Whose the connection is shows in who sends HTTP/2's preface.
async fn is_asked(mut stream: TlsStream<TcpStream>) {
    expect_bytes(&mut stream, PREFACE).await;
}

async fn is_answered_in_http1(mut stream: TlsStream<TcpStream>) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await.unwrap();
    expect_bytes(&mut stream, b"HTTP/1.1 502 ").await;
}

async fn is_answered_in_http2(mut stream: TlsStream<TcpStream>) {
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&EMPTY_SETTINGS).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!((head[3], &head[5..]), (4, &[0; 4][..]), "SETTINGS on stream 0: {head:?}");
}

#[tokio::test]
async fn the_labels_say_who_is_there() {
    let gateway = GatewayBox::start();
    for labels in [&[&b"h2"[..], b"http/1.1"][..], &[b"http/1.1", b"h2"], &[b"h2"]] {
        each(&gateway, labels, is_answered_in_http2).await;
    }
    for labels in [&[&b"http/1.1"[..]][..], &[], &[b"http/1.1", b"foo"]] {
        each(&gateway, labels, is_answered_in_http1).await;
    }
    let both = [&[&b"2ptth"[..], b"h2"][..], &[b"h2", b"2ptth"], &[b"foo", b"http/1.1", b"ph2"]];
    for labels in both {
        each(&gateway, labels, is_asked).await;
    }
}

#[tokio::test]
async fn every_backend_label_makes_a_backend() {
    assert_eq!(BACKEND_LABELS, [b"2ptth", POTATO_02, POTATO_01, POTATO_00]);
    let gateway = GatewayBox::start();
    for label in BACKEND_LABELS {
        each(&gateway, &[label], async |stream| {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(label));
            is_asked(stream).await;
        })
        .await;
    }
}

/// A flag replaces the labels, and then those that it doesn't name mean nothing.
#[tokio::test]
async fn other_labels_by_a_flag_mean_a_backend_and_the_usual_ones_nothing() {
    let gateway = GatewayBox::with(|config| config.backend_alpn = vec![b"mine".to_vec()]);
    each(&gateway, &[b"mine"], is_asked).await;
    each(&gateway, &[b"2ptth", b"http/1.1"], is_answered_in_http1).await;
    expect_alert(&gateway, &[b"2ptth"]).await;
}

/// These labels alone end the handshake with the alert of RFC 7301 §3.2.
async fn expect_alert(gateway: &GatewayBox, labels: &[&[u8]]) {
    for named in [true, false] {
        let mut hello = Hello::offering(labels);
        if !named {
            hello = hello.without_name();
        }
        expect_alert_bytes(gateway, &hello.clone().only(&version::TLS12)).await;
        // With TLS 1.3 it comes encrypted, after the ServerHello.
        let err = soon("the alert", hello.only(&version::TLS13).connect(gateway.address)).await;
        let err = err.expect_err("no handshake");
        let alert = err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let expected = AlertDescription::NoApplicationProtocol;
        assert_eq!(alert, Some(&rustls::Error::AlertReceived(expected)), "{labels:?} {named}");
    }
}

/// What comes back to a ClientHello, as bytes: RFC 5246 §7.2.
async fn expect_alert_bytes(gateway: &GatewayBox, hello: &Hello) {
    let mut tls =
        rustls::ClientConnection::new(hello.config().into(), hello.server_name()).unwrap();
    let mut first_flight = Vec::new();
    tls.write_tls(&mut first_flight).unwrap();
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(&first_flight).await.unwrap();
    let mut answer = Vec::new();
    // The gateway closes after it; whether the end is a FIN or a reset doesn't matter here.
    let _ = soon("the alert", socket.read_to_end(&mut answer)).await;
    let fatal_no_application_protocol = [21, 3, 3, 0, 2, 2, 120];
    assert_eq!(answer, fatal_no_application_protocol, "{hello:?}");
}

#[tokio::test]
async fn unknown_labels_alone_get_the_fatal_alert() {
    let gateway = GatewayBox::start();
    for labels in [&[&b"foo"[..]][..], &[b"h3"], &[b"2ptt", b"2ptthx", b"2PTTH", b"h2c"]] {
        expect_alert(&gateway, labels).await;
    }
}
