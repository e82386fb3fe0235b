//! The h2 crate as the core of a shared tunnel: what it does to a connection that strangers share.

mod aborts;
mod credit;
mod ledger;
mod plan;
mod renewal;
mod rest;
mod room;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::demo::Demo;
use ptth_client::origin::Origin;
use ptth_client::{Body, Early};
use ptth_test::lab::Function;
use ptth_test::origin::read_head;
use ptth_test::peer::*;
use ptth_test::{Chunks, Lab, OriginBox};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::{ask, until, witness};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A raw backend's answer.
fn ok(stream: u32) -> Vec<u8> {
    [headers(stream, 0, &[(":status", "200")]), data(stream, END_STREAM, b"ok")].concat()
}

fn stream(n: u32) -> u32 {
    n * 2 + 1
}

/// A visitor who doesn't read a stream of tiny chunks.
#[tokio::test(start_paused = true)]
async fn trap_1_tiny_frames_for_a_slow_visitor_do_not_end_the_tunnel() {
    const TINY: usize = 20_000;
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    let mut slow = lab.h2(&[(INITIAL_WINDOW_SIZE, 0)]).await;
    slow.send(headers(1, END_STREAM, &get("/slow"))).await;
    let request = backend.request().await.unwrap();
    backend.send(headers(request.stream, 0, &[(":status", "200")])).await;
    for _ in 0..TINY {
        backend.send(data(request.stream, 0, b"x")).await;
    }
    let mut other = lab.h1();
    other.send(GET).await;
    let second = backend.request().await.expect("the tunnel lives");
    backend.send(ok(second.stream)).await;
    backend.send(data(request.stream, END_STREAM, b"!")).await;
    lab.spawn(async move { while backend.next().await.is_some() {} });
    assert_eq!(other.answer().await.text(), "ok");
    until(|| lab.budget.held() > TINY / 2).await;
    slow.send(settings(&[(INITIAL_WINDOW_SIZE, 100_000)])).await;
    let Outcome::Response(200, body) = slow.outcome(1).await else { panic!("cut") };
    assert_eq!(body.len(), TINY + 1);
    assert_eq!(lab.budget.held(), 0);
}

/// The other way: an origin that doesn't read a visitor's tiny chunks.
#[tokio::test(start_paused = true)]
async fn trap_1_tiny_frames_for_a_slow_origin_do_not_end_the_tunnel() {
    let mut lab = Lab::default();
    let service = Function(|request: Request<Body>| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(20)).await;
        }
        let body = request.into_body().collect().await;
        Response::new(Full::new(body.map_or(Bytes::new(), |body| body.to_bytes())))
    });
    let (mut gateway, _) = lab.client(service, &[]).await;
    gateway.send(headers(1, 0, &request("POST", "/slow"))).await;
    for _ in 0..20_000 {
        gateway.send(data(1, 0, b"x")).await;
    }
    gateway.send(headers(3, END_STREAM, &get("/"))).await;
    assert_eq!(gateway.outcome(3).await, Outcome::Response(200, Vec::new()));
    gateway.send(data(1, END_STREAM, b"!")).await;
    let Outcome::Response(200, body) = gateway.outcome(1).await else { panic!("cut") };
    assert_eq!(body.len(), 20_001);
    assert_eq!(lab.client_budget.held(), 0);
}

/// What was reset before it left isn't sent at all.
#[tokio::test(start_paused = true)]
async fn trap_2_a_request_that_was_taken_back_at_once_is_not_sent() {
    let (mut lab, seen, _release) = witness().await;
    let mut visitor = lab.h2(&[]).await;
    let mut both = Vec::new();
    for n in 0..10 {
        both.extend(headers(stream(n), END_STREAM, &get("/gone")));
        both.extend(reset(stream(n), 8));
    }
    both.extend(headers(stream(10), END_STREAM, &get("/stays")));
    visitor.send(both).await;
    assert_eq!(visitor.outcome(stream(10)).await, Outcome::Response(200, b"ok".to_vec()));
    assert_eq!(seen.all(), ["/stays", "0 whole"]);
}

