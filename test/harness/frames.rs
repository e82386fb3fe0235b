//! HTTP/2 by hand: bytes in, bytes out, so that a hostile peer can say what no library would.
//!
//! Fields are written as HPACK literals without indexing (RFC 7541 §6.2.2). A [`Peer`] allows its
//! peer no dynamic table, so what it reads are literals and the static table too.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::soon;

/// Frame types (RFC 9113 §6).
pub const DATA: u8 = 0;
/// Fields.
pub const HEADERS: u8 = 1;
/// Priority, which nobody needs.
pub const PRIORITY: u8 = 2;
/// A stream's early end.
pub const RST_STREAM: u8 = 3;
/// Settings.
pub const SETTINGS: u8 = 4;
/// A push.
pub const PUSH_PROMISE: u8 = 5;
/// A ping.
pub const PING: u8 = 6;
/// The connection's end.
pub const GOAWAY: u8 = 7;
/// Credit.
pub const WINDOW_UPDATE: u8 = 8;
/// More fields.
pub const CONTINUATION: u8 = 9;

/// On SETTINGS and PING.
pub const ACK: u8 = 1;
/// On DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// On HEADERS, PUSH_PROMISE and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// SETTINGS (RFC 9113 §6.5.2, RFC 8441 §3).
pub const HEADER_TABLE_SIZE: u16 = 1;
/// Whether the peer may push.
pub const ENABLE_PUSH: u16 = 2;
/// Streams that the peer may open.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// A stream's window.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// Extended CONNECT.
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// What a client begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is the last one of its stream, cut short or not.
    pub fn is_end(&self) -> bool {
        self.kind == RST_STREAM
            || matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The fields of HEADERS without padding, priority or continuation.
    pub fn fields(&self) -> Vec<(String, String)> {
        fields(&self.payload)
    }

    /// A field's value; empty if there is none.
    pub fn field(&self, name: &str) -> String {
        let found = self.fields().into_iter().find(|(is, _)| is == name);
        found.map(|(_, value)| value).unwrap_or_default()
    }

    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code"))
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// SETTINGS.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in values {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// HEADERS in one frame; `flags` may hold [`END_STREAM`].
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &hpack(fields))
}

/// DATA.
pub fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

/// RST_STREAM.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// GOAWAY.
pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
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

/// Fields as literals without indexing.
pub fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(block: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(length as u8 | 128);
        length >>= 7;
    }
    block.push(length as u8);
}

/// Reads a block that makes no use of the dynamic table.
fn fields(block: &[u8]) -> Vec<(String, String)> {
    let mut block = block;
    let mut fields = Vec::new();
    while let Some(&first) = block.first() {
        match first {
            0x80.. => {
                let index = integer(&mut block, 7);
                let (name, value) = STATIC.get(index - 1).copied().unwrap_or(("#", ""));
                fields.push((name.replace('#', &format!("#{index}")), value.to_owned()));
            }
            0x20..0x40 => {
                integer(&mut block, 5);
            }
            _ => {
                let index = integer(&mut block, if first >= 0x40 { 6 } else { 4 });
                let name = match index {
                    0 => string(&mut block),
                    index => STATIC.get(index - 1).map_or(format!("#{index}"), |f| f.0.to_owned()),
                };
                fields.push((name, string(&mut block)));
            }
        }
    }
    fields
}

fn integer(block: &mut &[u8], prefix: u32) -> usize {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(take(block)) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let byte = usize::from(take(block));
            value += (byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    value
}

fn take(block: &mut &[u8]) -> u8 {
    let (first, rest) = block.split_first().expect("a whole block");
    *block = rest;
    *first
}

fn string(block: &mut &[u8]) -> String {
    let huffman = block[0] & 128 != 0;
    let length = integer(block, 7);
    let (text, rest) = block.split_at(length);
    *block = rest;
    if huffman { unhuffman(text) } else { String::from_utf8_lossy(text).into_owned() }
}

/// RFC 7541 Appendix B, as far as text goes. The code is canonical: lengths and order say it all.
fn unhuffman(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut code, mut length) = (0_u32, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        length += 1;
        let mut first = 0_u32;
        let mut last = 0;
        for (bits, symbols) in HUFFMAN {
            first <<= bits - last;
            last = bits;
            if bits == length
                && let Some(symbol) =
                    code.checked_sub(first).and_then(|n| symbols.chars().nth(n as usize))
            {
                text.push(symbol);
                (code, length) = (0, 0);
                break;
            }
            first += symbols.chars().count() as u32;
        }
    }
    text
}

const HUFFMAN: [(u32, &str); 10] = [
    (5, "012aceiost"),
    (6, " %-./3456789=A_bdfghlmnpru"),
    (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, "&*,;XZ"),
    (10, "!\"()?"),
    (11, "'+|"),
    (12, "#>"),
    (13, "\0$@[]~"),
    (14, "^}"),
    (15, "<`{"),
];

/// RFC 7541 Appendix A, as far as these tests look.
const STATIC: [(&str, &str); 14] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
];

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
    /// One who asks: sends the preface, and SETTINGS with `values`.
    pub async fn asking(io: IO, values: &[(u16, u32)]) -> Self {
        let mut peer = Self { io, polite: true, unread: Vec::new() };
        let values = [&[(HEADER_TABLE_SIZE, 0)], values].concat();
        peer.send([PREFACE, &settings(&values)].concat()).await;
        peer
    }

    /// One who answers, though it dialled: takes the preface, and sends SETTINGS with `values`.
    pub async fn answering(io: IO, values: &[(u16, u32)]) -> Self {
        let mut peer = Self { io, polite: true, unread: Vec::new() };
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
            let frame = self.any().await?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => _ = self.send(self::frame(SETTINGS, ACK, 0, &[])).await,
                (PING, 0) if self.polite => {
                    self.send(self::frame(PING, ACK, 0, &frame.payload)).await;
                }
                (SETTINGS, _) => {}
                _ => return Some(frame),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541 C.4.1 and C.6.1.
    #[test]
    fn huffman_reads_the_examples_of_the_rfc() {
        for (code, text) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0x64, 0x02], "302"),
        ] {
            assert_eq!(unhuffman(code), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "x".repeat(5000);
        let written = [(":status", "299"), ("x-long", &long), ("empty", "")];
        let read = fields(&hpack(&written));
        assert_eq!(read, written.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }
}
