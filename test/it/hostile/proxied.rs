//! Behind proxies: whose word counts, and how far. 127.0.0.2 is a trusted proxy; 127.0.0.1 is anybody.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use ptth_client::Body;
use ptth_link::shutdown::channel;
use ptth_link::token::Token;
use ptth_server::config::{Admission, CertificateSource, Config, ProxyProtocol, Trusted};
use ptth_server::lab::Shard;
use ptth_server::lab::{Rewind, behind};
use ptth_test::lab::Function;
use ptth_test::visitor::{shake, tcp_from};
use ptth_test::{Answer, Backend, Dialect, GatewayBox, H1, H2, Hello, soon};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::LOCALHOST;
const V1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";

/// Version 2, with a field that nobody knows.
fn v2(command: u8) -> Vec<u8> {
    let head = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, 0x11, 0, 16]].concat();
    [head, vec![203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb, 0xee, 0, 1, 7]].concat()
}

/// A gateway that trusts [`PROXY`], and a backend that answers with the head that it sees.
async fn gateway(change: impl FnOnce(&mut Config)) -> (GatewayBox, Backend) {
    let gateway = GatewayBox::with(|config| {
        config.trusted = Trusted::parse(&[PROXY.to_string()]).expect("an address");
        config.plain = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        change(config);
    });
    let service = Function(|request: Request<Body>| async move {
        let mut text = format!("{}\n", request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        Response::new(Full::new(Bytes::from(text)))
    });
    let backend = Backend::serving(&gateway, service).await;
    (gateway, backend)
}

/// A connection from `own` that begins with `header`, and then TLS.
async fn tls(
    gateway: &GatewayBox,
    own: Ipv4Addr,
    header: &[u8],
    dialect: Dialect,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut socket = tcp_from(own, gateway.address).await?;
    socket.write_all(header).await?;
    let alpn: &[u8] = if dialect == Dialect::H1 { b"http/1.1" } else { b"h2" };
    soon("TLS or its end", shake(socket, &[alpn])).await
}

async fn ask<IO>(io: IO, dialect: Dialect, fields: &[(&str, &str)]) -> Answer
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if dialect == Dialect::H1 {
        let mut visitor = H1::over(io);
        let mut head = "GET / HTTP/1.1\r\nHost: example.test\r\n".to_owned();
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        visitor.send(head + "\r\n").await;
        return visitor.answer().await;
    }
    let mut request = Request::get("https://example.test/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let visitor = H2::over(io).await;
    let (response, _) = visitor.open(request.body(()).expect("a request"), true).await;
    ptth_test::h2::read(response).await
}

/// What the backend saw under that name; all values, in order.
fn saw(answer: &Answer, name: &str) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(field, _)| *field == name).map(|(_, value)| value.to_owned()).collect()
}

/// Everything that tells of the visitor, but for the request's id and Via's version.
fn identity(answer: &Answer) -> Vec<(String, String)> {
    let text = answer.text();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let mut all: Vec<_> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    all.retain(|(name, _)| name != "2ptth-request-id" && name != "via");
    all.sort();
    all
}

/// Everything that a visitor might write about himself.
const FORGED: [(&str, &str); 19] = [
    ("proxy", "http://evil.test/"),
    ("x-forwarded-ssl", "on"),
    ("true_client_ip", "6.6.6.6"),
    ("transfer_encoding", "chunked"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-for", "7.7.7.7, 6.6.6.6"),
    ("forwarded", "for=6.6.6.6;host=evil.test;proto=http"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-port", "666"),
    ("x-forwarded-prefix", "/evil"),
    ("x-real-ip", "6.6.6.6"),
    ("via", "1.1 evil"),
    ("client-cert", ":evil:"),
    ("client-cert-chain", ":evil:"),
    ("2ptth-url", "https://evil.test/"),
    ("x_forwarded_for", "6.6.6.6"),
    ("x_real_ip", "6.6.6.6"),
    ("2ptth_name", "evil"),
];

/// A proxy that passes bytes through and doesn't say whose they are vouches for nothing that is in them.
#[tokio::test]
async fn a_header_that_names_nobody_makes_no_visitor_trusted() {
    let (gateway, _backend) = gateway(|_| {}).await;
    let local = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20, 0, 0, 0]].concat();
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x31, 0, 216], &[b'/'; 216]].concat();
    for dialect in Dialect::BOTH {
        for header in [&b"PROXY UNKNOWN\r\n"[..], &local, &unix] {
            let honest =
                ask(tls(&gateway, PROXY, header, dialect).await.expect("TLS"), dialect, &[]);
            let honest = honest.await;
            assert_eq!(saw(&honest, "x-forwarded-for"), [PROXY.to_string()]);
            let io = tls(&gateway, PROXY, header, dialect).await.expect("TLS");
            assert_eq!(identity(&ask(io, dialect, &FORGED).await), identity(&honest), "{header:?}");
        }
    }
}

