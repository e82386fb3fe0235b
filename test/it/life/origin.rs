//! Origins that fail, each in its own way, and what visitors see of it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::origin::Origin;
use ptth_link::crypto;
use ptth_test::origin::read_head;
use ptth_test::{Backend, Certificate, Folder, GatewayBox, H1, OriginBox, connect_h2, soon};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

async fn serving(gateway: &GatewayBox, address: OriginAddress) -> Backend {
    Backend::serving(gateway, Origin::new(address, &OriginOptions::default()).unwrap()).await
}

fn http(host: &str, port: u16) -> OriginAddress {
    OriginAddress::Http { host: host.to_owned(), port }
}

/// Answers one request.
async fn answer(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let head = read_head(&mut socket).await;
    if !head.is_empty() {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
        let _ = socket.shutdown().await;
    }
}

/// Closes with a reset and not with a FIN.
fn reset(socket: TcpStream) {
    socket.set_zero_linger().expect("a socket");
}

/// An origin that reads a request's head and answers it with `bytes`; then it resets, or closes.
async fn saying(bytes: impl Into<Vec<u8>>, end: fn(TcpStream)) -> OriginBox {
    let bytes = Arc::new(bytes.into());
    OriginBox::raw(move |mut socket, _| {
        let bytes = bytes.clone();
        async move {
            read_head(&mut socket).await;
            let _ = socket.write_all(&bytes).await;
            // A reset takes what the other side hasn't read yet along; so not before it was read.
            let _ = socket.flush().await;
            end(socket);
        }
    })
    .await
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_a_502_until_it_is() {
    let gateway = GatewayBox::start();
    let port = {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        free.local_addr().unwrap().port()
    };
    let _backend = serving(&gateway, http("127.0.0.1", port)).await;
    for _ in 0..3 {
        let refused = H1::get(&gateway, "/").await;
        assert_eq!(refused.status, 502, "{}", refused.text());
        assert!(refused.text().contains("not listening"), "{}", refused.text());
        assert!(!refused.text().contains("127.0.0.1"), "{}", refused.text());
    }
}

/// No response at all, or one that isn't HTTP; the tunnel doesn't suffer.
#[tokio::test]
async fn what_is_no_response_is_a_502() {
    let garbage: [&[u8]; 12] = [
        b"",
        b"H",
        b"HTTP/1.1 ",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"NOT HTTP\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        &[0; 1000],
    ];
    let gateway = GatewayBox::start();
    for bytes in garbage {
        for end in [reset, drop] {
            let origin = saying(bytes, end).await;
            let backend = Backend::of(&gateway, &origin).await;
            let before: Vec<_> = gateway.pool.all().iter().map(|tunnel| tunnel.id).collect();
            for _ in 0..2 {
                let answer = H1::get(&gateway, "/").await;
                let what = String::from_utf8_lossy(bytes);
                assert_eq!(answer.status, 502, "{what:?}: {}", answer.text());
                assert!(answer.complete);
            }
            let after: Vec<_> = gateway.pool.all().iter().map(|tunnel| tunnel.id).collect();
            assert_eq!(before, after, "the tunnels live on");
            drop(backend);
            gateway.until_tunnels(0).await;
        }
    }
}

#[tokio::test]
async fn an_origin_that_says_nothing_is_a_504() {
    let gateway = GatewayBox::with(|config| config.limits.head = Duration::from_millis(300));
    let origin = OriginBox::raw(|mut socket, _| async move {
        // Until the connection is closed, which is how it learns that nobody waits.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let _backend = Backend::of(&gateway, &origin).await;
    let answer = H1::get(&gateway, "/").await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("did not answer in time"), "{}", answer.text());
}

/// A response that begins well and ends badly, the end as soon as the visitor has its beginning.
struct Broken {
    what: &'static str,
    begin: String,
    last: &'static str,
    end: fn(TcpStream),
}

fn broken_bodies() -> Vec<Broken> {
    let long = "x".repeat(40_000);
    let length = format!("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n{long}");
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{chunk}{:x}\r\n{long}\r\n", long.len());
    let within = format!("{chunk}fffff\r\n{long}");
    let until_close = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{long}");
    let broken = |what, begin: &String, last, end| Broken { what, begin: begin.clone(), last, end };
    vec![
        broken("length, reset", &length, "", reset),
        broken("length, closed", &length, "xxx", drop),
        broken("chunks, reset", &chunked, "", reset),
        broken("chunks, closed without the last", &chunked, "", drop),
        broken("chunks, closed within the last", &chunked, "0\r\n", drop),
        broken("within a chunk, reset", &within, "x", reset),
        broken("within a chunk, closed", &within, "x", drop),
        broken("a chunk that is none", &chunked, "zz\r\n", drop),
        broken("a chunk with a sign", &chunked, "-1\r\n", drop),
        broken("until close, reset", &until_close, "", reset),
    ]
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_complete() {
    let gateway = GatewayBox::with(|config| {
        config.plain = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    });
    for Broken { what, begin, last, end } in broken_bodies() {
        let go = Arc::new(Notify::new());
        let wait = go.clone();
        let begin = Arc::new(begin);
        let origin = OriginBox::raw(move |mut socket, _| {
            let (wait, begin) = (wait.clone(), begin.clone());
            async move {
                read_head(&mut socket).await;
                let _ = socket.write_all(begin.as_bytes()).await;
                wait.notified().await;
                let _ = socket.write_all(last.as_bytes()).await;
                end(socket);
            }
        })
        .await;
        let backend = Backend::of(&gateway, &origin).await;
        http1_is_cut(&gateway, &go, what).await;
        http10_is_cut(H1::connect(&gateway).await, &go, what).await;
        // As a proxy with a version of its own of HTTP asks (nginx' default).
        let plain = TcpStream::connect(gateway.plain()).await.expect("a connection");
        http10_is_cut(H1::over(plain), &go, what).await;
        http2_is_reset(&gateway, &go, what).await;
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}

async fn http1_is_cut(gateway: &GatewayBox, go: &Notify, what: &str) {
    let mut visitor = H1::connect(gateway).await;
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    let (status, fields) = soon(what, visitor.head()).await;
    assert_eq!(status, 200, "{what}");
    go.notify_one();
    let answer = soon(what, visitor.rest(status, fields, "GET")).await;
    assert!(!answer.complete, "{what}: {} bytes look complete", answer.body.len());
    assert!(visitor.is_closed().await, "{what}");
}

/// HTTP/1.0 has no chunks, so the end of the connection is that of the body: it must not look orderly.
async fn http10_is_cut<IO>(mut visitor: H1<IO>, go: &Notify, what: &str)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    visitor.send("GET / HTTP/1.0\r\nHost: example.test\r\n\r\n").await;
    let (status, fields) = soon(what, visitor.head()).await;
    assert_eq!(status, 200, "{what}");
    go.notify_one();
    let mut answer = Vec::new();
    let end = soon(what, visitor.stream.read_to_end(&mut answer)).await;
    if !fields.contains_key("content-length") {
        // TLS tells a cut from an end: there was no close_notify (RFC 8446 §6.1). And TCP has its reset.
        end.expect_err(what);
    }
}

async fn http2_is_reset(gateway: &GatewayBox, go: &Notify, what: &str) {
    let mut tasks = JoinSet::new();
    let mut visitor = connect_h2(gateway, &mut tasks).await;
    let request = Request::get("https://example.test/").body(()).unwrap();
    let (response, _) = visitor.send_request(request, true).unwrap();
    let response = soon(what, response).await.expect("a response");
    assert_eq!(response.status(), 200, "{what}");
    go.notify_one();
    let mut body = response.into_body();
    let mut read = 0;
    let end = loop {
        match soon(what, body.data()).await {
            Some(Ok(data)) => {
                read += data.len();
                let _ = body.flow_control().release_capacity(data.len());
            }
            Some(Err(err)) => break Some(err),
            None => break None,
        }
    };
    let err = end.unwrap_or_else(|| panic!("{what}: {read} bytes look complete"));
    assert!(err.is_reset(), "{what}: {err}");
}

#[tokio::test]
async fn a_hundred_mebibytes_of_head_are_a_502_and_are_not_read() {
    const WHOLE: usize = 100 << 20;
    let gateway = GatewayBox::start();
    for field in [format!("X-{}: y\r\n", "n".repeat(1000)), "y".repeat(1000)] {
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let origin = OriginBox::raw(move |mut socket, _| {
            let (count, field) = (count.clone(), field.clone());
            async move {
                read_head(&mut socket).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
                while count.load(Ordering::Relaxed) < WHOLE {
                    if socket.write_all(field.as_bytes()).await.is_err() {
                        return;
                    }
                    count.fetch_add(field.len(), Ordering::Relaxed);
                }
            }
        })
        .await;
        let backend = Backend::of(&gateway, &origin).await;
        let answer = H1::get(&gateway, "/").await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        // What the kernel's buffers took, and no more.
        assert!(written.load(Ordering::Relaxed) < WHOLE / 4, "{written:?}");
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}

async fn expect_hi(gateway: &GatewayBox) {
    for _ in 0..2 {
        let answer = H1::get(gateway, "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    }
}

#[tokio::test]
async fn an_origin_may_be_a_unix_socket() {
    let gateway = GatewayBox::start();
    let folder = Folder::new();
    let path: PathBuf = folder.path("origin.sock");
    let _backend = serving(&gateway, OriginAddress::Unix(path.clone())).await;
    let missing = H1::get(&gateway, "/").await;
    assert_eq!(missing.status, 502, "{}", missing.text());
    assert!(!missing.text().contains("origin.sock"), "{}", missing.text());
    let listener = UnixListener::bind(&path).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            answer(socket).await;
        }
    });
    expect_hi(&gateway).await;
}

/// A development server on this machine signs for itself.
#[tokio::test]
async fn an_origin_on_loopback_may_speak_tls() {
    let gateway = GatewayBox::start();
    let certificate = Certificate::of(&["whatever.test"]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(crypto::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let origin = OriginBox::raw(move |socket, _| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(socket).await {
                answer(stream).await;
            }
        }
    })
    .await;
    for host in ["127.0.0.1", "localhost"] {
        let port = origin.address.port();
        let address = OriginAddress::Https { host: host.to_owned(), port };
        let backend = serving(&gateway, address).await;
        expect_hi(&gateway).await;
        drop(backend);
        gateway.until_tunnels(0).await;
    }
    // Plain HTTP to a port that speaks TLS is no response.
    let _backend = serving(&gateway, http("localhost", origin.address.port())).await;
    assert_eq!(H1::get(&gateway, "/").await.status, 502);
}

/// Servers listen on one family only, and which one differs from system to system.
#[tokio::test]
async fn localhost_is_found_on_either_family() {
    let gateway = GatewayBox::start();
    let listeners = [
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
        TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await,
    ];
    for listener in listeners {
        let listener = listener.expect("both families");
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                answer(socket).await;
            }
        });
        let backend = serving(&gateway, http("localhost", port)).await;
        expect_hi(&gateway).await;
        drop(backend);
        gateway.until_tunnels(0).await;
    }
}