/// 100 visitors take back 50 requests each, after they were passed on.
#[tokio::test(start_paused = true)]
async fn trap_2_resets_of_many_visitors_do_not_end_the_tunnel() {
    let (mut lab, seen, _release) = witness().await;
    let tunnel = lab.pool.all()[0].id;
    for round in 1..=10 {
        let mut visitors = Vec::new();
        for _ in 0..10 {
            let mut visitor = lab.h2(&[]).await;
            let requests = (0..50).map(|n| headers(stream(n), END_STREAM, &get("/hold")));
            visitor.send(requests.collect::<Vec<_>>().concat()).await;
            visitors.push(visitor);
        }
        until(|| seen.all().len() == round * 1000).await;
        for visitor in &mut visitors {
            let resets = (0..50).map(|n| reset(stream(n), 8));
            visitor.send(resets.collect::<Vec<_>>().concat()).await;
        }
        until(|| lab.pool.all()[0].in_flight() == 0).await;
    }
    assert_eq!(ask(&mut lab.h1()).await.text(), "ok");
    assert_eq!(lab.pool.all()[0].id, tunnel);
}

/// In our client, more than the gateway's burst, before one of them is looked at.
#[tokio::test(start_paused = true)]
async fn trap_2_our_client_takes_a_burst_of_resets() {
    let mut lab = Lab::default();
    let (mut gateway, _) = lab.client(Demo, &[]).await;
    for chunk in 0..90 {
        let pairs = (0..100).map(|n| stream(chunk * 100 + n));
        let pairs = pairs.map(|s| [headers(s, END_STREAM, &get("/")), reset(s, 8)].concat());
        assert!(gateway.send(pairs.collect::<Vec<_>>().concat()).await);
    }
    let last = stream(9000);
    gateway.send(headers(last, END_STREAM, &get("/"))).await;
    assert!(matches!(gateway.outcome(last).await, Outcome::Response(200, _)));
}

/// 1,024 stream errors over a connection's life, found by the gateway.
#[tokio::test(start_paused = true)]
async fn trap_3_stream_errors_over_the_weeks_do_not_end_the_tunnel() {
    let mut lab = Lab::default();
    let mut backend = lab.backend(&[]).await;
    let mut visitor = lab.h1();
    for n in 0..1100 {
        visitor.send(GET).await;
        let request = backend.request().await.unwrap_or_else(|| panic!("ended after {n}"));
        let bad = [(":status", "200"), ("connection", "x")];
        backend.send(headers(request.stream, END_STREAM, &bad)).await;
        assert_eq!(visitor.head().await.0, 502);
        // The three lines of the page.
        for _ in 0..3 {
            visitor.until(b"\n").await;
        }
        // The backend goes on answering PING meanwhile.
        let _ = timeout(Duration::from_secs(1), async { while backend.next().await.is_some() {} })
            .await;
    }
    assert_eq!(lab.pool.all().len(), 1);
}

/// The same, found by our client.
#[tokio::test(start_paused = true)]
async fn trap_3_stream_errors_of_a_gateway_do_not_end_our_client() {
    let mut lab = Lab::default();
    let (mut gateway, _) = lab.client(Demo, &[]).await;
    let fields: Vec<_> =
        request("POST", "/").into_iter().chain([("content-length", "1")]).collect();
    for n in 0..1100 {
        gateway.send(headers(stream(n), 0, &fields)).await;
        gateway.send(data(stream(n), 0, b"too much")).await;
        assert!(matches!(gateway.outcome(stream(n)).await, Outcome::Reset(..)), "{n}");
    }
    gateway.send(headers(stream(1100), END_STREAM, &get("/"))).await;
    assert!(matches!(gateway.outcome(stream(1100)).await, Outcome::Response(200, _)));
}

