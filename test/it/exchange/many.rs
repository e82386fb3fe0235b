//! A thousand requests at once.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use ptth_client::Body;
use ptth_test::h2::read;
use ptth_test::service::service;
use ptth_test::{Backend, GatewayBox, H2, Lab, soon};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tower_service::Service;

/// A service that answers none of its requests before it has so many of them.
fn at_once(
    count: usize,
) -> impl Service<
    Request<Body>,
    Response = Response<String>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<String>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let barrier = Arc::new(Barrier::new(count));
    service(move |_| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            Ok(Response::new("done".to_owned()))
        }
    })
}

/// Each of them waits for all the others, so that one that is lost or queued would stop them all. A
/// visitor over HTTP/2 has a hundred streams.
#[tokio::test]
async fn a_thousand_and_one_requests_cross_one_tunnel_at_once() {
    let gateway = GatewayBox::start();
    let mut config = gateway.client_config();
    config.tunnels = 1;
    let _backend = Backend::start(config, at_once(1001));
    gateway.until_tunnels(1).await;
    let mut visitors = Vec::new();
    for _ in 0..11 {
        visitors.push(H2::connect(&gateway).await);
    }
    let mut asking = JoinSet::new();
    for n in 0..1001 {
        let response = visitors[n / 91].get(&format!("/{n}")).await;
        asking.spawn(read(response));
    }
    while let Some(answer) = soon("an answer", asking.join_next()).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    }
}

/// The same from as many visitors over HTTP/1.1.
#[tokio::test]
async fn a_thousand_and_one_visitors_share_one_tunnel() {
    let mut lab = Lab::serving(at_once(1001)).await;
    let mut visitors = Vec::new();
    for n in 0..1001 {
        let mut visitor = lab.h1();
        visitor.send(format!("GET /{n} HTTP/1.1\r\nHost: example.test\r\n\r\n")).await;
        visitors.push(visitor);
    }
    for mut visitor in visitors {
        let answer = visitor.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    }
}
