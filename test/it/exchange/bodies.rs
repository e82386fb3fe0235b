//! Bodies of every size, both ways.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use ptth_test::h2::send;
use ptth_test::{Ask, Backend, Dialect, GatewayBox, H1, H2, OriginBox};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

const MIB: usize = 1 << 20;

/// An origin that sends each body back, as it comes.
async fn echo() -> OriginBox {
    OriginBox::http(|request| async move { Response::new(request.into_body()) }).await
}

fn pattern(length: usize) -> Vec<u8> {
    // A prime period, so that a block that is lost or doubled shows.
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn a_body_comes_back_byte_for_byte() {
    let gateway = GatewayBox::start();
    let origin = echo().await;
    let backend = Backend::of(&gateway, &origin).await;
    every_size(&gateway).await;
    drop(backend);
    gateway.until_tunnels(0).await;
    let _backend = Backend::demo(&gateway).await;
    every_size(&gateway).await;
}

async fn every_size(gateway: &GatewayBox) {
    for dialect in Dialect::BOTH {
        for length in [0, 1, 16 * 1024, MIB] {
            let answer = dialect.ask(gateway, &Ask::post("/echo", pattern(length))).await;
            assert_eq!(answer.status, 200, "{dialect:?} {length}");
            assert!(answer.complete, "{dialect:?} {length}");
            assert!(
                answer.body == pattern(length),
                "{dialect:?}: {length} bytes came back changed"
            );
        }
    }
}

#[tokio::test]
async fn a_chunked_body_comes_back() {
    let gateway = GatewayBox::start();
    let origin = echo().await;
    let _backend = Backend::of(&gateway, &origin).await;
    let request = "POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   1\r\na\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    let answer = H1::ask(&gateway, request).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "a0123456789abcdef"));
    assert!(answer.complete);
}

/// The same as the heavy one below, on 32 MiB, which is more than any window.
#[tokio::test]
async fn a_large_body_streams_through() {
    let gateway = GatewayBox::start();
    let origin = echo().await;
    let _backend = Backend::of(&gateway, &origin).await;
    tokio::join!(stream_h1(&gateway, 32 * MIB), stream_h2(&gateway, 32 * MIB));
}

/// 1 GiB there and back, and this process, which is visitor, gateway, backend and origin in one,
/// never holds more than the budgets of gateway and client and the windows of the visitors.
#[tokio::test]
#[ignore = "heavy: run by .ci/run in release"]
async fn a_gibibyte_streams_through_flat_memory() {
    let gateway = GatewayBox::start();
    let origin = echo().await;
    let _backend = Backend::of(&gateway, &origin).await;
    let before = resident();
    stream_h1(&gateway, 1 << 30).await;
    stream_h2(&gateway, 1 << 30).await;
    let grown = peak().saturating_sub(before);
    assert!(grown < 256 * MIB, "grew by {} MiB", grown / MIB);
}

fn resident() -> usize {
    status("VmRSS:")
}

fn peak() -> usize {
    status("VmHWM:")
}

/// A number of /proc/self/status, in bytes.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the line");
    line.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<usize>().ok()).expect("kB") * 1024
}

async fn stream_h1(gateway: &GatewayBox, total: usize) {
    let block = pattern(251 * 1024);
    let visitor = H1::connect(gateway).await;
    let (mut reader, mut writer) = tokio::io::split(visitor.stream);
    let upload = async {
        let head =
            format!("POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: {total}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("the gateway reads");
        let mut left = total;
        while left > 0 {
            let part = left.min(block.len());
            writer.write_all(&block[..part]).await.expect("the gateway reads");
            left -= part;
        }
        writer.flush().await.expect("the gateway reads");
    };
    let download = async {
        let head = ptth_test::origin::read_head(&mut reader).await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let chunked = head.contains("transfer-encoding: chunked");
        let mut check = Check::new(total);
        let mut buffer = Vec::new();
        while check.left > 0 {
            let size = if chunked {
                let line = ptth_test::origin::read_until(&mut reader, b"\r\n").await;
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                usize::from_str_radix(&line, 16).expect("a chunk's size")
            } else {
                check.left.min(64 * 1024)
            };
            buffer.resize(size + if chunked { 2 } else { 0 }, 0);
            tokio::io::AsyncReadExt::read_exact(&mut reader, &mut buffer).await.expect("the body");
            check.take(&buffer[..size]);
        }
    };
    let both = async { tokio::join!(upload, download) };
    timeout(PATIENCE, both).await.expect("the transfer goes on");
}

async fn stream_h2(gateway: &GatewayBox, total: usize) {
    let block = Bytes::from(pattern(251 * 1024));
    let visitor = H2::connect(gateway).await;
    let head = Ask::new("POST", "/").head();
    let (response, mut stream) = visitor.open(head, false).await;
    let upload = async {
        let mut left = total;
        while left > 0 {
            let part = left.min(block.len());
            left -= part;
            assert!(send(&mut stream, block.slice(..part), left == 0).await, "the upload goes on");
        }
    };
    let download = async {
        let mut body = response.await.expect("a response").into_body();
        let mut check = Check::new(total);
        while let Some(data) = body.data().await {
            let data = data.expect("the body");
            let _ = body.flow_control().release_capacity(data.len());
            check.take(&data);
        }
        assert_eq!(check.left, 0);
    };
    let both = async { tokio::join!(upload, download) };
    timeout(PATIENCE, both).await.expect("the transfer goes on");
}

/// Holds a body to the pattern without keeping it.
struct Check {
    at: usize,
    left: usize,
}

impl Check {
    fn new(total: usize) -> Self {
        Self { at: 0, left: total }
    }

    fn take(&mut self, data: &[u8]) {
        let as_sent = data.iter().enumerate().all(|(n, b)| *b == ((self.at + n) % 251) as u8);
        assert!(as_sent, "something changed after {} bytes", self.at);
        self.at += data.len();
        self.left = self.left.checked_sub(data.len()).expect("no more than was sent");
    }
}

/// The harness's own deadline is for tests that move kilobytes.
const PATIENCE: Duration = Duration::from_secs(600);
