//! Floods. The one who floods loses his connection or is slowed down, and nobody else notices:
//! neither another visitor nor the gateway's memory.

use std::time::Duration;

use ptth_client::demo::Demo;
use ptth_test::peer::*;
use ptth_test::{Backend, Peer, ServerProcess, connect_to};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::{ask, until, up, visitor, witness};

type Attacker = Peer<TlsStream<TcpStream>>;

/// A gateway in a process of its own, with a backend that answers at once.
async fn gateway() -> (ServerProcess, Backend) {
    let gateway = ServerProcess::start(&[]);
    let backend = up(&gateway, Demo).await;
    (gateway, backend)
}

async fn attacker(gateway: &ServerProcess, settings: &[(u16, u32)]) -> Attacker {
    let io = connect_to(gateway.address, &[b"h2"]).await.expect("TLS");
    Peer::asking(io, settings).await
}

/// How a flood ended.
#[derive(Debug)]
struct Flood {
    /// The gateway closed the connection, and this is its GOAWAY's code.
    closed: Option<Option<u32>>,
}

/// Sends `next(0)`, `next(1)`, … for a while or until the gateway closes, reading what comes if `reads`,
/// while another visitor asks again and again; then looks at the gateway's memory.
async fn flood(
    gateway: &ServerProcess,
    mut attacker: Attacker,
    reads: bool,
    next: impl Fn(u32) -> Vec<u8>,
) -> Flood {
    let mut visitor = visitor(gateway).await;
    assert_eq!(ask(&mut visitor).await.status, 200);
    let before = gateway.resident();
    let start = Instant::now();
    let attack = async {
        let (mut code, mut n) = (None, 0);
        while start.elapsed() < LASTING {
            let mut chunk = Vec::new();
            while chunk.len() < 8 * 1024 {
                chunk.extend(next(n));
                n += 1;
            }
            // A gateway that stops reading has slowed the flood down, which is as good.
            match timeout(LASTING, attacker.send(chunk)).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return None,
            }
            while reads && let Ok(frame) = timeout(Duration::from_millis(1), attacker.next()).await
            {
                match frame {
                    Some(frame) if frame.kind == GOAWAY => code = Some(frame.code()),
                    Some(_) => {}
                    None => return Some(code),
                }
            }
        }
        match timeout(Duration::from_millis(200), attacker.end()).await {
            Ok(last) => Some(last.or(code)),
            Err(_) => None,
        }
    };
    let mut slowest = Duration::ZERO;
    let others = async {
        loop {
            let asked = Instant::now();
            assert_eq!(ask(&mut visitor).await.text(), "Transmission is possible!\n");
            slowest = slowest.max(asked.elapsed());
        }
    };
    let closed = tokio::select! {
        closed = attack => closed,
        () = others => None,
    };
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "the gateway grew by {} KiB", grown / 1024);
    assert!(slowest < Duration::from_secs(5), "another visitor waited {slowest:?}");
    assert_eq!(ask(&mut visitor).await.status, 200, "after the flood");
    Flood { closed }
}

const LASTING: Duration = Duration::from_millis(400);
const CALM: Option<Option<u32>> = Some(Some(11));

fn stream(n: u32) -> u32 {
    n * 2 + 1
}

/// CVE-2023-44487
#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let (gateway, _backend) = gateway().await;
    let attacker = attacker(&gateway, &[]).await;
    let flood = flood(&gateway, attacker, true, |n| {
        [headers(stream(n), END_STREAM, &get("/")), reset(stream(n), 8)].concat()
    });
    assert_eq!(flood.await.closed, CALM);
}

/// CVE-2025-8671: the attacker makes the gateway do the resetting.
#[tokio::test]
async fn made_you_reset_ends_the_connection() {
    let (gateway, _backend) = gateway().await;
    let attacker = attacker(&gateway, &[]).await;
    let fields: Vec<_> =
        request("POST", "/").into_iter().chain([("content-length", "1")]).collect();
    let flood = flood(&gateway, attacker, true, |n| {
        [headers(stream(n), 0, &fields), data(stream(n), 0, b"too much")].concat()
    });
    assert_eq!(flood.await.closed, CALM);
}

/// The same by heads that h2 lets pass and the gateway doesn't,
/// each only when the one before was refused.
#[tokio::test(start_paused = true)]
async fn malformed_heads_again_and_again_end_the_connection() {
    let (mut lab, _, _release) = witness().await;
    let mut visitor = lab.h2(&[]).await;
    let fields: Vec<_> = get("/").into_iter().chain([("x", " padded")]).collect();
    for n in 0..100 {
        visitor.send(headers(stream(n), END_STREAM, &fields)).await;
        assert_eq!(visitor.outcome(stream(n)).await, Outcome::Reset(0, 1), "{n}");
    }
    visitor.send(headers(stream(100), END_STREAM, &fields)).await;
    assert_eq!(visitor.end().await, Some(11));
}

/// A request that was passed on and is taken back costs a backend's work.
#[tokio::test(start_paused = true)]
async fn cancelling_what_was_passed_on_ends_the_connection() {
    let (mut lab, seen, _release) = witness().await;
    let mut visitor = lab.h2(&[]).await;
    for n in 0..101 {
        visitor.send(headers(stream(n), END_STREAM, &get("/hold"))).await;
        until(|| seen.all().len() as u32 == 2 * (n + 1)).await;
        visitor.send(reset(stream(n), 8)).await;
        until(|| lab.pool.all()[0].in_flight() == 0).await;
    }
    assert_eq!(visitor.end().await, Some(11));
}

