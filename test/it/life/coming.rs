//! Backends come and go, and a visitor stays.

use std::time::Duration;

use http::Request;
use ptth_test::{Backend, GatewayBox, H1, connect_h2, soon};
use tokio::task::JoinSet;
use tokio::time::Instant;

const GET: &str = "GET / HTTP/1.1\r\nHost: example.test\r\n\r\n";

async fn expect_nobody(visitor: &mut H1) {
    let begun = Instant::now();
    visitor.send(GET).await;
    let answer = visitor.answer().await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("There is no upstream available"), "{}", answer.text());
    assert!(answer.complete);
    // Far below any deadline of the gateway's, so that it can't have waited for one.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

async fn expect_somebody(visitor: &mut H1) {
    visitor.send(GET).await;
    let answer = visitor.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Transmission is possible!\n"));
}

#[tokio::test]
async fn one_connection_of_a_visitor_outlives_every_backend() {
    let gateway = GatewayBox::start();
    let mut visitor = H1::connect(&gateway).await;
    expect_nobody(&mut visitor).await;
    expect_nobody(&mut visitor).await;

    let cut = Backend::demo(&gateway).await;
    expect_somebody(&mut visitor).await;
    drop(cut);
    gateway.until_tunnels(0).await;
    expect_nobody(&mut visitor).await;

    let stopped = Backend::demo(&gateway).await;
    expect_somebody(&mut visitor).await;
    stopped.stop();
    stopped.ended().await.expect("an orderly end");
    gateway.until_tunnels(0).await;
    expect_nobody(&mut visitor).await;

    let _new = Backend::demo(&gateway).await;
    expect_somebody(&mut visitor).await;
}

#[tokio::test]
async fn one_http2_connection_of_a_visitor_outlives_every_backend() {
    let gateway = GatewayBox::start();
    let mut tasks = JoinSet::new();
    let mut visitor = connect_h2(&gateway, &mut tasks).await;
    for expected in [502, 200, 502, 200] {
        let backend = match expected {
            200 => Some(Backend::demo(&gateway).await),
            _ => None,
        };
        let request = Request::get("https://example.test/").body(()).unwrap();
        let (response, _) = visitor.send_request(request, true).unwrap();
        let response = soon("a response", response).await.unwrap();
        assert_eq!(response.status().as_u16(), expected);
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}
