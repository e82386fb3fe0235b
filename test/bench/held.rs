//! What connections and streams cost that are only held: idle, half sent, or not read.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use ptth_test::Peer;
use ptth_test::peer::{credit, get, headers};
use rustls::HandshakeKind;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::load::{Load, percentiles};
use crate::subject::Subject;
use crate::visit::{Http1, Http2, connect, failed, fine, request};
use crate::world::World;
use crate::{Values, Void, add_cpu, within};

/// Memory of the programs now, once it has come to rest.
fn rest(subject: &Subject) -> Vec<(&'static str, u64)> {
    std::thread::sleep(Duration::from_secs(1));
    subject.resident()
}

/// Adds what each program has more than before, in KiB for each of `count`.
fn add_growth(
    values: &mut Values,
    before: &[(&'static str, u64)],
    after: &[(&'static str, u64)],
    count: u32,
) {
    let each = |(before, after): (&(&str, u64), &(&str, u64))| {
        after.1.saturating_sub(before.1) as f64 / 1024.0 / f64::from(count)
    };
    let grown: Vec<f64> = before.iter().zip(after).map(each).collect();
    for (name, kib) in ["kib_gateway", "kib_client"].into_iter().zip(&grown) {
        values.insert(name, *kib);
    }
    values.insert("kib", grown.iter().sum());
}

/// Connections that have had a response and are kept.
pub(crate) fn idle(subject: &Subject, count: u32) -> Result<Values, Void> {
    let before = rest(subject);
    let to = subject.address;
    within(async {
        let opened = many(count, |number| async move {
            let io = connect(to, spread(number), b"h2", None).await?;
            let mut peer = Peer::asking(io, &[]).await;
            peer.send(headers(1, END_STREAM | END_HEADERS, &get("/1k"))).await;
            match peer.outcome(1).await {
                ptth_test::peer::Outcome::Response(status, _) => fine(status)?,
                other => return Err(Void(format!("{other:?}"))),
            }
            Ok(peer)
        });
        let kept = opened.await?;
        let after = rest_in(subject).await;
        let mut values = Values::new();
        add_growth(&mut values, &before, &after, count);
        drop(kept);
        Ok(values)
    })
}

/// Streams of which a byte of the upload has come, and no more yet.
pub(crate) fn streams(subject: &Subject, count: u32) -> Result<Values, Void> {
    let to = subject.address;
    within(async {
        let mut connections = Vec::new();
        for number in 0..count.div_ceil(EACH) {
            let mut visitor = Http2::connect(to, spread(number)).await?;
            visitor.get("/1k", 1024).await?;
            connections.push(visitor);
        }
        let before = rest_in(subject).await;
        let mut open = Vec::new();
        for number in 0..count {
            let Some(visitor) = connections.get_mut((number / EACH) as usize) else { break };
            let mut request = request(Method::PUT, &format!("/put/s{number}"));
            request.headers_mut().insert("content-length", 2.into());
            let sender = visitor.sender.clone().ready().await;
            let opened = sender.map_err(failed)?.send_request(request, false);
            let (response, mut stream) = opened.map_err(failed)?;
            stream.send_data(Bytes::from_static(b"1"), false).map_err(failed)?;
            open.push((response, stream));
        }
        let after = rest_in(subject).await;
        for (response, mut stream) in open {
            stream.send_data(Bytes::from_static(b"2"), true).map_err(failed)?;
            fine(response.await.map_err(failed)?.status().as_u16())?;
        }
        let mut values = Values::new();
        add_growth(&mut values, &before, &after, count);
        Ok(values)
    })
}

/// Visitors who stop reading a gibibyte: what they cost, and what others feel of it.
pub(crate) fn stalled(
    world: &World,
    subject: &Subject,
    count: u32,
    load: Load,
) -> Result<Values, Void> {
    let calm = load.run(world, subject)?;
    let before = rest(subject);
    let to = subject.address;
    within(async {
        let opened = many(count, |number| async move {
            let from = spread(number);
            if number % 2 == 0 {
                let io = connect(to, from, b"http/1.1", Some(SMALL)).await?;
                let mut visitor = Http1(io);
                visitor.ask("/1g").await?;
                return Ok(Stalled::Http1(visitor));
            }
            let io = connect(to, from, b"h2", Some(SMALL)).await?;
            // He grants all there is, and reads nothing of it.
            let mut peer = Peer::asking(io, &[(INITIAL_WINDOW_SIZE, WIDEST)]).await;
            peer.send(credit(0, WIDEST - 65_535)).await;
            peer.send(headers(1, END_STREAM | END_HEADERS, &get("/1g"))).await;
            Ok(Stalled::Http2(peer))
        });
        let kept = opened.await?;
        sleep(Duration::from_secs(2)).await;
        let mut values = load.run(world, subject)?;
        let after = rest_in(subject).await;
        let grown = |list: &[(&str, u64)]| list.iter().map(|it| it.1).sum::<u64>() as f64;
        values.insert("grown_mib", (grown(&after) - grown(&before)) / 1048576.0);
        if let (Some(before), Some(after)) = (calm.get("p99_us"), values.get("p99_us").copied()) {
            values.insert("p99_ratio", after / before);
        }
        drop(kept);
        Ok(values)
    })
}

enum Stalled<A, B> {
    Http1(#[allow(dead_code, reason = "held open")] A),
    Http2(#[allow(dead_code, reason = "held open")] B),
}

/// Full TLS handshakes, eight at a time, each connection closed again.
pub(crate) fn handshakes(subject: &Subject, count: u32) -> Result<Values, Void> {
    let to = subject.address;
    let before = subject.cpu();
    let begun = Instant::now();
    let made = within(many(count, |number| async move {
        let begun = Instant::now();
        let stream = connect(to, spread(number), b"h2", None).await?;
        let took = begun.elapsed().as_secs_f64() * 1e6;
        match stream.get_ref().1.handshake_kind() {
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => Ok(took),
            other => Err(Void(format!("a handshake wasn't full: {other:?}"))),
        }
    }));
    let (p50, p99) = percentiles(made?);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = f64::from(count) / seconds;
    let mut values = Values::from([("handshakes_s", rate), ("p50_us", p50), ("p99_us", p99)]);
    add_cpu(&mut values, &before, &subject.cpu(), "us_handshake", count.into());
    Ok(values)
}

/// What the programs are when nobody has come yet.
pub(crate) fn footprint(world: &World, subject: &Subject) -> Values {
    let mut values = Values::new();
    let mib = |bytes: u64| bytes as f64 / 1048576.0;
    for (name, (_, bytes)) in ["mib_gateway", "mib_client"].into_iter().zip(rest(subject)) {
        values.insert(name, mib(bytes));
    }
    let files = ["mib_gateway_file", "mib_client_file"];
    for (name, (_, bytes)) in files.into_iter().zip(subject.binaries(&world.bin)) {
        values.insert(name, mib(bytes));
    }
    values
}

async fn rest_in(subject: &Subject) -> Vec<(&'static str, u64)> {
    sleep(Duration::from_secs(1)).await;
    subject.resident()
}

/// Does it so many times, eight at a time.
async fn many<T, F>(count: u32, make: impl Fn(u32) -> F) -> Result<Vec<T>, Void>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Void>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut made = Vec::new();
    for number in 0..count {
        if running.len() == 8
            && let Some(done) = running.join_next().await
        {
            made.push(done.map_err(|err| Void(err.to_string()))??);
        }
        running.spawn(make(number));
    }
    while let Some(done) = running.join_next().await {
        made.push(done.map_err(|err| Void(err.to_string()))??);
    }
    Ok(made)
}

/// An address has only so many ports, and a share of a gateway that others need, too.
fn spread(number: u32) -> u8 {
    u8::try_from(number % 20).unwrap_or(0) + 2
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
const WIDEST: u32 = (1 << 31) - 1;
/// What a kernel keeps for a visitor who doesn't read.
const SMALL: u32 = 64 * 1024;
/// Streams that a connection may have, by the smallest limit among the subjects.
const EACH: u32 = 100;
