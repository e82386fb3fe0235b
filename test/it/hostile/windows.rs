//! Windows towards peers that aren't ours: they only grow (RFC 9113 §6.9.3).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_server::lab::Identity;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Lab, Peer, soon};
use tokio::io::DuplexStream;
use tokio::time::{sleep, timeout};

use super::until;

/// Reads a body at 30 MB/s, and says how long it was.
async fn origin(request: Request<Body>) -> Response<Full<Bytes>> {
    let (mut body, mut length) = (request.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        let data = frame.into_data().unwrap_or_default();
        length += data.len();
        sleep(Duration::from_secs_f64(data.len() as f64 / 30e6)).await;
    }
    Response::new(Full::new(Bytes::from(length.to_string())))
}

/// An uploading browser, 100 ms away: what it has queued is sent after the acknowledgement of a window that would
/// no longer allow it.
struct Browser {
    peer: Peer<DuplexStream>,
    /// SETTINGS_INITIAL_WINDOW_SIZE, as announced so far.
    announced: Vec<u32>,
    stream: i64,
    connection: i64,
    left: usize,
}

impl Browser {
    async fn send(&mut self, most: usize) {
        let mut burst = 0;
        while self.left > 0 && burst < most {
            let part = (self.left as i64).min(16_384).min(self.stream).min(self.connection);
            if part <= 0 {
                return;
            }
            self.left -= part as usize;
            self.stream -= part;
            self.connection -= part;
            burst += part as usize;
            let end = if self.left == 0 { END_STREAM } else { 0 };
            self.peer.send(data(1, end, &vec![7; part as usize])).await;
        }
    }

    /// Takes a frame. Its payload if it is the response's, or an error if it is the stream's end before that.
    async fn take(&mut self, came: Frame) -> Option<Result<Vec<u8>, u32>> {
        match (came.kind, came.flags & ACK) {
            (SETTINGS, 0) => {
                self.peer.send(frame(SETTINGS, ACK, 0, &[])).await;
                for setting in came.payload.chunks(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let window = u32::from_be_bytes(setting[2..].try_into().unwrap());
                        let before = self.announced.last().copied().unwrap_or(65_535);
                        self.announced.push(window);
                        if window < before {
                            // The acknowledgement was ahead of all this.
                            self.send(usize::MAX).await;
                        }
                        self.stream += i64::from(window) - i64::from(before);
                    }
                }
            }
            (PING, 0) => {
                sleep(Duration::from_millis(100)).await;
                self.peer.send(frame(PING, ACK, 0, &came.payload)).await;
            }
            (WINDOW_UPDATE, _) if came.stream == 0 => self.connection += i64::from(came.code()),
            (WINDOW_UPDATE, _) => self.stream += i64::from(came.code()),
            (RST_STREAM | GOAWAY, _) => return Some(Err(came.code())),
            (DATA, _) if !came.payload.is_empty() => return Some(Ok(came.payload)),
            _ => {}
        }
        None
    }

    /// Uploads. The response, or the code of the error.
    async fn upload(&mut self) -> Result<Vec<u8>, u32> {
        self.peer.send(headers(1, 0, &request("POST", "/"))).await;
        loop {
            self.send(1 << 20).await;
            while let Ok(came) = timeout(Duration::from_millis(5), self.peer.any()).await {
                if let Some(end) = self.take(came.ok_or(0_u32)?).await {
                    return end;
                }
            }
        }
    }
}

/// The windows grow, for the upload needs that, and never fall.
#[tokio::test(start_paused = true)]
async fn a_visitor_that_acknowledges_before_what_it_had_queued_is_never_reset() {
    let mut lab = Lab::serving(Function(origin)).await;
    let (peer, left) = (lab.h2(&[]).await, 96 << 20);
    let announced = Vec::new();
    let mut browser = Browser { peer, announced, stream: 65_535, connection: 65_535, left };
    let answer = soon("the upload", browser.upload()).await;
    assert_eq!(answer, Ok(left.to_string().into_bytes()), "{:?}", browser.announced);
    assert!(browser.announced.is_sorted(), "{:?}", browser.announced);
    assert!(browser.announced.last() > Some(&(1 << 20)), "{:?}", browser.announced);
}

/// The same for a gateway of another make that our client has dialled.
#[tokio::test(start_paused = true)]
async fn a_foreign_gateway_is_never_told_of_a_lower_window() {
    let mut lab = Lab::default();
    lab.foreign_gateway = true;
    let ((peer, _ended), left) = (lab.client(Function(origin), &[]).await, 32 << 20);
    let announced = Vec::new();
    let mut gateway = Browser { peer, announced, stream: 65_535, connection: 65_535, left };
    let answer = soon("the upload", gateway.upload()).await;
    assert_eq!(answer, Ok(left.to_string().into_bytes()), "{:?}", gateway.announced);
    assert!(gateway.announced.is_sorted(), "{:?}", gateway.announced);
}

/// The same for a backend of another make, however many streams its tunnel carries.
#[tokio::test(start_paused = true)]
async fn a_foreign_backend_is_never_told_of_a_lower_window() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    let mut visitors = Vec::new();
    for _ in 0..800 {
        let mut visitor = lab.h1();
        visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        visitors.push(visitor);
    }
    until(|| lab.pool.all()[0].in_flight() == 800).await;
    let mut asked = 0;
    while asked < 800 {
        let came = soon("a frame", backend.any()).await.expect("the tunnel");
        assert!(came.kind != SETTINGS || came.flags & ACK != 0, "{came:?}");
        asked += usize::from(came.kind == HEADERS);
    }
    while let Ok(came) = timeout(Duration::from_secs(1), backend.any()).await {
        let came = came.expect("the tunnel");
        assert!(came.kind != SETTINGS || came.flags & ACK != 0, "{came:?}");
    }
}

