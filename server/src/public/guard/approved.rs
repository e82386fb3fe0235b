//! The bytes that hyper may read: those of a body gathered, so that small pieces become one.
//!
//! hyper gives its reader one chunk a turn, so what hyper parses decides how many pieces a body has. The
//! framing of a chunked body is written anew around as much data as is there (RFC 9112 §7.1).

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

use super::super::strict::Part;

/// What was judged and not handed over.
#[derive(Debug, Default)]
pub(super) struct Approved {
    /// What hyper gets first.
    front: BytesMut,
    /// The data of small chunks, which comes next, as one.
    data: BytesMut,
    /// Bytes at the front of what came, which come last, as they are.
    plain: usize,
    /// hyper hasn't seen the line end after the last chunk's data.
    open: bool,
    /// It is enough, or all there is.
    ready: bool,
}

impl Approved {
    /// Bytes, line ends of chunks apart.
    pub(super) fn len(&self) -> usize {
        self.front.len() + self.data.len() + self.plain
    }

    /// Bytes of what came that were judged and are still there.
    pub(super) fn plain(&self) -> usize {
        self.plain
    }

    /// Whether hyper may have them now.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether it is worth a turn of hyper's.
    pub(super) fn is_enough(&self) -> bool {
        self.len() >= ENOUGH
    }

    /// Takes the next `len` bytes of `raw` as they are.
    pub(super) fn take(&mut self, len: usize) {
        self.plain += len;
    }

    /// Takes the next `len` bytes of `raw`, which are of a body. True if no more is to be gathered.
    pub(super) fn take_body(&mut self, raw: &mut BytesMut, len: usize, part: Part) -> bool {
        match part {
            Part::Line => raw.advance(len),
            Part::Data if len < ENOUGH => {
                self.data.extend_from_slice(&raw.split_to(len));
                return self.data.len() >= MOST;
            }
            Part::Data => {
                self.seal();
                self.begin(len);
                self.plain = len;
                return true;
            }
            Part::Plain => {
                self.seal();
                self.end();
                self.plain += len;
                return self.is_enough();
            }
        }
        false
    }

    /// Lets hyper have what there is.
    pub(super) fn release(&mut self) {
        self.seal();
        self.ready = self.len() > 0;
    }

    /// Gives hyper what was released; what is plain stands at the front of `raw`.
    pub(super) fn hand_over(&mut self, raw: &mut BytesMut, buf: &mut ReadBuf<'_>) {
        let len = self.front.len().min(buf.remaining());
        buf.put_slice(&self.front.split_to(len));
        if self.front.is_empty() {
            self.front = BytesMut::new();
        }
        let len = self.plain.min(buf.remaining());
        buf.put_slice(raw.get(..len).unwrap_or_default());
        raw.advance(len);
        self.plain -= len;
        self.ready = self.len() > 0;
    }

    /// Makes the data that was gathered a chunk.
    fn seal(&mut self) {
        if !self.data.is_empty() {
            self.begin(self.data.len());
            self.front.extend_from_slice(&std::mem::take(&mut self.data));
        }
    }

    fn begin(&mut self, size: usize) {
        self.end();
        self.front.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        self.open = true;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            self.front.extend_from_slice(b"\r\n");
        }
    }
}

/// Less of a body isn't handed over while more is there.
const ENOUGH: usize = 4 * 1024;
/// One DATA frame of the default size (RFC 9113 §6.5.2).
const MOST: usize = 16 * 1024 - ENOUGH;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::Guard;

    /// E2: each chunk that hyper reads costs a turn.
    #[tokio::test]
    async fn chunks_of_a_byte_that_are_there_together_reach_hyper_as_one() {
        let (mut far, near) = duplex(4096);
        let (mut guard, _gate) = Guard::new(near);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = "1\r\nx\r\n".repeat(100);
        far.write_all(format!("{head}{chunks}0\r\n\r\n").as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let mut read = String::new();
        guard.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, format!("{head}64\r\n{}\r\n0\r\n\r\n", "x".repeat(100)));
    }
}
