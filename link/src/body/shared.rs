//! The queue between a body's stream and its reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use h2::FlowControl;
use http::HeaderMap;

use super::BodyError;
use crate::budget::{Budget, Credit, Excess, Held};
use crate::lock::Mutex;

#[derive(Debug)]
pub(super) struct Shared {
    credit: Option<FlowControl>,
    chunks: VecDeque<Bytes>,
    /// Small chunks that came after those, merged.
    tail: BytesMut,
    /// Bytes of memory that `chunks` hold.
    waiting: usize,
    /// All of that, and the trailers.
    held: Held,
    pub(super) trailers: Option<HeaderMap>,
    /// Bytes of those.
    pub(super) trailing: usize,
    pub(super) end: Option<Result<(), BodyError>>,
    pub(super) unread: bool,
    /// Bytes that the reader took.
    pub(super) read: u64,
    pub(super) reader: Option<Waker>,
    pub(super) inflow: Option<Waker>,
}

impl Shared {
    pub(super) fn new(credit: Option<FlowControl>, budget: Arc<Budget>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            credit,
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            waiting: 0,
            held: Held::of(budget),
            trailers: None,
            trailing: 0,
            end: None,
            unread: false,
            read: 0,
            reader: None,
            inflow: None,
        }))
    }

    /// As [`Credit::renew`].
    fn renew(&mut self) {
        self.took(0);
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Excess> {
        if self.unread {
            // The reader left a moment ago. h2 takes the credit back when the stream is dropped.
            return Ok(());
        }
        if data.len() < SMALL {
            if self.tail.len() + data.len() > MERGED {
                self.seal();
            }
            self.tail.extend_from_slice(&data);
        } else {
            self.seal();
            // A slice keeps all that was read with it, up to four times its length.
            let calm = self.held.budget().is_calm();
            self.keep(if calm { data } else { Bytes::copy_from_slice(&data) });
        }
        let counted = self.count();
        if counted.is_err() {
            self.clear();
            self.unread = true;
            self.finish(Err(BodyError::Excess));
        }
        self.wake_reader();
        counted
    }

    fn keep(&mut self, data: Bytes) {
        self.waiting += data.len() + PIECE;
        self.chunks.push_back(data);
    }

    /// Tells the budget of all that is held now.
    pub(super) fn count(&mut self) -> Result<(), Excess> {
        self.held.set(self.waiting + self.tail.capacity() + self.trailing)
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.keep(tail.freeze());
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let data = self.chunks.pop_front()?;
        self.waiting -= data.len() + PIECE;
        // Less than before.
        let _ = self.count();
        self.read += data.len() as u64;
        self.took(data.len());
        Some(data)
    }

    /// Credits the sender with what was taken.
    fn took(&mut self, bytes: usize) {
        if let Some(credit) = &mut self.credit {
            // Fails only on a stream that is gone, whose credit h2 has given back itself.
            let _ = credit.release_capacity(bytes);
        }
    }

    /// Drops what waits, and the handle. h2 gives a stream's credit back only when the last handle of it goes,
    /// which the reset limiter may hold for long; and the budget would leak.
    pub(super) fn clear(&mut self) {
        let rest = self.chunks.iter().map(Bytes::len).sum::<usize>() + self.tail.len();
        self.chunks = VecDeque::new();
        self.tail = BytesMut::new();
        self.waiting = 0;
        self.trailing = 0;
        let _ = self.count();
        self.took(rest);
        self.credit = None;
    }

    /// Whether something waits for the reader, trailers aside.
    pub(super) fn waits(&self) -> bool {
        !self.chunks.is_empty() || !self.tail.is_empty()
    }

    /// Bytes that the reader would take next.
    pub(super) fn next(&self) -> usize {
        self.chunks.front().map_or(self.tail.len(), Bytes::len)
    }

    pub(super) fn finish(&mut self, end: Result<(), BodyError>) {
        self.end = Some(end);
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl Credit for Mutex<Shared> {
    fn renew(&self) {
        self.lock().renew();
    }
}

/// A chunk below this is copied into the tail rather than kept: it would keep all that was read with it.
const SMALL: usize = 2048;
/// Memory that a chunk needs beside its bytes: its place in the queue, and what counts its slices.
const PIECE: usize = 96;
/// What merged chunks grow to: one DATA frame, one TLS record.
const MERGED: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_keeps_only_itself_where_many_sockets_are_full() {
        let budget = Budget::new(1 << 20);
        let (mut full, mut waiting) = (Vec::new(), Vec::new());
        for (sockets, alone) in [(0, false), (100, true)] {
            full.resize_with(sockets, || budget.full());
            let read = Bytes::from(vec![0; 64 * 1024]);
            let shared = Shared::new(None, budget.clone());
            shared.lock().push(read.slice(..MERGED)).unwrap();
            waiting.push(shared.clone());
            assert_eq!(read.is_unique(), alone, "{sockets}");
        }
        assert_eq!(budget.held(), 2 * (MERGED + PIECE));
    }

    #[test]
    fn the_budget_counts_what_pieces_really_hold() {
        let budget = Budget::new(1 << 20);
        let shared = Shared::new(None, budget.clone());
        let mut shared = shared.lock();
        let read = Bytes::from(vec![0; 64 * 1024]);
        for _ in 0..MERGED + 1 {
            shared.push(read.slice(..1)).unwrap();
        }
        assert!(read.is_unique(), "a byte keeps a whole read");
        let buffers = shared.chunks.iter().map(|chunk| chunk.len() + PIECE).sum::<usize>();
        assert_eq!(budget.held(), buffers + shared.tail.capacity());
        assert!(budget.held() < 2 * MERGED, "{}", budget.held());
        for (piece, left) in [(MERGED, 1), (1, 0)] {
            assert_eq!(shared.pop().map(|data| data.len()), Some(piece));
            assert!((left..1024).contains(&budget.held()), "{}", budget.held());
        }
        assert_eq!(budget.held(), 0);
    }
}
