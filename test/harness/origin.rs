//! Origins: a well-behaved one by hyper, and one that does with its socket what a test says.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// An origin. Dropping it closes its listener and connections.
#[derive(Debug)]
pub struct OriginBox {
    /// Where it listens.
    pub address: SocketAddr,
    #[allow(dead_code, reason = "held for its drop")]
    serving: JoinSet<()>,
}

impl OriginBox {
    /// Gives each connection to `serve`, with its number from 0.
    pub async fn raw<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let Ok((socket, _)) = listener.accept().await else { return };
                let _ = socket.set_nodelay(true);
                connections.spawn(serve(socket, number));
            }
        });
        Self { address, serving }
    }

    /// Answers each request with `answer`, by hyper.
    pub async fn http<F, B>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answer = Arc::new(answer);
        Self::raw(move |socket, _| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                let _ = connection.with_upgrades().await;
            }
        })
        .await
    }
}

/// Reads one head, up to and including its empty line. Empty if the connection ended first.
pub async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> String {
    String::from_utf8_lossy(&read_until(socket, b"\r\n\r\n").await).into_owned()
}

/// Reads up to and including `end`, and not a byte more. Empty if the connection ended first.
pub async fn read_until(socket: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end) {
        match socket.read(&mut byte).await {
            Ok(1) => bytes.push(byte[0]),
            _ => return Vec::new(),
        }
    }
    bytes
}

/// Waits until the peer has closed the connection or reset it; what it still sends is dropped.
pub async fn until_closed(socket: &mut (impl AsyncRead + Unpin)) {
    let mut rest = vec![0; 64 * 1024];
    while let Ok(1..) = socket.read(&mut rest).await {}
}
