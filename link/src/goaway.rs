//! Why the gateway ends a tunnel, where the user must see it.
//!
//! h2's client role has no way to send GOAWAY with a reason, so this one frame is written by hand.

use h2::Reason;

/// The one backend of an open gateway is there already. Both ends know the code by this name; it lies
/// outside the registered error codes (RFC 9113 §7).
pub const TAKEN: u32 = 0x3270_0001;

/// The bytes with which a gateway refuses a backend after the TLS handshake: client preface, empty
/// SETTINGS, GOAWAY (RFC 9113 §3.4, §6.5, §6.8).
pub fn refusal(code: u32, why: &str) -> Vec<u8> {
    let why = &why.as_bytes()[..why.len().min(255)];
    let mut bytes = Vec::from(*b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    bytes.extend([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    // At most 263, so two of the three length bytes are enough.
    let length = (8 + why.len() as u16).to_be_bytes();
    bytes.extend([0, length[0], length[1], GOAWAY, 0, 0, 0, 0, 0]);
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes.extend(why);
    bytes
}

/// Whether `err` is that refusal.
pub fn is_taken(err: &h2::Error) -> bool {
    err.reason() == Some(Reason::from(TAKEN))
}

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_backend_reads_the_refusal() {
        let (mut gateway, backend) = tokio::io::duplex(4096);
        gateway.write_all(&refusal(TAKEN, "taken")).await.unwrap();
        let mut connection = h2::server::handshake(backend).await.unwrap();
        let err = connection.accept().await.unwrap().unwrap_err();
        assert!(is_taken(&err), "{err:?}");
    }
}
