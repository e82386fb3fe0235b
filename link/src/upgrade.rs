//! Connections that speak another protocol than HTTP (RFC 9110 §7.8), and the two HTTP/1.1 fields of a WebSocket's
//! handshake that HTTP/2 leaves out (RFC 8441 §5, RFC 6455 §4).

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, Chain, Join, ReadHalf, WriteHalf, join, split,
};

use crate::crypto;

/// The `:protocol` and `Upgrade` token.
pub const WEBSOCKET: &str = "websocket";

/// A fresh `Sec-WebSocket-Key`.
pub fn key() -> String {
    STANDARD.encode(crypto::random::<16>())
}

/// The `Sec-WebSocket-Accept` that answers `key`.
pub fn accept(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.digest().bytes())
}

/// A byte stream, with the bytes that were read of it before.
pub type Upgraded<IO> = Join<Chain<Cursor<BytesMut>, ReadHalf<IO>>, WriteHalf<IO>>;

/// `read` came behind the head.
pub fn upgraded<IO: AsyncRead + AsyncWrite>(io: IO, read: BytesMut) -> Upgraded<IO> {
    let (reader, writer) = split(io);
    join(Cursor::new(read).chain(reader), writer)
}

#[cfg(test)]
mod tests {

    /// The example of RFC 6455 §1.3.
    #[test]
    fn the_rfc_example_is_accepted() {
        assert_eq!(super::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