/// What an origin gets wrong stays between it and our client; to the gateway no tunnel
/// breaks the protocol, however often it happens.
#[tokio::test]
async fn trap_3_an_origins_framing_errors_do_not_reach_the_tunnel() {
    const WRONG: [&str; 7] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "garbage\r\n\r\n",
    ];
    let origin = OriginBox::raw(|mut socket, number| async move {
        read_head(&mut socket).await;
        let _ = socket.write_all(WRONG[number % WRONG.len()].as_bytes()).await;
    })
    .await;
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let address = OriginAddress::Http { host, port };
    let mut lab = Lab::serving(Origin::new(address, &OriginOptions::default()).unwrap()).await;
    let tunnel = lab.pool.all()[0].id;
    // Twice what a backend may do wrong within one interval.
    for n in 0..210 {
        let mut visitor = lab.h1();
        visitor.send(GET).await;
        let answer = visitor.answer().await;
        let right = answer.status == 502 || !answer.complete || answer.text() == "abc";
        assert!(right, "{}: {answer:?}", WRONG[n % WRONG.len()]);
    }
    assert_eq!(lab.pool.all().first().map(|tunnel| tunnel.id), Some(tunnel));
}

/// 100 empty DATA frames over a connection's life.
#[tokio::test(start_paused = true)]
async fn trap_4_empty_chunks_are_not_sent() {
    let service = Function(|request: Request<Body>| async move {
        let body = request.into_body().collect().await.expect("a whole body").to_bytes();
        Response::new(Chunks::of(std::iter::repeat_n(Bytes::new(), 1000).chain([body])))
    });
    let mut lab = Lab::serving(service).await;
    for _ in 0..5 {
        let mut visitor = lab.h2(&[]).await;
        visitor.send(headers(1, 0, &request("POST", "/"))).await;
        for _ in 0..90 {
            visitor.send(data(1, 0, b"")).await;
        }
        visitor.send(data(1, END_STREAM, b"body")).await;
        assert_eq!(visitor.outcome(1).await, Outcome::Response(200, b"body".to_vec()));
    }
}

/// Of the 1xx responses of an origin that never stops saying them ten go on the tunnel, where no
/// flow control would hold them back.
#[tokio::test(start_paused = true)]
async fn of_a_services_early_hints_ten_go_on_the_tunnel() {
    let service = Function(|request: Request<Body>| async move {
        let early = request.extensions().get::<Early>().expect("a way").clone();
        for _ in 0..100 {
            for _ in 0..100 {
                early.send(http::StatusCode::EARLY_HINTS, &http::HeaderMap::new());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Response::new(Full::new(Bytes::from_static(b"ok")))
    });
    let mut lab = Lab::default();
    let (mut gateway, _) = lab.client(service, &[]).await;
    gateway.send(headers(1, END_STREAM, &get("/"))).await;
    for n in 0..=10 {
        let status = gateway.request().await.expect("a head").field(":status");
        assert_eq!(status, if n < 10 { "103" } else { "200" }, "{n}");
    }
}

/// A status that no final response has, from an origin or a service, is a 502 and breaks no protocol.
#[tokio::test]
async fn a_final_response_of_1xx_is_a_502() {
    let origin = OriginBox::raw(|mut socket, _| async move {
        read_head(&mut socket).await;
        let switched =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        let _ = socket.write_all(switched).await;
        read_head(&mut socket).await;
    })
    .await;
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let address = OriginAddress::Http { host, port };
    let mut lab = Lab::serving(Origin::new(address, &OriginOptions::default()).unwrap()).await;
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    let tunnel = lab.pool.all()[0].id;
    assert_eq!(visitor.answer().await.status, 502, "from an origin");
    assert_eq!(lab.pool.all().first().map(|tunnel| tunnel.id), Some(tunnel), "the tunnel lives");
    let mut lab = Lab::serving(Function(|_: Request<Body>| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"odd")));
        *response.status_mut() = http::StatusCode::EARLY_HINTS;
        response
    }))
    .await;
    let tunnel = lab.pool.all()[0].id;
    let mut visitor = lab.h1();
    visitor.send(GET).await;
    assert_eq!(visitor.answer().await.status, 502, "from a service");
    assert_eq!(lab.pool.all().first().map(|tunnel| tunnel.id), Some(tunnel));
}
