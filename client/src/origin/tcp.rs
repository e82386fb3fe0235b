//! A service that speaks no HTTP: a stream of CONNECT becomes one TCP connection.
//!
//! Invariant: whatever target a visitor names, the address is the one of the command line.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Response};
use http_body::{Body as HttpBody, Frame};
use log::trace;
use ptth_link::alpn::CONNECT_TCP;
use ptth_link::body::{Body, write_out};
use ptth_link::tcp::tune;
use ptth_link::upgrade::WEBSOCKET;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::serve::Onward;

use super::capsule::{self, Capsules, DATA, FINAL_DATA, HEAD};
use super::{OriginBody, OriginError, connections};

/// Connects to the service and joins the two directions, which end independently.
pub(super) async fn answer(
    host: &str,
    port: u16,
    request: Request<Body>,
) -> Result<Response<OriginBody>, OriginError> {
    if request.method() != Method::CONNECT {
        return Err(OriginError::NotHttp);
    }
    let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
    let is = |token| protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(token));
    if is(WEBSOCKET) {
        return Err(OriginError::NoWebSocket);
    }
    // RFC 9297 §3.4. Without the field, it is the draft's first versions, which have no capsules.
    let framed = is(CONNECT_TCP)
        && request.headers().get(&CAPSULE_PROTOCOL).is_some_and(|value| value == "?1");
    let socket = connect(host, port).await.map_err(OriginError::Connect)?;
    let (reader, writer) = socket.into_split();
    let body = request.into_body();
    let (cut, was_cut) = oneshot::channel();
    let upload = async move {
        let mut writer = Writer { half: Some(writer), cut: Some(cut) };
        let done = match &mut writer.half {
            Some(half) if !framed => write_out(body, half).await,
            half => unwrap(body, half).await,
        };
        if done.is_ok() {
            writer.half = None;
        }
        if let Err(err) = done {
            trace!("origin: TCP connection: {err}");
        }
    };
    let (was_cut, buffer) = (Some(was_cut), BytesMut::new());
    let download = Download { reader, was_cut, buffer, framed, ended: false };
    let mut response = Response::new(OriginBody::Raw(download));
    response.extensions_mut().insert(Onward::new(upload));
    if framed {
        response.headers_mut().insert(CAPSULE_PROTOCOL, HeaderValue::from_static("?1"));
    }
    Ok(response)
}

pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let socket =
        timeout(connections::CONNECT, connections::tcp(host, port, connections::MANY)).await??;
    // The connection may be silent for days; a service that vanished must be noticed.
    tune(&socket, UNACKNOWLEDGED)?;
    Ok(socket)
}

/// The half that writes to the service. Dropped before its end, it resets the connection: what was cut
/// mustn't look complete.
struct Writer {
    half: Option<OwnedWriteHalf>,
    /// Ends the other direction; the reset waits for both halves to go.
    cut: Option<oneshot::Sender<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let (Some(half), Some(cut)) = (self.half.take(), self.cut.take()) {
            let _ = half.as_ref().set_zero_linger();
            half.forget();
            let _ = cut.send(());
        }
    }
}

/// Writes out what a body's capsules hold, which mark the end themselves.
async fn unwrap(body: Body, half: &mut Option<OwnedWriteHalf>) -> io::Result<()> {
    let mut body = pin!(body);
    let mut capsules = Capsules::default();
    let mut taken = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(mut data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        let length = data.len();
        // One write for all capsules of a frame.
        let mut small = Vec::new();
        while let Some(bytes) = capsules.next(&mut data).map_err(io::Error::other)? {
            if small.is_empty() && data.is_empty() {
                half.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(&bytes).await?;
            } else {
                small.extend_from_slice(&bytes);
            }
        }
        if !small.is_empty() {
            half.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(&small).await?;
        }
        if let Some(mut half) = half.take_if(|_| capsules.ended) {
            half.shutdown().await?;
        }
        taken += length;
        if taken >= TURN {
            // The runtime counts writes, and empty capsules cause none.
            taken = 0;
            yield_now().await;
        }
    }
    if capsules.ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The bytes that come from the service.
#[derive(Debug)]
pub struct Download {
    reader: OwnedReadHalf,
    was_cut: Option<oneshot::Receiver<()>>,
    buffer: BytesMut,
    framed: bool,
    ended: bool,
}

impl Download {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(cut) = &mut self.was_cut
            && let Poll::Ready(cut) = pin!(cut).poll(cx)
        {
            self.was_cut = None;
            if cut.is_ok() {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
            }
        }
        if self.framed && self.buffer.is_empty() {
            // Room for the head, which is known after the read.
            self.buffer.extend_from_slice(&[0; HEAD]);
        }
        self.buffer.reserve(CHUNK);
        let read = ready!(pin!(self.reader.read_buf(&mut self.buffer)).poll(cx))?;
        self.ended = read == 0;
        let kind = if self.ended { FINAL_DATA } else { DATA };
        let mut chunk = self.buffer.split();
        if let Some(head) = chunk.first_chunk_mut().filter(|_| self.framed) {
            *head = capsule::head(kind, read);
        }
        Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk.freeze()))))
    }
}

const CAPSULE_PROTOCOL: HeaderName = HeaderName::from_static("capsule-protocol");
const CHUNK: usize = 16 * 1024;
/// Bytes of capsules in one poll, about.
const TURN: usize = 256 * 1024;
/// The service is gone if it acknowledges nothing for this long.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Waker;

    use ptth_link::body::split;
    use ptth_link::budget::Budget;
    use ptth_link::limits::BODY_BUDGET;
    use tokio::io::duplex;
    use tokio::task::JoinSet;

    use super::*;

    /// Empty capsules leave the other tasks of the thread their turn.
    #[tokio::test]
    async fn one_poll_takes_a_bounded_number_of_capsules() {
        let (near, far) = duplex(64 * 1024);
        let mut server = h2::server::Builder::new();
        server.initial_window_size(WHOLE as u32).initial_connection_window_size(WHOLE as u32);
        let (client, server) =
            tokio::join!(h2::client::handshake(near), server.handshake::<_, Bytes>(far));
        let ((mut sender, connection), mut server) = (client.unwrap(), server.unwrap());
        let mut running = JoinSet::new();
        running.spawn(async { connection.await.unwrap() });
        let request = Request::post("https://a.test/").body(()).unwrap();
        let (_response, mut outgoing) = sender.send_request(request, false).unwrap();
        let (incoming, _respond) = server.accept().await.unwrap().unwrap();
        running.spawn(async move { while server.accept().await.is_some() {} });
        // Of an unknown type, without a payload.
        outgoing.send_data(Bytes::from_iter([1, 0].repeat(WHOLE / 2)), true).unwrap();
        let (mut inflow, body) = split(incoming.into_body(), &Budget::new(BODY_BUDGET));
        (&mut inflow).await;
        let mut none = None;
        let mut work = pin!(unwrap(body, &mut none));
        let cx = &mut Context::from_waker(Waker::noop());
        let (mut before, mut polls) = (inflow.moved(), 1);
        while Pin::new(&mut work).poll(cx).is_pending() {
            let taken = inflow.moved() - before;
            assert!(taken <= (TURN + CHUNK) as u64, "{taken}");
            (before, polls) = (inflow.moved(), polls + 1);
        }
        assert!(polls >= WHOLE / (TURN + CHUNK), "{polls}");
    }

    const WHOLE: usize = 2 << 20;
}
