//! Services that speak no HTTP: `tcp://` origins, which visitors reach by connect-tcp.

use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::origin::Origin;
use ptth_test::frames::{HEADERS, RST_STREAM, TlsFrames, data, headers, reset};
use ptth_test::peer::{self, Outcome};
use ptth_test::upgraded::{Upgraded, extended, upgrade, websocket};
use ptth_test::{Answer, Backend, Dialect, GatewayBox, H1, H2, Lab, OriginBox, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use super::Path;

fn at(origin: &OriginBox) -> Origin {
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    Origin::new(OriginAddress::Tcp { host, port }, &OriginOptions::default()).unwrap()
}

/// A path to a service that gives its connections to the test.
async fn path() -> Path<TcpStream> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |socket, _| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(socket);
        }
    })
    .await;
    let gateway = GatewayBox::start();
    let backend = Backend::serving(&gateway, at(&origin)).await;
    Path { gateway, backend, origin, told }
}

async fn connect(
    dialect: Dialect,
    gateway: &GatewayBox,
    fields: &[(&str, &str)],
) -> Result<Upgraded, Answer> {
    match dialect {
        Dialect::H1 => upgrade(gateway, "connect-tcp", fields).await,
        Dialect::H2 => extended(H2::connect(gateway).await, "connect-tcp", fields).await,
    }
}

