//! An origin that says anything at all: the client never panics, waits for nothing after its end, and never
//! takes a response for whole that was cut off.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use ptth_client::Body;
use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::origin::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tower_service::Service;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("2ptth-fuzz-{}", std::process::id())));

fuzz_target!(|data: &[u8]| {
    RUNTIME.block_on(async {
        let _ = std::fs::remove_file(&*PATH);
        let listener = UnixListener::bind(&*PATH).expect("a socket");
        let asking = async {
            let mut origin =
                Origin::new(OriginAddress::Unix(PATH.clone()), &OriginOptions::default())
                    .expect("no file is read");
            let mut request = Request::new(Body::empty());
            request.headers_mut().insert("host", HeaderValue::from_static("a.test"));
            *request.uri_mut() = "https://a.test/".parse().expect("a target");
            let response = origin.call(request).await.expect("a page of ours at least");
            let length = response.headers().get(CONTENT_LENGTH).cloned();
            let length = length.and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
            let bodyless = matches!(response.status().as_u16(), 100..200 | 204 | 304);
            let Ok(body) = response.into_body().collect().await else { return };
            if let Some(length) = length.filter(|_| !bodyless) {
                assert_eq!(body.to_bytes().len(), length, "a cut that looks whole");
            }
        };
        let answering = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut head = [0; 512];
            let _ = socket.read(&mut head).await;
            for part in data.split_inclusive(|byte| *byte == b'\n') {
                // He may have heard enough.
                if socket.write_all(part).await.is_err() {
                    break;
                }
            }
        };
        let both = async { tokio::join!(asking, answering) };
        timeout(Duration::from_secs(5), both).await.expect("it waits for an origin that is gone");
    });
    let _ = std::fs::remove_file(&*PATH);
});