/// RFC 9113 §6.9.1: FLOW_CONTROL_ERROR, once, whether or not the request's body goes on.
#[tokio::test(start_paused = true)]
async fn a_backend_that_overflows_a_streams_window_is_told_so() {
    for (method, flags) in [("GET", END_STREAM), ("POST", 0)] {
        let mut lab = Lab::default();
        let mut backend = lab.backend(&[]).await;
        // It takes nothing, so that no credit is given back.
        let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
        visitor.send(headers(1, flags, &request(method, "/"))).await;
        let stream = soon("the request", backend.request()).await.expect("the tunnel lives").stream;
        backend.send(headers(stream, 0, &[(":status", "200")])).await;
        for _ in 0..WINDOW / 16_384 + 1 {
            backend.send(data(stream, 0, &[0; 16_384])).await;
        }
        backend.send(frame(PING, 0, 0, b"the last")).await;
        let mut codes = Vec::new();
        loop {
            let frame = soon("a PONG", backend.next()).await.expect("the tunnel lives");
            match frame.kind {
                RST_STREAM => codes.push((frame.stream, frame.code())),
                PING if frame.payload == b"the last" => break,
                _ => {}
            }
        }
        assert_eq!(codes, [(stream, 3)], "{method}");
    }
}

/// A backend that says it is ours sends what its first windows allow, acknowledges no lower one, and
/// its visitors don't read. Its own streams end; what is held of all has an end, and its neighbours have room.
#[tokio::test(start_paused = true)]
async fn a_backend_that_ignores_lower_windows_ends_its_own_streams() {
    let mut lab = Lab::default();
    lab.hold_at_most(1 << 20);
    let ours = Identity { ours: true, ..Identity::default() };
    let mut backend = lab.backend_as(ours, &[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    let mut visitors = Vec::new();
    for _ in 0..2 {
        let mut visitor = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
        let asks = (0..50).map(|n| headers(2 * n + 1, END_STREAM, &get("/"))).collect::<Vec<_>>();
        visitor.send(asks.concat()).await;
        visitors.push(visitor);
    }
    let (mut most, mut asked) = (0, Vec::new());
    while asked.len() < 100 {
        // Not even SETTINGS are answered.
        let came = soon("a request", backend.any()).await.expect("the tunnel");
        asked.extend(Some(came.stream).filter(|_| came.kind == HEADERS));
    }
    for stream in asked {
        let body = data(stream, 0, &[0; 16_384]).repeat(15);
        let answer = [headers(stream, 0, &[(":status", "200")]), body].concat();
        assert!(backend.send(answer).await);
        most = most.max(lab.budget.held());
    }
    assert!(most > 1 << 20 && most < 4 << 20, "{most}");
    let mut reader = lab.h1();
    reader.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut ended, mut asked) = (0, None);
    while asked.is_none() {
        let came = soon("the next request", backend.any()).await.expect("the tunnel lives");
        ended += usize::from(came.kind == RST_STREAM);
        asked = Some(came.stream).filter(|_| came.kind == HEADERS);
    }
    let answer = data(asked.unwrap(), END_STREAM, &[0; 16_384]);
    backend.send([headers(asked.unwrap(), 0, &[(":status", "200")]), answer].concat()).await;
    assert_eq!(reader.answer().await.body.len(), 16_384);
    assert!((50..100).contains(&ended), "{ended}");
}

/// The same with nothing but heads, final ones and those before, for which there is no window.
#[tokio::test(start_paused = true)]
async fn heads_that_nobody_reads_are_counted_too() {
    let mut lab = Lab::default();
    lab.hold_at_most(1 << 20);
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 1000)]).await;
    let long = "x".repeat(16_000);
    let mut visitors = Vec::new();
    for _ in 0..4 {
        let mut visitor = lab.h2(&[]).await;
        let asks = (0..100).map(|n| headers(2 * n + 1, END_STREAM, &get("/"))).collect::<Vec<_>>();
        visitor.send(asks.concat()).await;
        visitors.push(visitor);
    }
    let mut most = 0;
    for _ in 0..400 {
        let stream = soon("a request", backend.request()).await.expect("the tunnel").stream;
        for (status, flags) in [("103", 0), ("103", 0), ("200", END_STREAM)] {
            let head = headers(stream, flags, &[(":status", status), ("x", &long)]);
            assert!(backend.send(head).await);
        }
        most = most.max(lab.budget.held());
    }
    assert!(most > 1 << 20 && most < 4 << 20, "{most}");
    // Those that were let in are whole; the others get a page, which has a body.
    let (mut whole, mut pages) = (0, 0);
    for mut visitor in visitors {
        for _ in 0..100 {
            let ended = async {
                loop {
                    let came = visitor.next().await.expect("the connection lives");
                    if came.is_end() {
                        return came.kind;
                    }
                }
            };
            let kind = soon("a response", ended).await;
            whole += usize::from(kind == HEADERS);
            pages += usize::from(kind == DATA);
        }
    }
    assert_eq!(whole + pages, 400);
    assert!(whole > 50 && pages > 50, "{whole}");
}

/// More than a tunnel's streams begin with.
const WINDOW: u32 = 256 * 1024;
