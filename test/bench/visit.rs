//! Visitors that h2load can't be: one stream with a long body, and connections that are only held.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use ptth_test::Hello;
use rustls::client::Resumption;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Void;

/// A visitor's TLS connection; the address that it comes from is 127.0.0.`from`, and its kernel keeps about
/// `buffer` bytes for it.
pub(crate) async fn connect(
    to: SocketAddr,
    from: u8,
    alpn: &[u8],
    buffer: Option<u32>,
) -> Result<TlsStream<TcpStream>, Void> {
    let failed = |err: std::io::Error| Void(format!("can't connect: {err}"));
    let socket = TcpSocket::new_v4().map_err(failed)?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).map_err(failed)?;
        // As on the way to most visitors. Loopback's 64 KiB make the kernel keep megabytes for each who
        // doesn't read, and a thousand of them use up what it has for TCP in all.
        SockRef::from(&socket).set_tcp_mss(1448).map_err(failed)?;
    }
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).map_err(failed)?;
    let socket = socket.connect(to).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    let hello = Hello::offering(&[alpn]);
    let mut config = hello.config();
    // Each handshake is a whole one.
    config.resumption = Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(hello.server_name(), socket).await.map_err(failed)
}

/// An HTTP/2 connection, driven until this is dropped.
#[derive(Debug)]
pub(crate) struct Http2 {
    /// Opens streams.
    pub(crate) sender: SendRequest<Bytes>,
    #[allow(dead_code, reason = "held for its drop, which cuts the connection")]
    driver: JoinSet<()>,
}

impl Http2 {
    pub(crate) async fn connect(to: SocketAddr, from: u8) -> Result<Self, Void> {
        let io = connect(to, from, b"h2", None).await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 << 20).initial_connection_window_size(1 << 30);
        let (sender, connection) = builder.handshake(io).await.map_err(failed)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// One download of `size` bytes: how long it took.
    pub(crate) async fn get(&mut self, path: &str, size: u64) -> Result<Duration, Void> {
        let begun = Instant::now();
        let request = request(Method::GET, path);
        let (response, _) = self.sender.send_request(request, true).map_err(failed)?;
        let response = response.await.map_err(failed)?;
        fine(response.status().as_u16())?;
        let mut body = response.into_body();
        let mut got = 0;
        while let Some(data) = body.data().await {
            let data = data.map_err(failed)?;
            got += data.len() as u64;
            body.flow_control().release_capacity(data.len()).map_err(failed)?;
        }
        whole(got, size).map(|()| begun.elapsed())
    }

    /// One upload of `size` bytes: how long it took until the response.
    pub(crate) async fn put(&mut self, path: &str, size: u64) -> Result<Duration, Void> {
        let begun = Instant::now();
        let mut request = request(Method::PUT, path);
        request.headers_mut().insert("content-length", size.into());
        let (response, mut stream) = self.sender.send_request(request, false).map_err(failed)?;
        let mut left = size as usize;
        while left > 0 {
            let room = ptth_test::h2::room(&mut stream, left.min(BLOCK.len())).await;
            let room = room.ok_or_else(|| Void("the upload was refused".to_owned()))?;
            let count = room.min(left).min(BLOCK.len());
            left -= count;
            let part = Bytes::from_static(&BLOCK).slice(..count);
            stream.send_data(part, left == 0).map_err(failed)?;
        }
        fine(response.await.map_err(failed)?.status().as_u16())?;
        Ok(begun.elapsed())
    }
}

/// A request for the origin's files.
pub(crate) fn request(method: Method, path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    // A path that is ours always parses.
    *request.uri_mut() = format!("https://example.test{path}").parse().unwrap_or_default();
    request
}

/// An HTTP/1.1 connection, by hand.
#[derive(Debug)]
pub(crate) struct Http1<IO>(pub(crate) IO);

impl<IO: AsyncRead + AsyncWrite + Unpin> Http1<IO> {
    /// As [`Http2::get`].
    pub(crate) async fn get(&mut self, path: &str, size: u64) -> Result<Duration, Void> {
        let begun = Instant::now();
        self.ask(path).await?;
        let mut got = self.head().await? as u64;
        let mut sink = vec![0; 256 * 1024];
        while got < size {
            match self.0.read(&mut sink).await.map_err(lost)? {
                0 => break,
                count => got += count as u64,
            }
        }
        whole(got, size).map(|()| begun.elapsed())
    }

    /// Sends a GET, and reads nothing.
    pub(crate) async fn ask(&mut self, path: &str) -> Result<(), Void> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.map_err(lost)?;
        self.0.flush().await.map_err(lost)
    }

    /// As [`Http2::put`].
    pub(crate) async fn put(&mut self, path: &str, size: u64) -> Result<Duration, Void> {
        let begun = Instant::now();
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: example.test\r\nContent-Length: {size}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.map_err(lost)?;
        let mut left = size as usize;
        while left > 0 {
            let count = left.min(BLOCK.len());
            let block = BLOCK.get(..count).unwrap_or(&BLOCK);
            self.0.write_all(block).await.map_err(lost)?;
            left -= count;
        }
        self.0.flush().await.map_err(lost)?;
        self.head().await?;
        Ok(begun.elapsed())
    }

    /// Reads a head of 2xx; how much of the body came with it.
    async fn head(&mut self) -> Result<usize, Void> {
        let mut head = Vec::new();
        loop {
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                let status = head.get(9..12).and_then(|it| std::str::from_utf8(it).ok());
                fine(status.and_then(|it| it.parse().ok()).unwrap_or(0))?;
                return Ok(head.len() - end - 4);
            }
            if self.0.read_buf(&mut head).await.map_err(lost)? == 0 {
                return Err(Void("no response".to_owned()));
            }
        }
    }
}

/// Any response but 2xx voids the run.
pub(crate) fn fine(status: u16) -> Result<(), Void> {
    if (200..300).contains(&status) { Ok(()) } else { Err(Void(format!("status {status}"))) }
}

fn whole(got: u64, size: u64) -> Result<(), Void> {
    if got == size { Ok(()) } else { Err(Void(format!("{got} bytes in place of {size}"))) }
}

/// For `map_err`.
pub(crate) fn failed(err: h2::Error) -> Void {
    Void(format!("HTTP/2: {err}"))
}

fn lost(err: std::io::Error) -> Void {
    Void(format!("HTTP/1.1: {err}"))
}

static BLOCK: [u8; 64 * 1024] = [0; 64 * 1024];
