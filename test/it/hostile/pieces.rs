//! Bodies in pieces of a byte. What is there together goes on as one piece, in all four directions.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::origin::Origin;
use ptth_server::lab::Identity;
use ptth_test::peer::*;
use ptth_test::{Lab, OriginBox, Peer, soon};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, interval};

/// Pieces that a hostile peer sends at once.
const PIECES: usize = 40_000;
/// What one read takes of a socket, by our code or by h2's.
const READ: usize = 8 * 1024;

/// So many chunks of a byte, and the last one.
fn chunks(count: usize) -> Vec<u8> {
    [b"1\r\nx\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat()
}

/// So many DATA frames of a byte.
fn frames(stream: u32, count: usize) -> Vec<u8> {
    data(stream, 0, b"x").repeat(count)
}

/// Frames and bytes of the DATA that comes on `stream` until it ends, for which credit is given.
async fn count<IO>(peer: &mut Peer<IO>, stream: u32) -> (usize, usize)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    soon("the body's end", async {
        let (mut frames, mut bytes) = (0, 0);
        while let Some(frame) = peer.next().await {
            if frame.kind == DATA && frame.stream == stream {
                // The last one may be empty.
                frames += usize::from(!frame.payload.is_empty());
                bytes += frame.payload.len();
                peer.take(stream, frame.payload.len()).await;
            }
            if frame.stream == stream && frame.is_end() {
                assert_ne!(frame.kind, RST_STREAM, "reset after {bytes} bytes");
                return (frames, bytes);
            }
        }
        panic!("the connection ended after {bytes} bytes");
    })
    .await
}

/// All that came, in no more frames than its sender made us read, and one a KiB.
fn few((frames, bytes): (usize, usize), sent: usize) {
    assert_eq!(bytes, PIECES);
    let most = bytes / 1024 + sent / READ + 2;
    assert!(frames <= most, "{frames} frames for {bytes} bytes, {most} at most");
}

/// An HTTP/1.1 visitor.
#[tokio::test(start_paused = true)]
async fn a_visitors_chunks_of_a_byte_are_few_frames() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h1();
    let body = chunks(PIECES);
    visitor.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let stream = backend.request().await.expect("the request").stream;
    let (_, counted) = tokio::join!(visitor.send(&body), count(&mut backend, stream));
    few(counted, body.len());
}

/// An HTTP/2 visitor, who sends them faster than anybody looks, and isn't sent away for that.
#[tokio::test(start_paused = true)]
async fn a_visitors_frames_of_a_byte_are_few_frames() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, 0, &request("POST", "/"))).await;
    let stream = backend.request().await.expect("the request").stream;
    let body = [frames(1, PIECES), data(1, END_STREAM, b"")].concat();
    let (_, counted) = tokio::join!(visitor.send(&body), count(&mut backend, stream));
    few(counted, body.len());
}

/// An origin.
#[tokio::test]
async fn an_origins_chunks_of_a_byte_are_few_frames() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = [&head[..], &chunks(PIECES)].concat();
    let sent = response.len();
    let origin = OriginBox::raw(move |mut socket, _| {
        let response = response.clone();
        async move {
            ptth_test::origin::read_head(&mut socket).await;
            let _ = socket.write_all(&response).await;
            ptth_test::origin::until_closed(&mut socket).await;
        }
    })
    .await;
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let service =
        Origin::new(OriginAddress::Http { host, port }, &OriginOptions::default()).unwrap();
    let mut lab = Lab::default();
    let (mut gateway, _ended) = lab.client(service, &[]).await;
    gateway.send(headers(1, END_STREAM, &get("/"))).await;
    few(count(&mut gateway, 1).await, sent);
}

/// A backend, read by an HTTP/2 visitor.
#[tokio::test(start_paused = true)]
async fn a_backends_frames_of_a_byte_are_few_frames() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, END_STREAM, &get("/"))).await;
    let stream = backend.request().await.expect("the request").stream;
    let head = headers(stream, 0, &[(":status", "200")]);
    let body = [head, frames(stream, PIECES), data(stream, END_STREAM, b"")].concat();
    let (_, counted) = tokio::join!(backend.send(&body), count(&mut visitor, 1));
    few(counted, body.len());
}

/// The same, read by an HTTP/1.1 visitor, to whom each piece is a chunk.
#[tokio::test(start_paused = true)]
async fn a_backends_frames_of_a_byte_are_few_chunks() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h1();
    visitor.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let stream = backend.request().await.expect("the request").stream;
    let head = headers(stream, 0, &[(":status", "200")]);
    let body = [head, frames(stream, PIECES), data(stream, END_STREAM, b"")].concat();
    let reading = async {
        let mut wire = Vec::new();
        let mut read = [0; 4096];
        while !wire.ends_with(b"\r\n0\r\n\r\n") {
            let bytes = soon("a chunk", visitor.stream.read(&mut read)).await.expect("it lives");
            wire.extend_from_slice(&read[..bytes]);
        }
        wire
    };
    let (_, wire) = tokio::join!(backend.send(&body), reading);
    let bytes = wire.iter().filter(|byte| **byte == b'x').count();
    let lines = wire.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"x")).count();
    few((lines, bytes), body.len());
}

