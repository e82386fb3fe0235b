//! Both ends of an exchange by hand, each with its own account of every window (RFC 9113 §6.9).
//!
//! Invariant: an account counts what was granted and what was sent, so that a byte of credit that is lost
//! on the other end shows as a byte that is missing here.

use std::collections::{HashMap, VecDeque};

use ptth_test::peer::*;
use ptth_test::{DEADLINE, Dice, Peer, soon};
use tokio::io::DuplexStream;
use tokio::select;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::plan::{Plan, When};

/// What may be sent.
#[derive(Debug)]
pub(super) struct Books {
    /// On the whole connection.
    pub(super) connection: i64,
    /// On a stream that is new.
    pub(super) initial: i64,
    /// WINDOW_UPDATE frames for the connection so far.
    pub(super) credits: u32,
    sending: VecDeque<Sending>,
}

#[derive(Debug)]
struct Sending {
    stream: u32,
    window: i64,
    left: usize,
}

impl Books {
    fn new() -> Self {
        Self { connection: DEFAULT, initial: DEFAULT, credits: 0, sending: VecDeque::new() }
    }

    fn note(&mut self, frame: &Frame) {
        match (frame.kind, frame.stream) {
            (SETTINGS, _) => {
                for setting in frame.payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let value = i64::from(u32::from_be_bytes(setting[2..].try_into().unwrap()));
                        let change = value - self.initial;
                        self.initial = value;
                        self.sending.iter_mut().for_each(|it| it.window += change);
                    }
                }
            }
            (WINDOW_UPDATE, 0) => {
                self.connection += i64::from(frame.code());
                self.credits += 1;
            }
            (WINDOW_UPDATE, stream) => {
                let open = self.sending.iter_mut().find(|it| it.stream == stream);
                open.into_iter().for_each(|it| it.window += i64::from(frame.code()));
            }
            (RST_STREAM, stream) => self.stop(stream),
            _ => {}
        }
    }

    /// Wants to send so many bytes on `stream`, and END_STREAM with the last one.
    fn begin(&mut self, stream: u32, left: usize) {
        self.sending.push_back(Sending { stream, window: self.initial, left });
    }

    fn stop(&mut self, stream: u32) {
        self.sending.retain(|it| it.stream != stream);
    }

    /// Whether `stream` has used up its window.
    fn is_shut(&self, stream: u32) -> bool {
        self.sending.iter().any(|it| it.stream == stream && it.window <= 0)
    }

    /// Bytes of `stream` that wait.
    fn left(&self, stream: u32) -> usize {
        self.sending.iter().find(|it| it.stream == stream).map_or(0, |it| it.left)
    }

    /// The next DATA that may be sent; the streams take turns.
    fn next(&mut self) -> Option<Vec<u8>> {
        let connection = self.connection;
        let place = self.sending.iter().position(|it| it.window.min(connection) > 0)?;
        let mut turn = self.sending.remove(place)?;
        let part = (turn.left as i64).min(turn.window).min(connection).min(FRAME.len() as i64);
        let size = part as usize;
        (turn.left, turn.window) = (turn.left - size, turn.window - part);
        self.connection -= part;
        let flags = if turn.left == 0 { END_STREAM } else { 0 };
        let frame = data(turn.stream, flags, &FRAME[..size]);
        if turn.left > 0 {
            self.sending.push_back(turn);
        }
        Some(frame)
    }
}

/// A connection and its account.
#[derive(Debug)]
struct End {
    peer: Peer<DuplexStream>,
    books: Books,
}

impl End {
    /// What has come, or else sends one frame of what may be sent: then `None`. SETTINGS and PING are
    /// answered. Cancel safe while nothing may be sent.
    ///
    /// # Panics
    /// When the connection ends.
    async fn turn(&mut self) -> Option<Frame> {
        let next = self.books.next();
        let came = match next {
            Some(bytes) => {
                self.peer.send(bytes).await;
                select! { biased; came = self.peer.any() => came, () = async {} => return None }
            }
            None => self.peer.any().await,
        };
        let frame = came.expect("the connection lives");
        assert_ne!(frame.kind, GOAWAY, "{}", frame.code());
        self.books.note(&frame);
        if frame.flags & ACK == 0 {
            match frame.kind {
                SETTINGS => _ = self.peer.send(ptth_test::peer::frame(SETTINGS, ACK, 0, &[])).await,
                PING => {
                    let pong = ptth_test::peer::frame(PING, ACK, 0, &frame.payload);
                    self.peer.send(pong).await;
                }
                _ => {}
            }
        }
        Some(frame)
    }

