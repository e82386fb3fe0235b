//! An origin without a network: what it says is there at once.

use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use http::{HeaderMap, HeaderValue};
use ptth_link::body::Body;
use tokio::io::ReadBuf;

use super::*;

const FLOOD: usize = 8 << 20;

/// Says `head`, then `flood` again and again, `left` bytes in all. Takes `room` bytes of a request.
#[derive(Debug)]
struct Flood {
    head: &'static [u8],
    flood: &'static [u8],
    left: usize,
    room: usize,
    socket: Socket,
}

impl Flood {
    fn new(head: &'static str, flood: &'static str) -> Self {
        let (head, flood) = (head.as_bytes(), flood.as_bytes());
        let (socket, _) = Socket::pair().unwrap();
        Self { head, flood, left: FLOOD, room: usize::MAX, socket }
    }
}

impl Io for Flood {
    fn socket(&self) -> SockRef<'_> {
        (&self.socket).into()
    }
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let said = std::mem::take(&mut self.head);
        buf.put_slice(said);
        let length = buf.remaining().min(self.left);
        let begun = (FLOOD - self.left) % self.flood.len();
        buf.put_slice(&self.flood.repeat(length / self.flood.len() + 2)[begun..begun + length]);
        self.left -= length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = buf.len().min(self.room);
        self.room -= taken;
        Poll::Ready(if taken > 0 { Ok(taken) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn get() -> Sending {
    of(&Method::GET)
}

fn of(method: &Method) -> Sending {
    let host = HeaderValue::from_static("a.test");
    Sending::new(method, "/", &host, &HeaderMap::new(), Body::empty())
}

fn asking(io: Flood, request: Sending) -> Connection {
    Connection::new(Box::new(io), request, 416 * 1024)
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// After ten 1xx responses no more is read.
#[test]
fn a_flood_of_informational_responses_ends_the_exchange() {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut connection = asking(Flood::new("", "HTTP/1.1 103 Early Hints\r\n\r\n"), get());
    let polled = connection.poll_head(cx, &Method::GET, None);
    assert!(matches!(polled, Poll::Ready(Err(OriginError::Malformed(_)))), "{polled:?}");
    assert_eq!(connection.informational, INFORMATIONAL_RESPONSES + 1);
}

/// Whoever reads a flood of small pieces lets the other tasks of its thread have their turn.
#[test]
fn one_poll_takes_a_bounded_part_of_a_body() {
    for (head, flood) in [
        ("transfer-encoding: chunked", "1\r\nx\r\n"),
        ("transfer-encoding: chunked", "1000\r\n"),
        ("connection: close", "x"),
        ("content-length: 100000000", "x"),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").leak();
        let chunk = format!("{flood}{}", "x".repeat(0x1000) + "\r\n").leak();
        let flood = if flood == "1000\r\n" { chunk } else { flood };
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = &mut Context::from_waker(&waker);
        let mut connection = asking(Flood::new(head, flood), get());
        assert!(matches!(connection.poll_head(cx, &Method::GET, None), Poll::Ready(Ok(_))));
        let (mut polls, mut parts, mut bytes) = (0, 0, 0);
        // The flood is cut off in the end.
        loop {
            match connection.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    parts += 1;
                    bytes += frame.into_data().unwrap().len();
                    assert!(bytes <= TURN + 416 * 1024, "{head:?}");
                    assert!(parts <= TURN / PART, "{head:?}");
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    polls += 1;
                    assert_eq!(woken.0.load(Ordering::Relaxed), polls, "it goes on: {head:?}");
                    (parts, bytes) = (0, 0);
                }
            }
        }
        assert!(polls > 4, "{polls} {head:?}");
    }
}

/// RFC 9112 §9.3.1: an origin that went away while the request was written, too.
#[test]
fn a_request_that_was_written_in_part_may_be_sent_again_if_it_is_idempotent() {
    let cx = &mut Context::from_waker(Waker::noop());
    for (method, idempotent) in [(Method::POST, false), (Method::GET, true)] {
        let (request, whole) = (of(&method), of(&method));
        let mut connection = asking(Flood { room: 10, left: 0, ..Flood::new("", "x") }, request);
        let polled = connection.poll_head(cx, &Method::GET, None);
        assert!(matches!(polled, Poll::Ready(Err(OriginError::Broken(_)))), "{polled:?}");
        let again = connection.again().map(|again| format!("{again:?}"));
        assert_eq!(again.is_some(), idempotent);
        if let Some(again) = again {
            let head = |text: &str| text.split("body").next().map(str::to_owned);
            assert_eq!(head(&again), head(&format!("{whole:?}")));
        }
    }
}
