//! Exchanges that are broken off at random points, by the hundred thousand, and the accounts of
//! every window they went through.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_link::limits::TUNNEL_CONNECTION_WINDOW;
use ptth_server::lab::Identity;
use ptth_test::lab::Function;
use ptth_test::{Dice, H1, Lab, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::select;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, advance};

use super::super::until;
use super::ledger::{Answerer, Asker, Books};
use super::plan::{Plan, When};

/// Visitors over HTTP/1.1 and HTTP/2 break off so many exchanges, by a reset or by
/// closing, before the head, in it, anywhere in the body, when a window is shut, and at the very end. Then
/// each window is whole to the byte: the visitors' and the tunnel's, as the other end of each counts it.
async fn broken_by_visitors(count: usize, large: usize) {
    let (mut dice, _told) = Dice::told(1);
    let mut lab = Lab::default();
    let io = lab.tunnel(Identity { ours: true, ..Identity::default() });
    let mut backend = Answerer::new(io, 1000).await;
    let up = lab.pool.clone();
    beside(&mut backend, up.until(|tunnels| tunnels.len() == 1)).await;
    let tunnel = lab.pool.all()[0].clone();
    let begun_with = backend.books().initial;
    beside(&mut backend, visits(&mut lab, count, &mut dice)).await;
    beside(&mut backend, until(|| tunnel.in_flight() == 0)).await;
    assert_eq!(lab.budget.held(), 0);
    // Two large downloads: after the first, the streams' window is as wide again as it was.
    for size in [(64 << 20) + 1, large + 1] {
        advance(Duration::from_secs(2)).await;
        let begun = Instant::now();
        let mut visitor = lab.h1().stream;
        beside(&mut backend, download(&mut visitor, size)).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "somebody waited for something");
    }
    assert!(backend.books().initial >= begun_with, "{} B a stream", backend.books().initial);
    let mut visitor = lab.h1().stream;
    while backend.books().connection > LATE {
        beside(&mut backend, download(&mut visitor, (1 << 20) + 1)).await;
    }
    let credits = backend.books().credits;
    while backend.books().credits == credits {
        assert!(backend.books().connection > WHOLE / 2, "no credit comes");
        beside(&mut backend, download(&mut visitor, STEP)).await;
        // Credit for this step is not to be seen at the next one only.
        backend.settle().await;
    }
    assert_whole(backend.books());
    assert_eq!(lab.pool.all().len(), 1, "the tunnel lives");
}

/// Right after credit came, all of the window is there; but for the last step, which may have brought the
/// credit on when it came in, and not when it was given back.
fn assert_whole(books: &Books) {
    let gone = WHOLE - books.connection;
    assert!(gone == 0 || gone == STEP as i64, "{gone} bytes of the window are gone");
}

/// Does `work` while the backend answers.
async fn beside<T>(backend: &mut Answerer, work: impl Future<Output = T>) -> T {
    select! {
        done = work => done,
        () = backend.serve() => unreachable!("it serves for ever"),
    }
}

async fn visits(lab: &mut Lab, count: usize, dice: &mut Dice) {
    let (mut running, mut kept) = (JoinSet::new(), Vec::new());
    for n in 0..count {
        if n >= AT_ONCE
            && let Some(done) = running.join_next().await
        {
            kept.extend(done.expect("a visitor"));
        }
        let (plan, mut dice) = (Plan::draw(dice), dice.split());
        if dice.one_in(3) {
            let visitor = lab.h1();
            running.spawn(async move {
                soon("a visit", visit_h1(visitor.stream, plan, dice)).await;
                None
            });
            continue;
        }
        let asker = match kept.pop() {
            Some(asker) => asker,
            None => Asker::new(lab.h2_socket(), WINDOWS[dice.below(4) as usize]).await,
        };
        running.spawn(async move { visit_h2(asker, plan, dice).await });
    }
    while let Some(done) = running.join_next().await {
        kept.extend(done.expect("a visitor"));
    }
    for asker in &mut kept {
        asker.spend().await;
    }
}

/// Breaks one exchange off; the connection, if it is still there and may be used.
async fn visit_h2(mut asker: Asker, plan: Plan, mut dice: Dice) -> Option<Asker> {
    let whole = asker.exchange(&plan, &mut dice).await;
    if dice.one_in(8) {
        return None;
    }
    if !whole || dice.one_in(4) {
        asker.reset().await;
    }
    // Fewer than a visitor may take back before he is sent away.
    if asker.count() < 90 {
        return Some(asker);
    }
    asker.spend().await;
    None
}

