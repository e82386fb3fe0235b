//! Why the gateway ends a tunnel, where the backend must see it.
//!
//! h2's client role has no way to send GOAWAY with a reason, so this one frame is written by hand.

use std::fmt;

use h2::Reason;

/// A reason that both ends know by name. The codes lie outside the registered error codes (RFC 9113 §7).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u32)]
pub enum Why {
    /// Another backend has the place already, and keeps it.
    Taken = 0x3270_0001,
    /// Another backend came and has the place from now on.
    Replaced,
    /// What this tunnel served is no longer served, or no longer by it: dialling again brings the verdict.
    Withdrawn,
    /// The backend was admitted, and nothing of what it asked for is its to serve.
    Forbidden,
    /// Its credential has all the tunnels that it may have: another one may come when one of them ends.
    OverLimit,
    /// The gateway's process ends in order; dialling again finds its successor.
    Stopping,
}

impl From<Why> for u32 {
    fn from(why: Why) -> Self {
        why as Self
    }
}

impl Why {
    pub const ALL: [Self; 6] = [
        Self::Taken,
        Self::Replaced,
        Self::Withdrawn,
        Self::Forbidden,
        Self::OverLimit,
        Self::Stopping,
    ];

    /// The reason of a GOAWAY that the peer sent, if it is one of ours.
    pub fn of(err: &h2::Error) -> Option<Self> {
        let theirs = err.is_go_away() && err.is_remote();
        let code = err.reason().filter(|_| theirs)?;
        Self::ALL.into_iter().find(|why| Reason::from(*why as u32) == code)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "taken",
            Self::Replaced => "replaced",
            Self::Withdrawn => "withdrawn",
            Self::Forbidden => "forbidden",
            Self::OverLimit => "over a limit",
            Self::Stopping => "it stops",
        })
    }
}

/// The bytes with which a gateway refuses a backend after the TLS handshake: client preface, empty
/// SETTINGS, GOAWAY (RFC 9113 §3.4, §6.5, §6.8).
pub fn refusal(code: impl Into<u32>, text: &str) -> Vec<u8> {
    let mut bytes = Vec::from(*b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    bytes.extend([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    bytes.extend(frame(code, text));
    bytes
}

/// One GOAWAY frame, to be written on an idle connection before it is closed (RFC 9113 §6.8). `text`, cut
/// at 255 bytes, is its debug data. The last stream is 0: backends open none.
pub fn frame(code: impl Into<u32>, text: &str) -> Vec<u8> {
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    // At most 263, so two of the three length bytes are enough.
    let length = (8 + text.len() as u16).to_be_bytes();
    let mut bytes = vec![0, length[0], length[1], GOAWAY, 0, 0, 0, 0, 0];
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(code.into().to_be_bytes());
    bytes.extend(text);
    bytes
}

/// The debug data of a GOAWAY that the peer sent, if it is text. The peer chose it: print it with `{:?}`.
pub fn text(err: &h2::Error) -> Option<String> {
    if !(err.is_go_away() && err.is_remote()) {
        return None;
    }
    // h2 shows the debug data only in an error's text, as a byte string in brackets at its end.
    let shown = err.to_string();
    let (_, quoted) = shown.split_once(" (b\"")?;
    let bytes = unescape(quoted.strip_suffix("\")")?)?;
    let text = String::from_utf8(bytes).ok()?;
    Some(text.chars().take(LONGEST_TEXT).collect())
}

/// Undoes the `Debug` of `Bytes`.
fn unescape(quoted: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted.bytes();
    while let Some(byte) = rest.next() {
        let byte = match (byte, if byte == b'\\' { rest.next() } else { None }) {
            (b'\\', Some(b'n')) => b'\n',
            (b'\\', Some(b'r')) => b'\r',
            (b'\\', Some(b't')) => b'\t',
            (b'\\', Some(b'0')) => 0,
            (b'\\', Some(b'x')) => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            (b'\\', escaped) => escaped?,
            (plain, _) => plain,
        };
        bytes.push(byte);
    }
    Some(bytes)
}

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// A sentence.
const LONGEST_TEXT: usize = 255;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What a backend's h2 makes of these bytes after a refusal's preface and SETTINGS.
    async fn read(goaway: &[u8]) -> h2::Error {
        let (mut gateway, backend) = tokio::io::duplex(4096);
        gateway.write_all(&refusal(0_u32, "")[..24 + 9]).await.unwrap();
        gateway.write_all(goaway).await.unwrap();
        let mut connection = h2::server::handshake(backend).await.unwrap();
        connection.accept().await.unwrap().unwrap_err()
    }

    #[tokio::test]
    async fn a_backend_reads_why_and_in_which_words() {
        for why in Why::ALL {
            let words = format!("{why}: \"name\"\\\r\n\t\0 is Bob’s");
            let err = read(&frame(why, &words)).await;
            assert_eq!(Why::of(&err), Some(why), "{err:?}");
            assert_eq!(text(&err), Some(words));
            assert!(refusal(why, "x").ends_with(&frame(why, "x")));
        }
    }

    #[tokio::test]
    async fn other_codes_are_not_ours() {
        for code in [1_u32, 11, 0x3270_0000, Why::Stopping as u32 + 1, u32::MAX] {
            let err = read(&frame(code, "")).await;
            assert_eq!((Why::of(&err), text(&err)), (None, None), "{err:?}");
        }
    }

    #[tokio::test]
    async fn odd_words_harm_nobody() {
        let mut bytes = frame(Why::Taken, "ab");
        bytes.truncate(17);
        bytes.extend([0xff, b'"']);
        assert_eq!(text(&read(&bytes).await), None);
        let long = frame(Why::Taken, &"é".repeat(300));
        assert_eq!(long.len(), 9 + 8 + 254);
        assert_eq!(text(&read(&long).await), Some("é".repeat(127)));
        for broken in ["\\", "\\x", "\\x1", "\\xzz", "\\xé"] {
            assert_eq!(unescape(broken), None, "{broken:?}");
        }
    }
}