/// Both versions, over both wires, and on the plain port.
#[tokio::test]
async fn the_visitor_is_whom_the_proxys_header_names_and_he_forges_nothing() {
    let (gateway, _backend) = gateway(|_| {}).await;
    for dialect in Dialect::BOTH {
        for header in [V1.to_vec(), v2(0x21)] {
            for fields in [&[][..], &FORGED] {
                let io = tls(&gateway, PROXY, &header, dialect).await.expect("TLS");
                let answer = ask(io, dialect, fields).await;
                assert_eq!(saw(&answer, "x-forwarded-for"), ["203.0.113.9"], "{dialect:?}");
                let expected = [
                    ("forwarded", "for=203.0.113.9;host=\"example.test\";proto=https"),
                    ("x-forwarded-for", "203.0.113.9"),
                    ("x-forwarded-host", "example.test"),
                    ("x-forwarded-proto", "https"),
                    ("x-real-ip", "203.0.113.9"),
                ];
                let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
                assert_eq!(identity(&answer), expected, "{dialect:?} {fields:?}");
            }
            let mut io = tcp_from(PROXY, gateway.plain()).await.expect("a connection");
            io.write_all(&header).await.unwrap();
            let answer = ask(io, dialect, &FORGED).await;
            assert_eq!(saw(&answer, "x-forwarded-for"), ["203.0.113.9"], "plain {dialect:?}");
            assert_eq!(saw(&answer, "x-forwarded-proto"), ["http"], "plain {dialect:?}");
        }
    }
}

