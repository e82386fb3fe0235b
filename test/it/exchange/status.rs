//! The status is the origin's.

use ptth_test::origin::{read_head, until_closed};
use ptth_test::{Answer, Ask, Dialect, GatewayBox, H1, H2, OriginBox};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::unbounded_channel;

use super::Path;

/// A path to an origin that answers with the status in the path, a Location and five bytes where they
/// are allowed, and tells of each request.
async fn path() -> Path<String> {
    let (tell, told) = unbounded_channel();
    let origin = OriginBox::raw(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            loop {
                let head = read_head(&mut socket).await;
                let Some((method, rest)) = head.split_once(" /") else { return };
                let status = rest.split(' ').next().unwrap_or_default();
                let _ = tell.send(format!("{method} {status}"));
                let length = if status == "204" { "" } else { "content-length: 5\r\n" };
                let body = method != "HEAD" && !["204", "304"].contains(&status);
                let answer = format!(
                    "HTTP/1.1 {status} Whatever\r\nlocation: /elsewhere\r\n{length}\r\n{}",
                    if body { "hello" } else { "" }
                );
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return until_closed(&mut socket).await;
                }
            }
        }
    })
    .await;
    Path::new(GatewayBox::start(), origin, told).await
}

fn check(answer: &Answer, method: &str, status: u16, dialect: Dialect) {
    let bodiless = method == "HEAD" || [204, 304].contains(&status);
    assert_eq!(answer.status, status, "{method}");
    assert_eq!(answer.text(), if bodiless { "" } else { "hello" }, "{method} {status}");
    let length = if status == 204 { "" } else { "5" };
    assert_eq!(answer.field("content-length"), length, "{dialect:?} {status}");
    assert_eq!(answer.field("location"), "/elsewhere", "{method} {status}");
    assert_eq!(answer.field("transfer-encoding"), "", "{method} {status}");
    assert!(answer.complete, "{method} {status}");
}

/// One connection bears them all, so that a body too many or too few would show in the next one.
#[tokio::test]
async fn every_status_arrives_as_sent() {
    let mut path = path().await;
    let mut h1 = H1::connect(&path.gateway).await;
    let h2 = H2::connect(&path.gateway).await;
    for status in 200..600 {
        for method in ["GET", "HEAD"] {
            let ask = Ask::new(method, &format!("/{status}"));
            h1.send(ask.text()).await;
            check(&h1.answer_to(method).await, method, status, Dialect::H1);
            check(&h2.ask(&ask).await, method, status, Dialect::H2);
            // Once for each visitor: a Location is his to follow.
            for _ in 0..2 {
                assert_eq!(path.told().await, format!("{method} {status}"));
            }
        }
    }
    assert!(path.told.is_empty());
}

/// What no response can be is the backend's fault.
#[tokio::test]
async fn a_status_that_is_none_becomes_502() {
    let path = path().await;
    for status in [600, 999, 42] {
        let answer = H1::get(&path.gateway, &format!("/{status}")).await;
        assert_eq!(answer.status, 502, "{status}");
        let h2 = H2::connect(&path.gateway).await;
        assert_eq!(h2.ask(&Ask::get(&format!("/{status}"))).await.status, 502, "{status}");
    }
}

#[tokio::test]
async fn a_204_with_a_length_of_zero_leaves_the_connection_whole() {
    let path = super::answering("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n").await;
    let mut h1 = H1::connect(&path.gateway).await;
    let h2 = H2::connect(&path.gateway).await;
    for _ in 0..3 {
        h1.send(Ask::get("/").text()).await;
        let answer = h1.answer().await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        // RFC 9110 §8.6: a 204 has no length.
        assert!(!answer.fields.contains_key("content-length"));
        let answer = h2.ask(&Ask::get("/")).await;
        assert_eq!((answer.status, answer.body.len(), answer.complete), (204, 0, true));
    }
}
