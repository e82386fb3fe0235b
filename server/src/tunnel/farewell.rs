//! The end of a connection whose peer must still read why.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Closes our half, and reads and forgets what still comes, for a moment: to close a socket with unread
/// bytes in it sends a reset, which may overtake our last words (RFC 1122 §4.2.2.13).
pub(crate) async fn farewell<IO>(mut io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let linger = async {
        let _ = io.shutdown().await;
        let mut room = [0; 4096];
        let mut read = 0;
        while read < MOST {
            match io.read(&mut room).await {
                Ok(count) if count > 0 => read += count,
                _ => return,
            }
        }
    };
    let _ = timeout(LINGER, linger).await;
}

/// As long as a round trip of the slowest link, and one lost packet.
const LINGER: Duration = Duration::from_secs(2);
/// What a backend says before it learns that it isn't wanted: its preface, in a loop at worst.
const MOST: usize = 256 * 1024;