/// Asks, reads so many bytes of whatever comes, and closes.
async fn visit_h1(mut io: DuplexStream, plan: Plan, mut dice: Dice) {
    let mut visitor = H1::over(&mut io);
    let (method, path) = (plan.method(), plan.path());
    let length = plan.upload;
    visitor
        .send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"))
        .await;
    let early = plan.point < plan.upload;
    let body = vec![7; plan.upload.min(plan.point)];
    // Who answers before the end may close when it has come.
    let sent = visitor.try_send(body).await.is_ok();
    if sent && !early && plan.when != When::Never {
        let mut left = (plan.point - plan.upload).min(plan.download);
        let mut some = vec![0; 16 * 1024];
        while left > 0 {
            let most = left.min(some.len());
            match io.read(&mut some[..most]).await.expect("a response") {
                0 => break,
                read => left -= read,
            }
        }
    }
    for _ in 0..dice.below(8) {
        yield_now().await;
    }
}

/// Over HTTP/1.1, with its bytes only counted.
async fn download(visitor: &mut DuplexStream, size: usize) {
    let path = Plan::whole(0, size).path();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    visitor.write_all(request.as_bytes()).await.expect("the gateway reads");
    let (mut head, mut got, mut some) = (Vec::new(), 0, vec![0; 64 * 1024]);
    while got < size {
        let read = soon("the download", visitor.read(&mut some)).await.expect("a response");
        assert!(read > 0, "cut after {got} bytes");
        if got > 0 {
            got += read;
            continue;
        }
        head.extend_from_slice(&some[..read]);
        if let Some(end) = head.windows(4).position(|it| it == b"\r\n\r\n") {
            got = head.len() - end - 4;
        }
    }
    assert_eq!(got, size);
}

/// The client's end of a tunnel, of which a gateway breaks off so many exchanges. Then
/// both windows are whole to the byte: the gateway's, which downloads use, and the client's, which uploads use.
async fn broken_by_a_gateway(count: usize) {
    let (mut dice, _told) = Dice::told(2);
    let mut lab = Lab::default();
    let (io, _ended) = lab.client_socket(Function(|request: Request<Body>| async move {
        let (when, size) = Plan::parse(request.uri().path());
        match when {
            When::AtOnce => {}
            When::After => drop(request.into_body().collect().await),
            When::Never => std::future::pending().await,
        }
        Response::new(Full::new(Bytes::from(vec![7; size])))
    }));
    let mut gateway = Asker::new(io, 65_535).await;
    for _ in 0..count {
        let plan = Plan::draw(&mut dice);
        let whole = gateway.exchange(&plan, &mut dice).await;
        if !whole || dice.one_in(4) {
            gateway.reset().await;
        }
    }
    gateway.spend().await;
    until(|| lab.client_budget.held() == 0).await;
    while gateway.books().connection > LATE {
        assert!(gateway.exchange(&Plan::whole(1 << 20, 1), &mut dice).await);
    }
    let credits = gateway.books().credits;
    while gateway.books().credits == credits {
        assert!(gateway.books().connection > WHOLE / 2, "no credit comes");
        assert!(gateway.exchange(&Plan::whole(STEP, 1), &mut dice).await);
        gateway.settle().await;
    }
    assert_whole(gateway.books());
}

#[tokio::test(start_paused = true)]
async fn trap_8_exchanges_that_visitors_break_off_leave_every_window_whole() {
    broken_by_visitors(500, 64 << 20).await;
}

#[tokio::test(start_paused = true)]
async fn trap_8_exchanges_that_a_gateway_breaks_off_leave_every_window_whole() {
    broken_by_a_gateway(500).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "heavy: run by .ci/run in release"]
async fn trap_8_a_hundred_thousand_aborted_downloads_leave_every_window_whole() {
    broken_by_visitors(100_000, 1 << 30).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "heavy: run by .ci/run in release"]
async fn trap_8_a_hundred_thousand_aborts_by_a_gateway_leave_every_window_whole() {
    broken_by_a_gateway(100_000).await;
}

/// Of one frame; and odd, as are all whole downloads here, so that they have a length.
const STEP: usize = 9_973;
/// Visitors side by side.
const AT_ONCE: usize = 8;
/// What their streams' windows are.
const WINDOWS: [u32; 4] = [1, 1000, 65_535, 1 << 20];
const WHOLE: i64 = TUNNEL_CONNECTION_WINDOW as i64;
/// h2 gives credit back when a third of the window is used up; this is shortly before.
const LATE: i64 = WHOLE / 3 * 2 + (3 << 20);
