//! HTTP/2 by hand: frames as bytes, for peers that do what no library would (RFC 9113 §4, §6).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::{GatewayBox, Hello, connect, soon};

pub use kind::*;

/// Frame types and flags (RFC 9113 §6).
pub mod kind {
    #![allow(missing_docs, reason = "the RFC's names")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

/// What a connection's client sends before its first frame (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it ends its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// One frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field block in which nothing is indexed or compressed (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // A length above 126 would need a prefix integer (RFC 7541 §5.1).
            block.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A HEADERS frame.
pub fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, &block(fields))
}

/// A DATA frame.
pub fn data(stream: u32, payload: &[u8], end: bool) -> Vec<u8> {
    frame(DATA, if end { END_STREAM } else { 0 }, stream, payload)
}

/// A RST_STREAM frame.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A GOAWAY frame.
pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A SETTINGS frame.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let pairs =
        settings.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>().concat())
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3).
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A connection of frames.
#[derive(Debug)]
pub struct Frames<IO> {
    io: IO,
}

/// Frames over TLS.
pub type TlsFrames = Frames<TlsStream<TcpStream>>;

impl TlsFrames {
    /// A visitor, past the exchange of SETTINGS.
    pub async fn visitor(gateway: &GatewayBox) -> Self {
        let io = connect(gateway, &[b"h2"]).await.expect("TLS");
        let mut frames = Self { io };
        frames.send([PREFACE, &settings(&[])].concat()).await;
        frames
    }

    /// A backend that `gateway` admits by its token, past SETTINGS and the first PING. It is in the pool
    /// when `gateway` has one tunnel more.
    pub async fn backend(gateway: &GatewayBox, name: &str, own: &[(u16, u32)]) -> Self {
        let hello = Hello::backend(&gateway.token, name);
        let io = hello.connect(gateway.address).await.expect("the gateway");
        let mut frames = Self { io };
        let mut preface = vec![0; PREFACE.len()];
        soon("the preface", frames.io.read_exact(&mut preface)).await.expect("the preface");
        assert_eq!(preface, PREFACE);
        frames.send(settings(own)).await;
        frames
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Frames<IO> {
    /// Writes bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.expect("the gateway reads");
        self.io.flush().await.expect("the gateway reads");
    }

    /// The next frame that says something; SETTINGS and PING are answered. `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            let answer = match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => self::frame(SETTINGS, ACK, 0, &[]),
                (PING, 0) => self::frame(PING, ACK, 0, &frame.payload),
                (SETTINGS | PING | WINDOW_UPDATE, _) => continue,
                _ => return Some(frame),
            };
            // Whether it gets the answer shows at the next read.
            let _ = self.io.write_all(&answer).await;
            let _ = self.io.flush().await;
        }
    }

    /// The next frame of that type; those before it are dropped.
    pub async fn next_of(&mut self, kind: u8) -> Frame {
        soon("a frame", async {
            loop {
                let frame = self.next().await.expect("the connection goes on");
                if frame.kind == kind {
                    return frame;
                }
            }
        })
        .await
    }

    /// What the peer's first frame sets.
    pub async fn settings(&mut self) -> Vec<(u16, u32)> {
        let frame = soon("SETTINGS", self.read()).await.expect("SETTINGS");
        assert_eq!((frame.kind, frame.flags), (SETTINGS, 0));
        let pair = |pair: &[u8]| {
            let (id, value) = (&pair[..2], &pair[2..]);
            let id = u16::from_be_bytes(id.try_into().expect("two bytes"));
            (id, u32::from_be_bytes(value.try_into().expect("four bytes")))
        };
        self.send(self::frame(SETTINGS, ACK, 0, &[])).await;
        frame.payload.chunks_exact(6).map(pair).collect()
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}
