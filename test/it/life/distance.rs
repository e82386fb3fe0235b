//! A tunnel of 100 ms, there and back: it must carry what one plain TCP connection carries.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use ptth_client::Body;
use ptth_test::service::service;
use ptth_test::wire::Road;
use ptth_test::{Backend, GatewayBox, H1, OriginBox, Wire, connect_h2, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

const DELAY: Duration = Duration::from_millis(50);

/// So many bytes of nothing.
struct Zeros(u64);

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let count = self.0.min(BLOCK.len() as u64);
        self.0 -= count;
        let data = Bytes::from_static(&BLOCK).slice(..count as usize);
        Poll::Ready((count > 0).then_some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];

/// One plain TCP connection along the road: the time for `size` bytes up and for as many down.
async fn plain(road: Road, size: u64) -> (Duration, Duration) {
    let peer = OriginBox::raw(move |mut socket, number| async move {
        if number == 0 {
            let mut sink = vec![0; BLOCK.len()];
            let mut left = size;
            while left > 0 {
                left -= socket.read(&mut sink).await.unwrap() as u64;
            }
            let _ = socket.write_all(b".").await;
        } else {
            let _ = socket.read(&mut [0]).await;
            write(&mut socket, size).await;
        }
    })
    .await;
    let wire = Wire::along(peer.address, road).await;
    let connect = async |address: SocketAddr| {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    };
    let mut up = connect(wire.address).await;
    let begun = Instant::now();
    write(&mut up, size).await;
    up.read_exact(&mut [0]).await.unwrap();
    let up = begun.elapsed();
    let mut down = connect(wire.address).await;
    let begun = Instant::now();
    down.write_all(b".").await.unwrap();
    let mut sink = vec![0; BLOCK.len()];
    let mut left = size;
    while left > 0 {
        left -= down.read(&mut sink).await.unwrap() as u64;
    }
    (up, begun.elapsed())
}

async fn write(socket: &mut TcpStream, size: u64) {
    let mut left = size as usize;
    while left > 0 {
        let count = left.min(BLOCK.len());
        socket.write_all(&BLOCK[..count]).await.unwrap();
        left -= count;
    }
}

/// The same through a tunnel along that road, by a visitor who is near; and what to drop when all else is
/// done, since a gateway's end holds up the test's thread, and with it the roads of the others.
async fn tunnelled(road: Road, size: u64, h2: bool) -> ((Duration, Duration), impl Sized) {
    let gateway = GatewayBox::start();
    let wire = Wire::along(gateway.address, road).await;
    let received = Arc::new(AtomicU64::new(0));
    let count = received.clone();
    let answer = move |request: Request<Body>| {
        let count = count.clone();
        async move {
            if request.uri().path() == "/down" {
                return Ok::<_, Infallible>(Response::new(Zeros(size)));
            }
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let data = frame.expect("whole").into_data().expect("data");
                count.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Ok(Response::new(Zeros(1)))
        }
    };
    let mut config = gateway.client_config_via(wire.address);
    config.tunnels = 1;
    let backend = Backend::start(config, service(answer));
    gateway.until_tunnels(1).await;
    let times = match h2 {
        true => by_h2(&gateway, size).await,
        false => by_h1(&gateway, size).await,
    };
    assert_eq!(received.load(Ordering::Relaxed), size, "the upload, whole");
    (times, (backend, gateway, wire))
}

async fn by_h1(gateway: &GatewayBox, size: u64) -> (Duration, Duration) {
    let mut visitor = H1::connect(gateway).await;
    let begun = Instant::now();
    let head = format!("POST /up HTTP/1.1\r\nHost: example.test\r\nContent-Length: {size}\r\n\r\n");
    visitor.send(head).await;
    let mut left = size as usize;
    while left > 0 {
        let count = left.min(BLOCK.len());
        visitor.send(&BLOCK[..count]).await;
        left -= count;
    }
    assert_eq!(visitor.answer().await.status, 200);
    let up = begun.elapsed();
    let begun = Instant::now();
    visitor.send("GET /down HTTP/1.0\r\nHost: example.test\r\n\r\n").await;
    assert_eq!(visitor.head().await.0, 200);
    let mut left = size;
    while left > 0 {
        let count = visitor.bytes(left.min(1 << 16) as usize).await.len() as u64;
        assert!(count > 0, "{left} bytes are missing");
        left -= count;
    }
    (up, begun.elapsed())
}

async fn by_h2(gateway: &GatewayBox, size: u64) -> (Duration, Duration) {
    let mut tasks = JoinSet::new();
    let mut visitor = connect_h2(gateway, &mut tasks).await;
    let begun = Instant::now();
    let request = Request::post("https://example.test/up").body(()).unwrap();
    let (response, mut stream) = visitor.send_request(request, false).unwrap();
    let mut left = size as usize;
    while left > 0 {
        let room = ptth_test::h2::room(&mut stream, left.min(BLOCK.len())).await.unwrap();
        let count = room.min(left).min(BLOCK.len());
        left -= count;
        stream.send_data(Bytes::from_static(&BLOCK).slice(..count), left == 0).unwrap();
    }
    assert_eq!(response.await.unwrap().status(), 200);
    let up = begun.elapsed();
    let begun = Instant::now();
    let request = Request::get("https://example.test/down").body(()).unwrap();
    let (response, _) = visitor.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut got = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        got += data.len() as u64;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(got, size);
    (up, begun.elapsed())
}

/// `through` took at most a quarter longer than `plain`, up and down.
fn expect_four_fifths(what: &str, through: (Duration, Duration), plain: (Duration, Duration)) {
    println!("{what}: up and down {through:?}, plain TCP {plain:?}");
    for (way, through, plain) in [("up", through.0, plain.0), ("down", through.1, plain.1)] {
        let share = plain.as_secs_f64() / through.as_secs_f64();
        assert!(share >= 0.8, "{what}, {way}: {:.0} % of plain TCP", share * 100.0);
    }
}

/// 6 MB/s, of which 600 kB are under way. All at once, so that a busy machine is as busy for one
/// as for the other.
#[tokio::test]
async fn at_100_ms_a_tunnel_carries_four_fifths_of_what_plain_tcp_carries() {
    let (road, size) = (Road { delay: DELAY, rate: Some(6_000_000) }, 16 << 20);
    let all = async {
        tokio::join!(plain(road, size), tunnelled(road, size, false), tunnelled(road, size, true))
    };
    let (plain, (h1, _first), (h2, _second)) = soon("three times 16 MiB", all).await;
    expect_four_fifths("HTTP/1.1", h1, plain);
    expect_four_fifths("HTTP/2", h2, plain);
}

/// 100 MB/s, of which 10 MB are under way. One after the other: it takes the whole machine.
#[tokio::test]
#[ignore = "measures: cargo test --profile heavy -p ptth-test -- --ignored --nocapture distance"]
async fn at_100_ms_a_gibibyte_takes_at_most_a_quarter_more_than_over_plain_tcp() {
    let (road, size) = (Road { delay: DELAY, rate: Some(100_000_000) }, 1 << 30);
    let plain = soon("plain TCP", plain(road, size)).await;
    expect_four_fifths("HTTP/1.1", soon("HTTP/1.1", tunnelled(road, size, false)).await.0, plain);
    expect_four_fifths("HTTP/2", soon("HTTP/2", tunnelled(road, size, true)).await.0, plain);
}