/// One piece each millisecond, for a second, to a backend that only listens: it gets a hundred.
#[tokio::test(start_paused = true)]
async fn pieces_that_trickle_wait_for_company_only_a_moment() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h1();
    visitor.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let stream = backend.request().await.expect("the request").stream;
    let mut clock = interval(Duration::from_millis(1));
    let (begun, mut sent, mut came, mut count) = (Instant::now(), Vec::new(), 0, 0);
    while came < 1000 {
        tokio::select! {
            frame = backend.next() => {
                let frame = frame.expect("the tunnel lives");
                assert_eq!((frame.kind, frame.stream), (DATA, stream));
                came += frame.payload.len();
                count += 1;
                let oldest: Instant = sent[came - frame.payload.len()];
                assert!(oldest.elapsed() < Duration::from_millis(50), "{:?}", oldest.elapsed());
            }
            now = clock.tick(), if sent.len() < 1000 => {
                visitor.send(b"1\r\nx\r\n").await;
                sent.push(now);
            }
        }
    }
    assert!((90..=120).contains(&count), "{count} frames in {:?}", begun.elapsed());
}

/// Who is answered isn't held up, however small and many his messages are.
#[tokio::test(start_paused = true)]
async fn a_dialogue_of_small_messages_is_not_slowed() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, 0, &request("POST", "/"))).await;
    let stream = backend.request().await.expect("the request").stream;
    backend.send(headers(stream, 0, &[(":status", "200")])).await;
    let begun = Instant::now();
    for round in 0..1000 {
        visitor.send(data(1, 0, b"question")).await;
        loop {
            let frame = soon("the question", backend.next()).await.expect("the tunnel lives");
            if frame.kind == DATA {
                break;
            }
        }
        backend.send(data(stream, 0, b"answer")).await;
        loop {
            let frame = soon("the answer", visitor.next()).await.expect("the connection lives");
            if frame.kind == DATA {
                break;
            }
        }
        assert!(begun.elapsed() < Duration::from_millis(20), "{round}: {:?}", begun.elapsed());
    }
}

/// Chunks of every size, cut anywhere, with extensions and trailers: the body is what it was.
#[tokio::test(start_paused = true)]
async fn chunks_that_are_merged_are_the_same_body() {
    let mut lab = Lab::default();
    let io = lab.tunnel(Identity::default());
    lab.spawn(foreign(io));
    lab.pool.until(|tunnels| tunnels.len() == 1).await;
    let sizes = [1, 1, 4095, 1, 4096, 1, 20_000, 3, 4097, 2];
    let mut wire = Vec::new();
    let mut body = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        let data: Vec<u8> = (0..size).map(|at| (at % 251 + n) as u8).collect();
        wire.extend_from_slice(format!("{size:x};n={n}\r\n").as_bytes());
        wire.extend_from_slice(&data);
        wire.extend_from_slice(b"\r\n");
        body.extend_from_slice(&data);
    }
    wire.extend_from_slice(b"0\r\nx-sum: 7\r\n\r\n");
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for cut in [1, 3, 6, 4095, 4101, 16_384, 100_000] {
        let mut visitor = lab.h1();
        visitor.send(head).await;
        for piece in wire.chunks(cut) {
            visitor.send(piece).await;
            tokio::task::yield_now().await;
        }
        // The same connection serves on.
        visitor.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await;
        assert!(visitor.answer().await.body == body, "in pieces of {cut}");
        assert_eq!(visitor.answer().await.text(), "ok", "in pieces of {cut}");
    }
}

/// A backend with all of the h2 crate's defaults, that echoes at `/echo` and never reads what is elsewhere.
async fn foreign(io: DuplexStream) {
    let mut connection = h2::server::handshake(io).await.expect("the gateway");
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        streams.spawn(async move {
            let (head, mut body) = request.into_parts();
            if head.uri.path() != "/echo" {
                return std::future::pending().await;
            }
            let Ok(mut echo) = respond.send_response(Response::new(()), false) else { return };
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                let _ = echo.send_data(data, false);
            }
            let _ = echo.send_data(Bytes::new(), true);
        });
    }
}

/// A backend that counts them, and doesn't read. The tunnel is everybody's.
#[tokio::test(start_paused = true)]
async fn chunks_of_a_byte_do_not_end_the_tunnel_of_a_backend_that_counts() {
    let mut lab = Lab::default();
    let io = lab.tunnel(Identity::default());
    lab.spawn(foreign(io));
    lab.pool.until(|tunnels| tunnels.len() == 1).await;
    let mut visitor = lab.h1();
    visitor.send("POST /hang HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // Each of them comes alone.
    for _ in 0..PIECES {
        visitor.send(b"1\r\nx\r\n").await;
        tokio::task::yield_now().await;
    }
    let mut other = lab.h1();
    other.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(other.answer().await.text(), "ok");
}