/// However its bytes arrive, a header leaves what follows whole.
#[tokio::test]
async fn a_header_may_come_in_pieces_or_with_the_client_hello() {
    let (gateway, _backend) = gateway(|_| {}).await;
    for header in [V1.to_vec(), v2(0x21)] {
        let mut socket = tcp_from(PROXY, gateway.address).await.expect("a connection");
        for byte in &header {
            socket.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let io = shake(socket, &[b"http/1.1"]).await.expect("TLS");
        assert_eq!(saw(&ask(io, Dialect::H1, &[]).await, "x-real-ip"), ["203.0.113.9"]);
        let mut plain = tcp_from(PROXY, gateway.plain()).await.expect("a connection");
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        plain.write_all(&[&header[..], request].concat()).await.unwrap();
        let answer = H1::over(plain).answer().await;
        assert_eq!(saw(&answer, "x-real-ip"), ["203.0.113.9"]);
    }
}

/// What the gateway says to these first bytes on its port without TLS; nothing if it just closes.
async fn said(gateway: &GatewayBox, own: Ipv4Addr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = tcp_from(own, gateway.plain()).await.expect("a connection");
    let _ = socket.write_all(bytes).await;
    let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut said = Vec::new();
    let _ = soon("the end", socket.read_to_end(&mut said)).await;
    said
}

/// From anybody else such bytes are a broken ClientHello, or a broken request, in every mode.
#[tokio::test]
async fn a_stranger_cannot_say_that_he_is_somebody_else() {
    for mode in [ProxyProtocol::Optional, ProxyProtocol::Required, ProxyProtocol::Off] {
        let (gateway, _backend) = gateway(|config| config.proxy_protocol = mode).await;
        for header in [V1.to_vec(), v2(0x21), v2(0x20)] {
            for dialect in Dialect::BOTH {
                assert!(tls(&gateway, STRANGER, &header, dialect).await.is_err(), "{mode:?}");
            }
            let said = said(&gateway, STRANGER, &header).await;
            assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"), "{mode:?}: {said:?}");
        }
        for dialect in Dialect::BOTH {
            let io = tls(&gateway, STRANGER, b"", dialect).await.expect("TLS");
            let honest = ask(io, dialect, &[]).await;
            let io = tls(&gateway, STRANGER, b"", dialect).await.expect("TLS");
            assert_eq!(identity(&ask(io, dialect, &FORGED).await), identity(&honest), "{mode:?}");
            assert_eq!(saw(&honest, "x-forwarded-for"), ["127.0.0.1"]);
        }
    }
}

/// `required`, `optional` and `off` do what they say, and LOCAL is the proxy itself.
#[tokio::test]
async fn each_mode_asks_of_proxies_what_it_says() {
    let local = v2(0x20);
    let cases: [(ProxyProtocol, &[u8], Option<&str>); 9] = [
        (ProxyProtocol::Required, b"", None),
        (ProxyProtocol::Required, V1, Some("203.0.113.9")),
        (ProxyProtocol::Required, &local, Some("127.0.0.2")),
        (ProxyProtocol::Optional, b"", Some("127.0.0.2")),
        (ProxyProtocol::Optional, V1, Some("203.0.113.9")),
        (ProxyProtocol::Optional, &local, Some("127.0.0.2")),
        (ProxyProtocol::Optional, b"PROXY UNKNOWN\r\n", Some("127.0.0.2")),
        (ProxyProtocol::Off, b"", Some("127.0.0.2")),
        (ProxyProtocol::Off, V1, None),
    ];
    for (mode, header, expected) in cases {
        let (gateway, _backend) = gateway(|config| config.proxy_protocol = mode).await;
        let io = tls(&gateway, PROXY, header, Dialect::H1).await;
        assert_eq!(io.is_ok(), expected.is_some(), "{mode:?} {header:?}");
        if let Ok(io) = io {
            let answer = ask(io, Dialect::H1, &[]).await;
            assert_eq!(saw(&answer, "x-real-ip"), [expected.unwrap_or_default()], "{mode:?}");
        }
    }
}

#[tokio::test]
async fn a_malformed_header_ends_the_connection() {
    let (gateway, _backend) = gateway(|_| {}).await;
    let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    let mut huge = v2(0x21);
    huge[14] = 0xff;
    let twice = [V1, V1].concat();
    for header in
        [b"PROXY TCP4 evil 192.0.2.1 1 2\r\n".to_vec(), long, v2(0x31), huge, twice, v2(0x22)]
    {
        // The header's own bytes never get an answer.
        let said = said(&gateway, PROXY, &[&header[..], &[b'x'; 600]].concat()).await;
        let refused = said.is_empty() || said.starts_with(b"HTTP/1.1 400");
        assert!(refused, "{header:?}: {}", String::from_utf8_lossy(&said));
        assert!(tls(&gateway, PROXY, &header, Dialect::H1).await.is_err(), "{header:?}");
    }
}

/// Before TLS and everything that has a clock of its own.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_sends_no_header_meets_the_deadline() {
    let source = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
    let mut config = Config::new(source, Admission::make());
    config.trusted = Trusted::parse(&[PROXY.to_string()]).expect("an address");
    config.proxy_protocol = ProxyProtocol::Required;
    let (_trigger, shutdown) = channel();
    let (shard, _) = Shard::alone(&config, shutdown).expect("a gateway");
    for begun in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0"] {
        let (mut near, far) = duplex(64);
        near.write_all(begun).await.unwrap();
        let permit = shard.connections.take(None, || true).expect("one");
        let start = Instant::now();
        let found = behind(&shard, &mut Rewind::new(far), (PROXY, 1).into(), &permit).await;
        assert!(found.is_none());
        assert_eq!(start.elapsed().as_secs(), 10, "{begun:?}");
    }
}

/// Of what a trusted proxy says, what is sound is kept and appended to, on every port and wire.
#[tokio::test]
async fn a_trusted_proxys_word_is_kept_and_appended_to() {
    let (gateway, _backend) = gateway(|_| {}).await;
    let said = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-prefix", "/app"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("2ptth-url", "https://evil.test/"),
        ("x_forwarded_for", "6.6.6.6"),
        ("client-cert", ":evil:"),
    ];
    let expected = [
        ("forwarded", "for=203.0.113.9;host=\"public.test\";proto=https, for=127.0.0.2"),
        ("x-forwarded-for", "203.0.113.9, 127.0.0.2"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-prefix", "/app"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "203.0.113.9"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    for dialect in Dialect::BOTH {
        let io = tls(&gateway, PROXY, b"", dialect).await.expect("TLS");
        let answer = ask(io, dialect, &said).await;
        assert_eq!(identity(&answer), expected, "{dialect:?}");
        let io = tcp_from(PROXY, gateway.plain()).await.expect("a connection");
        let answer = ask(io, dialect, &said).await;
        assert_eq!(identity(&answer), expected, "plain {dialect:?}");
        assert!(answer.text().starts_with("https://"), "the tunnel's :scheme: {}", answer.text());
    }
}