/// VU#421644
#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let (gateway, _backend) = gateway().await;
    for piece in [Vec::new(), block(&[("a", "b")]), block(&[("a", "x".repeat(4000).as_str())])] {
        let mut attacker = attacker(&gateway, &[]).await;
        attacker.send(frame(HEADERS, END_STREAM, 1, &block(&get("/")))).await;
        let flood = flood(&gateway, attacker, true, |_| frame(CONTINUATION, 0, 1, &piece));
        assert!(flood.await.closed.is_some(), "{} B", piece.len());
    }
}

#[tokio::test]
async fn settings_that_nobody_reads_the_acks_of_do_not_pile_up() {
    let (gateway, _backend) = gateway().await;
    for reads in [false, true] {
        let attacker = attacker(&gateway, &[]).await;
        flood(&gateway, attacker, reads, |n| settings(&[(INITIAL_WINDOW_SIZE, n % 2)])).await;
    }
}

#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_do_not_pile_up() {
    let (gateway, _backend) = gateway().await;
    for reads in [false, true] {
        let attacker = attacker(&gateway, &[]).await;
        flood(&gateway, attacker, reads, |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())).await;
    }
}

#[tokio::test]
async fn empty_data_frames_end_the_connection() {
    let (gateway, _backend) = gateway().await;
    let mut attacker = attacker(&gateway, &[]).await;
    attacker.send(headers(1, 0, &request("POST", "/"))).await;
    let flood = flood(&gateway, attacker, true, |_| data(1, 0, b""));
    assert_eq!(flood.await.closed, CALM);
}

/// One byte a frame, with 255 of padding.
#[tokio::test]
async fn padded_data_frames_do_not_pile_up() {
    let (gateway, _backend) = gateway().await;
    let mut attacker = attacker(&gateway, &[]).await;
    attacker.send(headers(1, 0, &request("POST", "/"))).await;
    let padded = [&[255][..], b"x", &[0; 255]].concat();
    flood(&gateway, attacker, true, |_| frame(DATA, 8, 1, &padded)).await;
}

#[tokio::test]
async fn credit_in_crumbs_harms_nobody_and_too_much_ends_the_connection() {
    let (gateway, _backend) = gateway().await;
    let crumbs = attacker(&gateway, &[]).await;
    flood(&gateway, crumbs, true, |_| credit(0, 1)).await;
    let greedy = attacker(&gateway, &[]).await;
    let flood = flood(&gateway, greedy, true, |_| credit(0, 0x7fff_ffff));
    // FLOW_CONTROL_ERROR
    assert_eq!(flood.await.closed, Some(Some(3)));
}

#[tokio::test]
async fn priorities_harm_nobody() {
    let (gateway, _backend) = gateway().await;
    let attacker = attacker(&gateway, &[]).await;
    flood(&gateway, attacker, true, |n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 16])).await;
}

#[tokio::test]
async fn resets_of_streams_that_never_were_end_the_connection() {
    let (gateway, _backend) = gateway().await;
    let attacker = attacker(&gateway, &[]).await;
    let flood = flood(&gateway, attacker, true, |n| reset(stream(n), 8));
    assert!(flood.await.closed.is_some());
}

#[tokio::test]
async fn frames_of_unknown_types_harm_nobody() {
    let (gateway, _backend) = gateway().await;
    let attacker = attacker(&gateway, &[]).await;
    flood(&gateway, attacker, true, |n| frame(0x40 + n as u8 % 64, 0xff, n, &[7; 64])).await;
}

/// One large field in the dynamic table, and then references of a byte each (CVE-2016-6581).
#[tokio::test]
async fn an_hpack_bomb_does_not_unfold() {
    let (gateway, _backend) = gateway().await;
    let attacker = attacker(&gateway, &[]).await;
    // Literal with incremental indexing, a new name: "x".
    // Then the length 3900 behind a prefix of seven bits.
    let mut large = vec![0x40, 1, b'x', 127, (3900 - 127) as u8 | 128, ((3900 - 127) >> 7) as u8];
    large.extend([b'y'; 3900]);
    let flood = flood(&gateway, attacker, true, |n| {
        let mut fields = block(&get("/"));
        if n == 0 {
            fields.extend(&large);
        } else {
            // Index 62 is the newest entry of the dynamic table.
            fields.extend([0x80 | 62; 8000]);
        }
        frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &fields)
    });
    flood.await;
}

/// A table as large as the visitor likes, which he pays for alone.
#[tokio::test]
async fn a_huge_header_table_stays_small() {
    let (gateway, _backend) = gateway().await;
    let mut attacker = attacker(&gateway, &[]).await;
    attacker.send(settings(&[(HEADER_TABLE_SIZE, u32::MAX)])).await;
    flood(&gateway, attacker, true, |n| {
        let path = format!("/{n}");
        headers(stream(n), END_STREAM, &get(&path))
    })
    .await;
}

/// Answers that a shut window holds back are as many as there may be streams.
#[tokio::test]
async fn answers_that_nobody_takes_do_not_pile_up() {
    let (gateway, _backend) = gateway().await;
    for path in ["/", "/%20", "bad"] {
        let attacker = attacker(&gateway, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        flood(&gateway, attacker, false, |n| headers(stream(n), END_STREAM, &get(path))).await;
    }
}