async fn read(io: &mut (impl AsyncReadExt + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    soon("bytes", io.read_exact(&mut bytes)).await.expect("that many bytes");
    bytes
}

async fn rest(io: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon("the end of a half", io.read_to_end(&mut bytes)).await.expect("an end, and no reset");
    bytes
}

#[tokio::test]
async fn bytes_cross_and_each_half_ends_on_its_own() {
    let mut path = path().await;
    for dialect in Dialect::BOTH {
        for visitor_first in [true, false] {
            let connected = connect(dialect, &path.gateway, &[]).await;
            let mut visitor = connected.expect("a connection");
            let visitor = &mut visitor.io;
            let mut service = path.told().await;
            // A service may speak first.
            service.write_all(b"220 ready\r\n").await.expect("the client reads");
            assert_eq!(read(visitor, 11).await, b"220 ready\r\n", "{dialect:?}");
            visitor.write_all(b"HELO").await.expect("the gateway reads");
            assert_eq!(read(&mut service, 4).await, b"HELO", "{dialect:?}");
            if visitor_first {
                visitor.shutdown().await.expect("the gateway reads");
                assert_eq!(rest(&mut service).await, b"");
                service.write_all(b"the answer").await.expect("the client reads");
                service.shutdown().await.expect("the client reads");
                assert_eq!(rest(visitor).await, b"the answer", "{dialect:?}");
            } else {
                service.shutdown().await.expect("the client reads");
                assert_eq!(rest(visitor).await, b"");
                visitor.write_all(b"the last word").await.expect("the gateway reads");
                visitor.shutdown().await.expect("the gateway reads");
                assert_eq!(rest(&mut service).await, b"the last word", "{dialect:?}");
            }
        }
    }
}

/// draft-ietf-httpbis-connect-tcp §3: with the Capsule Protocol, the bytes and the ends are in capsules.
#[tokio::test]
async fn who_says_capsules_gets_capsules() {
    let mut path = path().await;
    for dialect in Dialect::BOTH {
        let fields = [("capsule-protocol", "?1")];
        let mut visitor = connect(dialect, &path.gateway, &fields).await.expect("a connection");
        assert_eq!(visitor.fields["capsule-protocol"], "?1");
        let visitor = &mut visitor.io;
        let mut service = path.told().await;
        service.write_all(b"hello").await.expect("the client reads");
        let capsule = [&[0xa0, 0x28, 0xd7, 0xf0, 0x80, 0, 0, 5], &b"hello"[..]].concat();
        assert_eq!(read(visitor, capsule.len()).await, capsule);
        // DATA, an unknown capsule, and FINAL_DATA with a short length.
        let capsules = [
            &[0xa0, 0x28, 0xd7, 0xf0, 2],
            &b"to"[..],
            &[0x17, 3, 1, 2, 3],
            &[0xa0, 0x28, 0xd7, 0xf1, 0x40, 2],
            b"o.",
        ];
        visitor.write_all(&capsules.concat()).await.expect("the gateway reads");
        assert_eq!(rest(&mut service).await, b"too.", "{dialect:?}");
        drop(service);
        let last = [0xa0, 0x28, 0xd7, 0xf1, 0x80, 0, 0, 0];
        assert_eq!(rest(visitor).await, last, "{dialect:?}");
    }
}

/// A half that ends without its FINAL_DATA was cut, and the service must see that.
#[tokio::test]
async fn capsules_that_break_off_reset_the_service() {
    let mut path = path().await;
    for dialect in Dialect::BOTH {
        let fields = [("capsule-protocol", "?1")];
        let mut visitor = connect(dialect, &path.gateway, &fields).await.expect("a connection");
        let visitor = &mut visitor.io;
        let mut service = path.told().await;
        visitor.write_all(&[0xa0, 0x28, 0xd7, 0xf0, 9, b'c', b'u', b't']).await.expect("room");
        assert_eq!(read(&mut service, 3).await, b"cut");
        visitor.shutdown().await.expect("the gateway reads");
        let mut end = Vec::new();
        let end = soon("the end", service.read_to_end(&mut end)).await;
        end.expect_err("a reset, and no orderly end");
        let mut end = Vec::new();
        let _ = soon("the visitor's end", visitor.read_to_end(&mut end)).await;
        assert_eq!(end, b"", "no FINAL_DATA");
    }
}

/// The address comes from the command line.
#[tokio::test]
async fn the_target_that_a_visitor_names_is_ignored() {
    let mut path = path().await;
    let other = OriginBox::raw(|_, _| async { panic!("nobody may come here") }).await;
    let (host, port) = (other.address.ip(), other.address.port());
    let ask = format!(
        "GET /.well-known/masque/tcp/{host}/{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\
         Connection: upgrade\r\nUpgrade: connect-tcp\r\n\r\n"
    );
    let mut visitor = H1::connect(&path.gateway).await;
    visitor.send(ask).await;
    assert_eq!(visitor.answer().await.status, 101);
    path.told().await;
}

/// Each gets a sentence that says what would work.
#[tokio::test]
async fn what_is_not_connect_is_refused() {
    let path = path().await;
    let answer = H1::get(&path.gateway, "/").await;
    assert_eq!((answer.status, answer.field("allow").as_str()), (405, "CONNECT"));
    assert!(answer.text().contains("connect-tcp"), "{}", answer.text());
    for dialect in Dialect::BOTH {
        let answer = websocket(dialect, &path.gateway, &[]).await.expect_err("no WebSocket");
        assert_eq!(answer.status, 501, "{dialect:?}");
        assert!(answer.text().contains("connect-tcp"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_a_502() {
    let path = path().await;
    let Path { gateway, origin, .. } = path;
    drop(origin);
    for dialect in Dialect::BOTH {
        let answer = connect(dialect, &gateway, &[]).await.expect_err("nobody listens");
        assert_eq!(answer.status, 502, "{dialect:?}");
        assert!(answer.text().contains("not listening"), "{}", answer.text());
    }
}

const CONNECT: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "connect-tcp"),
    (":scheme", "https"),
    (":authority", "example.test"),
    (":path", "/"),
];

/// Both ways: what was cut never looks complete.
#[tokio::test]
async fn a_reset_crosses_as_a_reset() {
    let mut path = path().await;
    let mut visitor = TlsFrames::visitor(&path.gateway).await;
    visitor.send(headers(1, &CONNECT, false)).await;
    assert!(!visitor.next_of(HEADERS).await.ends());
    let mut service = path.told().await;
    visitor.send(data(1, b"half a", false)).await;
    assert_eq!(read(&mut service, 6).await, b"half a");
    visitor.send(reset(1, 8)).await;
    let mut end = Vec::new();
    soon("the end", service.read_to_end(&mut end)).await.expect_err("a reset");

    visitor.send(headers(3, &CONNECT, false)).await;
    assert!(!visitor.next_of(HEADERS).await.ends());
    let service = path.told().await;
    service.set_zero_linger().expect("Linux");
    drop(service);
    let end = soon("RST_STREAM", visitor.next()).await.expect("a frame");
    assert_eq!((end.kind, end.stream), (RST_STREAM, 3));
}

/// RFC 9113 §8.5: a gateway that isn't ours may ask by CONNECT as it is.
#[tokio::test]
async fn a_plain_connect_on_the_tunnel_reaches_the_service_too() {
    let origin = OriginBox::raw(|mut socket, _| async move {
        let _ = socket.write_all(b"from the service").await;
    })
    .await;
    let mut lab = Lab::default();
    let (mut gateway, _ended) = lab.client(at(&origin), &[]).await;
    let ask = [(":method", "CONNECT"), (":authority", "elsewhere.test:22")];
    gateway.send(peer::headers(1, peer::END_STREAM, &ask)).await;
    assert_eq!(gateway.outcome(1).await, Outcome::Response(200, b"from the service".to_vec()));
    gateway.send(peer::headers(3, peer::END_STREAM, &peer::get("/"))).await;
    assert!(matches!(gateway.outcome(3).await, Outcome::Response(405, _)));
}
