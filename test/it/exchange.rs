//! A: the exchange.

use ptth_test::{Backend, GatewayBox, H1};

/// A1, B1
#[tokio::test]
async fn a_get_crosses_the_tunnel() {
    let gateway = GatewayBox::start();
    let answer = H1::get(&gateway, "/").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("There is no upstream available"), "{}", answer.text());
    let _backend = Backend::demo(&gateway).await;
    let answer = H1::get(&gateway, "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Transmission is possible!\n"));
}
