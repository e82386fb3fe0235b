//! So many exchanges in one thread, without sockets, TLS or an origin: what test/bench/instructions counts.
//!
//! All is in one process over pipes: a visitor, the gateway, a tunnel, the client, and a service that answers
//! with 1 KiB. What each exchange costs is the difference of two runs, which start-up isn't in.
#![allow(clippy::print_stderr, reason = "this is what it is for")]

use std::convert::Infallible;
use std::process::ExitCode;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use ptth_test::h2::read;
use ptth_test::service::service;
use ptth_test::{Ask, H2, Lab};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (h1, count) = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["h1", count] => (true, count.parse()),
        ["h2", count] => (false, count.parse()),
        _ => {
            eprintln!("usage: exchanges h1|h2 COUNT");
            return ExitCode::FAILURE;
        }
    };
    match (count, Builder::new_current_thread().enable_all().build()) {
        (Ok(count), Ok(runtime)) => {
            let done = runtime
                .block_on(async { if h1 { by_h1(count).await } else { by_h2(count).await } });
            if done == count { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => ExitCode::FAILURE,
    }
}

async fn lab() -> Lab {
    let answer = |_| async {
        let mut response = Response::new(Full::new(Bytes::from_static(&PAGE)));
        for (name, value) in FIELDS {
            response.headers_mut().insert(*name, http::HeaderValue::from_static(value));
        }
        Ok::<_, Infallible>(response)
    };
    Lab::serving(service(answer)).await
}

/// Ten at a time, as far as they are asked for, on one connection.
async fn by_h2(count: u32) -> u32 {
    let mut lab = lab().await;
    let visitor = H2::over(lab.h2_socket()).await;
    let mut done = 0;
    while done < count {
        let mut open = Vec::new();
        for _ in 0..STREAMS.min(count - done) {
            open.push(visitor.open(Ask::get("/1k").head(), true).await.0);
        }
        for response in open {
            let answer = read(response).await;
            if answer.status != 200 || answer.body.len() != PAGE.len() {
                return done;
            }
            done += 1;
        }
    }
    done
}

/// One after the other.
async fn by_h1(count: u32) -> u32 {
    let mut lab = lab().await;
    let mut visitor = lab.h1();
    for done in 0..count {
        visitor.send("GET /1k HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n").await;
        let answer = visitor.answer().await;
        if answer.status != 200 || answer.body.len() != PAGE.len() {
            return done;
        }
    }
    count
}

const STREAMS: u32 = 10;
static PAGE: [u8; 1024] = [b'x'; 1024];
/// What nginx says of a static file.
const FIELDS: &[(&str, &str)] = &[
    ("server", "nginx/1.22.1"),
    ("date", "Fri, 20 Nov 2026 10:00:00 GMT"),
    ("content-type", "text/plain"),
    ("content-length", "1024"),
    ("last-modified", "Fri, 20 Nov 2026 09:00:00 GMT"),
    ("etag", "\"65a0c0d4-400\""),
    ("accept-ranges", "bytes"),
];