    /// Gives back what came, on the connection and, while it is open, on the stream.
    async fn credit(&mut self, frame: &Frame, stream_too: bool) {
        let size = frame.payload.len() as u32;
        if size > 0 {
            let mut bytes = credit(0, size);
            if stream_too && frame.flags & END_STREAM == 0 {
                bytes.extend(credit(frame.stream, size));
            }
            self.peer.send(bytes).await;
        }
    }
}

/// Who asks on an HTTP/2 connection: a visitor, or a gateway on a tunnel.
#[derive(Debug)]
pub(super) struct Asker {
    end: End,
    /// What a stream's response may be before there is more credit.
    window: usize,
    next: u32,
}

impl Asker {
    pub(super) async fn new(io: DuplexStream, window: u32) -> Self {
        let peer = Peer::asking(io, &[(INITIAL_WINDOW_SIZE, window)]).await;
        Self { end: End { peer, books: Books::new() }, window: window as usize, next: 1 }
    }

    /// How many exchanges there were.
    pub(super) fn count(&self) -> u32 {
        self.next / 2
    }

    pub(super) fn books(&self) -> &Books {
        &self.end.books
    }

    /// One exchange, up to its point. Whether it came to its end on both sides.
    pub(super) async fn exchange(&mut self, plan: &Plan, dice: &mut Dice) -> bool {
        let stream = self.next;
        self.next += 2;
        let end = if plan.upload == 0 { END_STREAM } else { 0 };
        self.end.peer.send(headers(stream, end, &request(plan.method(), &plan.path()))).await;
        if plan.generous {
            // Else with a window of a byte it would be a frame for each.
            self.end.peer.send(credit(stream, DEFAULT as u32)).await;
        }
        if plan.upload > 0 {
            self.end.books.begin(stream, plan.upload);
        }
        let whole = timeout(DEADLINE, self.follow(stream, plan)).await;
        let whole = whole.unwrap_or_else(|_| panic!("stuck at {stream}: {plan:?}, {self:?}"));
        for _ in 0..dice.below(4) {
            // So that what happens next meets it in various states.
            yield_now().await;
        }
        self.end.books.stop(stream);
        whole
    }

    async fn follow(&mut self, stream: u32, plan: &Plan) -> bool {
        let (mut head, mut took) = (0, 0);
        loop {
            let sent = plan.upload - self.end.books.left(stream);
            let still = sent == plan.upload || self.end.books.is_shut(stream);
            let waits = plan.when == When::Never && still;
            let shut = !plan.generous && took == self.window;
            if head + took + sent >= plan.point || waits || shut {
                return false;
            }
            let Some(frame) = self.end.turn().await else { continue };
            let ours = frame.stream == stream;
            match frame.kind {
                DATA => {
                    took += if ours { frame.payload.len() } else { 0 };
                    self.end.credit(&frame, ours && plan.generous).await;
                }
                HEADERS if ours => head = 1,
                _ => {}
            }
            if ours && frame.kind == RST_STREAM {
                // An upload that nobody needs once it is answered.
                assert!(plan.upload > 0 && took == plan.download, "{took} bytes: {plan:?}");
                return false;
            }
            if ours && frame.is_end() {
                assert_eq!(took, plan.download, "{plan:?}");
                return self.end.books.left(stream) == 0;
            }
        }
    }

    /// Takes the last request back, whatever became of it.
    pub(super) async fn reset(&mut self) {
        self.end.peer.send(reset(self.next - 2, 8)).await;
    }

    /// Sends PING, and takes all that comes before the answer.
    pub(super) async fn settle(&mut self) {
        settle(&mut self.end).await;
    }

