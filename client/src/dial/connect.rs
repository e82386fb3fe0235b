//! The door over HTTP/2: extended CONNECT (RFC 8441), and the tunnel inside that one stream.

use std::fmt;
use std::io;

use bytes::Bytes;
use h2::{Ping, Reason, client};
use http::Request;
use ptth_link::nested::Nested;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::{Answer, Stream};

/// Asks. Cancel safe: the connection is closed.
pub(super) async fn ask<T>(io: T, request: Request<()>) -> Result<Answer, ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Not transposed: on the outer connection this side asks, once.
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEAD)
        .enable_push(false)
        // Small frames are the tunnel's business, and what the library keeps is read at once.
        .data_frame_budget(usize::MAX);
    let (sender, mut connection) = builder.handshake(io).await?;
    let mut pings = connection.ping_pong().expect("it is taken once, here");
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What goes wrong here shows at the stream.
        let _ = connection.await;
    });
    // SETTINGS are the first that a server sends (RFC 9113 §3.4), so with the PONG they have come.
    pings.ping(Ping::opaque()).await?;
    if !sender.is_extended_connect_protocol_enabled() {
        return Err(ConnectError::Unsupported);
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
        let data: Bytes = data;
        let room = MAX_REASON - body.len();
        body.extend_from_slice(data.get(..room).unwrap_or(&data));
    }
    Ok(Answer { head, stream: None, body })
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The peer's SETTINGS don't allow extended CONNECT.
    Unsupported,
    /// HTTP/2.
    Broken(h2::Error),
}

impl From<h2::Error> for ConnectError {
    fn from(err: h2::Error) -> Self {
        // RFC 9113 §7: so a server says that it wants HTTP/1.1 for this.
        match err.reason() {
            Some(Reason::HTTP_1_1_REQUIRED) => Self::Unsupported,
            _ => Self::Broken(err),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("extended CONNECT isn't spoken there"),
            Self::Broken(err) => write!(f, "{err}"),
        }
    }
}

impl From<ConnectError> for super::DialError {
    fn from(err: ConnectError) -> Self {
        match err {
            ConnectError::Unsupported => Self::NoConnect,
            ConnectError::Broken(err) => Self::Broken(io::Error::other(err)),
        }
    }
}

/// Of the stream and of the outer connection, which has no other: 1 Gbit/s at 130 ms. The windows
/// inside are those that count; this one only mustn't be narrower.
const WINDOW: u32 = 16 * 1024 * 1024;
const MAX_HEAD: u32 = 32 * 1024;
/// Of a page, for its first line.
const MAX_REASON: usize = 1024;
