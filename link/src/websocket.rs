//! The two HTTP/1.1 fields of a WebSocket handshake that HTTP/2 leaves out (RFC 8441 §5, RFC 6455 §4).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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

#[cfg(test)]
mod tests {
    /// The example of RFC 6455 §1.3.
    #[test]
    fn the_rfc_example_is_accepted() {
        assert_eq!(super::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
