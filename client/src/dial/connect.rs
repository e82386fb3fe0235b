//! The registration over HTTP/2: extended CONNECT (RFC 8441), and the tunnel inside that one stream.

use std::io;

use h2::{Ping, Reason, client};
use http::Request;
use ptth_link::nested::Nested;
use tokio::task::JoinSet;

use super::{Answer, DialError, MAX_HEAD, MAX_REASON, Stream};

/// Cancel safe: the connection is closed.
pub(super) async fn ask(io: Stream, request: Request<()>) -> Result<Answer, DialError> {
    // On the outer connection the roles aren't transposed: this side sends one request.
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEAD as u32)
        .enable_push(false)
        // The tunnel inside bounds small frames; the library's buffer is read at once.
        .data_frame_budget(usize::MAX);
    let (sender, mut connection) = builder.handshake(io).await?;
    let mut pings = connection.ping_pong().expect("it is taken once, here");
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // The stream reports errors.
        let _ = connection.await;
    });
    // A server sends SETTINGS first (RFC 9113 §3.4), so they precede the PONG.
    pings.ping(Ping::opaque()).await?;
    if !sender.is_extended_connect_protocol_enabled() {
        return Err(DialError::NoConnect);
    }
    let (response, send) = sender.ready().await?.send_request(request, false)?;
    let (head, mut recv) = response.await?.into_parts();
    if head.status.is_success() {
        let stream: Stream = Box::new(Nested::new(send, recv, driver));
        return Ok(Answer { head, stream: Some(stream), body: Vec::new() });
    }
    let mut body = Vec::new();
    while body.len() < MAX_REASON
        && let Some(Ok(data)) = recv.data().await
    {
        body.extend_from_slice(&data);
    }
    body.truncate(MAX_REASON);
    Ok(Answer { head, stream: None, body })
}

impl From<h2::Error> for DialError {
    fn from(err: h2::Error) -> Self {
        // RFC 9113 §7: the server requires HTTP/1.1 for this request.
        match err.reason() {
            Some(Reason::HTTP_1_1_REQUIRED) => Self::NoConnect,
            _ => Self::Broken(io::Error::other(err)),
        }
    }
}

/// For the stream and the outer connection: 1 Gbit/s at 130 ms. The windows inside must be the narrower ones.
const WINDOW: u32 = 16 * 1024 * 1024;
