//! Sound streams, and what httparse and hyper make of them and of their mutants.

use std::cell::RefCell;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::*;

/// Streams that are sound to their last byte, and the bodies in them.
fn sound_streams() -> Vec<(Vec<u8>, Vec<&'static str>)> {
    let streams: [(&str, &[&str]); 20] = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[""]),
        ("\r\nGET /a?b=%20 HTTP/1.1\r\nhOST:a:80\r\n\r\n", &[""]),
        ("HEAD / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 2\r\n\r\nhi", &["hi"]),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[""]),
        ("GET http://b:80/c?d HTTP/1.1\r\nHost: a\r\n\r\n", &[""]),
        ("GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n", &[""]),
        ("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", &[""]),
        ("GET / HTTP/1.0\r\n\r\n", &[""]),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", &["abc"]),
        ("M-SEARCH / HTTP/1.1\r\nHost: a\r\nX: a\tb: \"c\", d; \r\n\r\n", &[""]),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &[""]),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 005\r\n\r\nhello",
            &["hello"],
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            &["hello"],
        ),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n000\r\n\r\n", &[""]),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n\
             1;a\r\nh\r\n0000A;b=c;d=\"e;\\\"\t\"\r\n0123456789\r\n1\r\n\r\r\n0;f\r\n\
             X: y\r\nX-Sum: \t1 \r\nDigest:\r\n\r\n",
            &["h0123456789\r"],
        ),
        (
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n\r\n\r\n\
             GET /3 HTTP/1.1\r\nHost: a\r\n\r\n\
             PUT /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
             PUT /5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n\r\n\
             GET /6 HTTP/1.1\r\nHost: a\r\n\r\n",
            &["", "\r\n", "", "hi", "", ""],
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", &[""]),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\na",
            &["a"],
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n\r\n", &[""]),
        ("GET /[]\\|\"{}?a=?/`^{}|\\ HTTP/1.1\r\nHost: a\r\n\r\n", &[""]),
    ];
    let mut all: Vec<_> =
        streams.map(|(raw, bodies)| (raw.as_bytes().to_vec(), bodies.to_vec())).into();
    all.push((b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\r\n\r\n".to_vec(), vec![""]));
    all
}

#[test]
fn sound_streams_pass_whole() {
    for (raw, bodies) in sound_streams() {
        let (steps, place) = feed_every_way(&raw);
        let passed: usize = steps
            .iter()
            .map(|step| match step {
                Step::Head(len, _) | Step::Body(len) => *len,
                Step::End | Step::Refused(_) => 0,
            })
            .sum();
        let ends = steps.iter().filter(|step| **step == Step::End).count();
        let text = raw.escape_ascii();
        assert_eq!((passed, ends, place), (raw.len(), bodies.len(), Place::Between), "{text}");
    }
}

/// One byte of a sound stream changed: what is still accepted, httparse reads the same way.
#[test]
fn httparse_agrees_on_all_that_is_accepted() {
    for (sound, _) in sound_streams() {
        for at in 0..sound.len() {
            for byte in MUTATIONS {
                let mut raw = sound.clone();
                raw[at] = *byte;
                agree(&raw);
            }
        }
    }
}

fn agree(mut raw: &[u8]) {
    let steps = feed([raw]).0;
    let mut chunked = false;
    for (step, next) in steps.iter().zip(steps.iter().skip(1).chain([&Step::End])) {
        match *step {
            Step::Head(len, head) => {
                chunked = head.length.is_none();
                oracle::agree(&raw[..len], head.length);
                raw = &raw[len..];
            }
            Step::Body(len) => {
                // Not one that was refused or cut.
                if chunked && *next == Step::End && steps.last() == Some(&Step::End) {
                    oracle::agree_chunked(&raw[..len]);
                }
                raw = &raw[len..];
            }
            Step::End | Step::Refused(_) => {}
        }
    }
}

/// The bodies of the requests that hyper finds in a stream, or how it failed.
async fn read_with_hyper(raw: &[u8]) -> Result<Vec<Bytes>, String> {
    let (mut visitor, gateway) = tokio::io::duplex(64 << 10);
    visitor.write_all(raw).await.map_err(|err| err.to_string())?;
    visitor.shutdown().await.map_err(|err| err.to_string())?;
    let bodies = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        // Any 2xx to CONNECT would turn the connection into a tunnel.
        let connect = request.method() == Method::CONNECT;
        let body = request.into_body().collect().await?.to_bytes();
        bodies.borrow_mut().push(body);
        let mut response = Response::new(Empty::<Bytes>::new());
        if connect {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
        Ok::<_, hyper::Error>(response)
    });
    // The visitor's end of stream doesn't mean that nobody waits for the answers.
    let connection =
        http1::Builder::new().half_close(true).serve_connection(TokioIo::new(gateway), service);
    connection.await.map_err(|err| format!("{err:?}"))?;
    Ok(bodies.into_inner())
}

#[tokio::test]
async fn hyper_reads_the_same_bodies() {
    for (raw, bodies) in sound_streams() {
        let bodies = bodies.into_iter().map(Bytes::from).collect();
        assert_eq!(read_with_hyper(&raw).await, Ok(bodies), "{}", raw.escape_ascii());
    }
}

/// One byte of a sound body changed: if it is still accepted, hyper must take it as well.
#[tokio::test]
async fn hyper_takes_every_accepted_body() {
    let head = chunked("");
    for body in [
        "1;a\r\nh\r\n0000A;b=c;d=\"e;\\\"\t\"\r\n0123456789\r\n0\r\n\r\n",
        "2\r\nhi\r\n0;a\r\nX: y\r\nX-Sum: \t1 \r\nDigest:\r\n\r\n",
    ] {
        for at in 0..body.len() {
            for byte in MUTATIONS {
                let mut raw = format!("{head}{body}").into_bytes();
                raw[head.len() + at] = *byte;
                if matches!(feed([&*raw]).0.last(), Some(Step::End)) {
                    let bodies = read_with_hyper(&raw).await;
                    assert_eq!(bodies.map(|b| b.len()), Ok(1), "{}", raw.escape_ascii());
                }
            }
        }
    }
}

pub(super) const MUTATIONS: &[u8] = b"\0\t\n\r \"#,-./0159:;<=@A[\\]_acdghx\x7f\x80";