    /// Asks for more than the connection's window, and gives no credit until that is used up to the last
    /// byte: so much comes, and no more.
    pub(super) async fn spend(&mut self) {
        self.settle().await;
        let stream = self.next;
        self.next += 2;
        self.end.peer.send(headers(stream, END_STREAM, &get(&Plan::whole(0, MORE).path()))).await;
        self.end.peer.send(credit(stream, MORE as u32)).await;
        let mut took = 0;
        while took < DEFAULT as usize {
            took += soon("the window's last byte", self.taken(stream)).await.unwrap_or(0);
        }
        self.end.peer.send(frame(PING, 0, 0, b"settled?")).await;
        while let Some(more) = soon("a PONG", self.taken(stream)).await {
            assert_eq!(more, 0, "more than was granted");
        }
        self.end.peer.send(credit(0, MORE as u32)).await;
        while took < MORE {
            took += soon("the rest", self.taken(stream)).await.unwrap_or(0);
        }
    }

    /// Bytes that the next frame has for `stream`; `None` if it is a PONG.
    async fn taken(&mut self, stream: u32) -> Option<usize> {
        let Some(frame) = self.end.turn().await else { return Some(0) };
        let ours = frame.kind == DATA && frame.stream == stream;
        (frame.kind != PING || frame.flags & ACK == 0).then_some(if ours {
            frame.payload.len()
        } else {
            0
        })
    }
}

async fn settle(end: &mut End) {
    end.peer.send(frame(PING, 0, 0, b"settled?")).await;
    loop {
        match soon("a PONG", end.turn()).await {
            Some(frame) if frame.kind == PING && frame.flags & ACK != 0 => return,
            Some(frame) if frame.kind == DATA => end.credit(&frame, false).await,
            _ => {}
        }
    }
}

/// A backend that does what [`Plan::path`] says.
#[derive(Debug)]
pub(super) struct Answerer {
    end: End,
    after: HashMap<u32, usize>,
}

impl Answerer {
    pub(super) async fn new(io: DuplexStream, streams: u32) -> Self {
        let peer = Peer::answering(io, &[(MAX_CONCURRENT_STREAMS, streams)]).await;
        Self { end: End { peer, books: Books::new() }, after: HashMap::new() }
    }

    pub(super) fn books(&self) -> &Books {
        &self.end.books
    }

    /// Sends PING, and takes all that comes before the answer.
    pub(super) async fn settle(&mut self) {
        settle(&mut self.end).await;
    }

    /// Answers until the future is dropped, which may be while nothing is asked.
    pub(super) async fn serve(&mut self) {
        loop {
            self.answer().await;
        }
    }

    async fn answer(&mut self) {
        let Some(frame) = self.end.turn().await else { return };
        let ended = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS => match Plan::parse(&frame.field(":path")) {
                (When::AtOnce, size) => self.respond(frame.stream, size).await,
                (When::After, size) if ended => self.respond(frame.stream, size).await,
                (When::After, size) => _ = self.after.insert(frame.stream, size),
                (When::Never, _) => {}
            },
            DATA => {
                self.end.credit(&frame, true).await;
                if ended && let Some(size) = self.after.remove(&frame.stream) {
                    self.respond(frame.stream, size).await;
                }
            }
            RST_STREAM => _ = self.after.remove(&frame.stream),
            _ => {}
        }
    }

    async fn respond(&mut self, stream: u32, size: usize) {
        let length = size.to_string();
        // With and without a length: HTTP/1.1 visitors get chunks, too.
        let fields = [(":status", "200"), ("content-length", length.as_str())];
        let fields = &fields[..1 + size % 2];
        let end = if size == 0 { END_STREAM } else { 0 };
        self.end.peer.send(headers(stream, end, fields)).await;
        if size > 0 {
            self.end.books.begin(stream, size);
        }
    }
}

/// RFC 9113 §6.9.2
pub(super) const DEFAULT: i64 = 65_535;
/// More than that.
const MORE: usize = 100_000;
static FRAME: [u8; 16_384] = [7; 16_384];