/// A visitor behind a proxy that appends, and sets what docs/guide.md asks for, forges nothing.
#[tokio::test]
async fn a_visitor_behind_a_trusted_proxy_forges_nothing() {
    let (gateway, _backend) = gateway(|_| {}).await;
    for forged in ["6.6.6.6", "127.0.0.2, 6.6.6.6", "evil", "\"", "6.6.6.6, unknown", ", ,"] {
        let appended = format!("{forged}, 203.0.113.9");
        let fields =
            [("x-forwarded-for", appended.as_str()), ("forwarded", "for=6.6.6.6;proto=http")];
        let io = tls(&gateway, PROXY, b"", Dialect::H1).await.expect("TLS");
        let answer = ask(io, Dialect::H1, &fields).await;
        assert_eq!(saw(&answer, "x-real-ip"), ["203.0.113.9"], "{forged}");
        assert_eq!(saw(&answer, "x-forwarded-for"), ["203.0.113.9, 127.0.0.2"], "{forged}");
        let forwarded = "for=203.0.113.9;host=\"example.test\";proto=https, for=127.0.0.2";
        assert_eq!(saw(&answer, "forwarded"), [forwarded], "{forged}");
    }
    // Malformed values aren't passed on.
    for (name, value) in [
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "a b"),
        ("x-forwarded-port", "99999"),
        ("x-forwarded-prefix", "//evil.test"),
        ("x-forwarded-for", "evil"),
    ] {
        let io = tls(&gateway, PROXY, b"", Dialect::H2).await.expect("TLS");
        let answer = ask(io, Dialect::H2, &[(name, value)]).await;
        assert!(!answer.text().contains(value), "{name}: {}", answer.text());
        assert_eq!(saw(&answer, "x-real-ip"), ["127.0.0.2"]);
    }
}

/// The caps are those of the visitors whom a proxy brings, not its own.
#[tokio::test]
async fn each_visitor_behind_a_proxy_has_his_own_places() {
    let (gateway, _backend) = gateway(|config| {
        config.limits.connections_per_address = Some(4);
    })
    .await;
    let header = |n: u8| format!("PROXY TCP4 203.0.113.{n} 192.0.2.1 4711 443\r\n").into_bytes();
    let mut kept = Vec::new();
    for n in 0..3 {
        for _ in 0..4 {
            kept.push(tls(&gateway, PROXY, &header(n), Dialect::H1).await.expect("a place"));
        }
        assert!(tls(&gateway, PROXY, &header(n), Dialect::H1).await.is_err(), "one too many");
    }
    // A proxy that ends TLS brings many by its own connections.
    for _ in 0..8 {
        kept.push(tls(&gateway, PROXY, b"", Dialect::H1).await.expect("a place"));
    }
    kept.remove(0);
    soon("a free place", async {
        while tls(&gateway, PROXY, &header(0), Dialect::H1).await.is_err() {}
    })
    .await;
}

/// A backend comes through a proxy that passes TCP through, and is judged as ever.
#[tokio::test]
async fn a_backend_comes_in_through_a_proxy() {
    let (gateway, backend) = gateway(|_| {}).await;
    drop(backend);
    gateway.until_tunnels(0).await;
    for (token, admitted) in [(gateway.token.clone(), true), (Token::generate(), false)] {
        let hello = Hello::backend(&token, "raw.0");
        let mut socket = tcp_from(PROXY, gateway.address).await.expect("a connection");
        socket.write_all(V1).await.unwrap();
        let connector = TlsConnector::from(std::sync::Arc::new(hello.config()));
        let mut stream = connector.connect(hello.server_name(), socket).await.expect("TLS");
        let asked = soon("the preface", stream.read_exact(&mut [0; 24])).await;
        assert_eq!(asked.is_ok(), admitted);
    }
}
