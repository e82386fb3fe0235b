//! A response over HTTP/2 that comes before the request's end, frame by frame.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use ptth_client::Body;
use ptth_test::lab::Function;
use ptth_test::peer::*;
use ptth_test::{Lab, soon};
use tokio::time::Instant;

/// Answers with the status that the path names, before it reads the body.
async fn refusing() -> Lab {
    Lab::serving(Function(|request: Request<Body>| async move {
        let mut response = Response::new(Full::new(Bytes::from_static(b"said the origin")));
        let status = request.uri().path().trim_start_matches('/');
        *response.status_mut() = status.parse().unwrap_or(StatusCode::OK);
        response
    }))
    .await
}

/// The frames of stream 1 from the response's head to the reset, and how long the last one took.
async fn answered(mut lab: Lab, path: &str) -> (Vec<(u8, u8)>, String, Duration) {
    let mut visitor = lab.h2(&[]).await;
    visitor.send(headers(1, 0, &request("PUT", path))).await;
    visitor.send(data(1, 0, b"hi\n")).await;
    let (mut frames, mut status, mut began) = (Vec::new(), String::new(), Instant::now());
    loop {
        let frame = soon("a frame", visitor.next()).await.expect("the connection goes on");
        if frame.stream != 1 || frame.kind == WINDOW_UPDATE {
            continue;
        }
        if frame.kind == HEADERS {
            (status, began) = (frame.field(":status"), Instant::now());
        }
        frames.push((frame.kind, frame.flags & END_STREAM));
        if frame.kind == RST_STREAM {
            assert_eq!(frame.code(), 0, "NO_ERROR");
            return (frames, status, began.elapsed());
        }
    }
}

/// RFC 9113 §8.1: curl before 8 waits for ever, busily, when the reset comes a while after the end.
#[tokio::test(start_paused = true)]
async fn the_reset_of_an_upload_follows_the_end_of_its_early_response_at_once() {
    for status in ["200", "413", "502", "none"] {
        let lab = if status == "none" { Lab::default() } else { refusing().await };
        let (frames, got, took) = answered(lab, &format!("/{status}")).await;
        assert_eq!(got, if status == "none" { "502" } else { status });
        let (last, rest) = frames.split_last().expect("a frame");
        assert_eq!(*last, (RST_STREAM, 0), "{status}: {frames:?}");
        assert_eq!(rest.last(), Some(&(DATA, END_STREAM)), "{status}: {frames:?}");
        assert_eq!(took, Duration::ZERO, "{status}");
    }
}
