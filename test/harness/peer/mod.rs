//! One end of an HTTP/2 connection by hand, for hostile peers and whoever watches them.
//!
//! A [`Peer`] allows the other end no dynamic table, so what it reads are literals and the static table.

mod hpack;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::soon;

pub use crate::frames::{
    ENABLE_CONNECT_PROTOCOL, Frame, MAX_CONCURRENT_STREAMS, PREFACE, frame, goaway, kind::*, reset,
    settings,
};
pub use hpack::block;

/// SETTINGS_HEADER_TABLE_SIZE (RFC 9113 §6.5.2).
pub const HEADER_TABLE_SIZE: u16 = 1;
/// SETTINGS_INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

impl Frame {
    /// Whether it is the last one of its stream, cut short or not.
    pub fn is_end(&self) -> bool {
        self.kind == RST_STREAM
            || matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The fields of HEADERS without padding, priority or continuation.
    pub fn fields(&self) -> Vec<(String, String)> {
        hpack::read(&self.payload)
    }

    /// A field's value; empty if there is none.
    pub fn field(&self, name: &str) -> String {
        let found = self.fields().into_iter().find(|(is, _)| is == name);
        found.map(|(_, value)| value).unwrap_or_default()
    }

    /// The error code of RST_STREAM and GOAWAY, the credit of WINDOW_UPDATE.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code"))
    }
}

/// HEADERS in one frame; `flags` may hold [`END_STREAM`].
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

/// DATA.
pub fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

/// WINDOW_UPDATE.
pub fn credit(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// The fields of an honest GET.
pub fn get(path: &str) -> [(&str, &str); 4] {
    request("GET", path)
}

/// The pseudo-fields of an honest request.
pub fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "https"), (":authority", "example.test"), (":path", path)]
}

/// One end of an HTTP/2 connection, by hand. SETTINGS and PING are answered while it is read.
#[derive(Debug)]
pub struct Peer<IO> {
    /// The connection.
    pub io: IO,
    /// Whether PING is answered, too.
    pub polite: bool,
    unread: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A response that came to its end.
    Response(u16, Vec<u8>),
    /// It was reset: the status, 0 if there was none, and the code.
    Reset(u16, u32),
    /// The connection ended first: GOAWAY's code, if there was one.
    Closed(Option<u32>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Peer<IO> {
    /// One of which nothing has come yet.
    pub fn raw(io: IO) -> Self {
        Self { io, polite: true, unread: Vec::new() }
    }

    /// One who asks: sends the preface, and SETTINGS with `values`.
    pub async fn asking(io: IO, values: &[(u16, u32)]) -> Self {
        let mut peer = Self::raw(io);
        let values = [&[(HEADER_TABLE_SIZE, 0)], values].concat();
        peer.send([PREFACE, &settings(&values)].concat()).await;
        peer
    }

    /// One who answers, though it dialled: takes the preface, and sends SETTINGS with `values`.
    pub async fn answering(io: IO, values: &[(u16, u32)]) -> Self {
        let mut peer = Self::raw(io);
        let values = [&[(HEADER_TABLE_SIZE, 0)], values].concat();
        peer.send(settings(&values)).await;
        while peer.unread.len() < PREFACE.len() && peer.fill().await {}
        assert!(peer.unread.starts_with(PREFACE), "{:?}", peer.unread);
        peer.unread.drain(..PREFACE.len());
        peer
    }

    /// Writes bytes. False if the other end has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.io.write_all(bytes.as_ref()).await.is_ok() && self.io.flush().await.is_ok()
    }

    /// The next frame, acknowledgements and answered frames left out. `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let came = self.any().await?;
            match (came.kind, came.flags & ACK) {
                (SETTINGS, 0) => _ = self.send(frame(SETTINGS, ACK, 0, &[])).await,
                (PING, 0) if self.polite => {
                    self.send(frame(PING, ACK, 0, &came.payload)).await;
                }
                (SETTINGS, _) => {}
                _ => return Some(came),
            }
        }
    }

    /// The next frame, whatever it is, unanswered.
    pub async fn any(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.unread.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                let (kind, flags) = (head[3], head[4]);
                if self.unread.len() >= 9 + length {
                    let payload = self.unread.drain(..9 + length).skip(9).collect();
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Waits for an answer to PING; what comes before is lost.
    pub async fn ping(&mut self) {
        self.send(frame(PING, 0, 0, b"ping-ack")).await;
        let answered = async {
            while let Some(frame) = self.next().await {
                if frame.kind == PING {
                    return;
                }
            }
            panic!("the connection ended");
        };
        soon("a PONG", answered).await;
    }

    /// The next HEADERS: to one who answers, a request.
    pub async fn request(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == HEADERS {
                return Some(frame);
            }
        }
    }

    /// Reads until `stream` has ended, giving back the credit for what came. Frames of other streams are lost.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        soon("a stream's end", async {
            let (mut status, mut body, mut code) = (0, Vec::new(), None);
            while let Some(frame) = self.next().await {
                if frame.kind == GOAWAY {
                    code = Some(frame.code());
                }
                if frame.stream != stream {
                    continue;
                }
                match frame.kind {
                    HEADERS if status < 200 => {
                        status = frame.field(":status").parse().unwrap_or(status);
                    }
                    DATA => {
                        body.extend(&frame.payload);
                        self.take(stream, frame.payload.len()).await;
                    }
                    RST_STREAM => return Outcome::Reset(status, frame.code()),
                    _ => {}
                }
                if frame.is_end() {
                    return Outcome::Response(status, body);
                }
            }
            Outcome::Closed(code)
        })
        .await
    }

    /// Reads until `stream` is reset, giving no credit. False if the connection ended first.
    pub async fn next_reset(&mut self, stream: u32) -> bool {
        while let Some(frame) = self.next().await {
            if frame.kind == RST_STREAM && frame.stream == stream {
                return true;
            }
        }
        false
    }

    /// Gives credit for bytes that came on `stream`.
    pub async fn take(&mut self, stream: u32, bytes: usize) {
        if bytes > 0 {
            self.send([credit(0, bytes as u32), credit(stream, bytes as u32)].concat()).await;
        }
    }

    /// Reads until the connection ends: the code of the last GOAWAY, if there was one.
    pub async fn end(&mut self) -> Option<u32> {
        soon("the connection's end", async {
            let mut code = None;
            while let Some(frame) = self.next().await {
                if frame.kind == GOAWAY {
                    code = Some(frame.code());
                }
            }
            code
        })
        .await
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.io.read(&mut chunk).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.unread.extend(&chunk[..read]);
                true
            }
        }
    }
}
