//! One request on a fresh connection, which may become a byte stream: for a registration, and for CONNECT at a proxy.

use std::io;

use bytes::BytesMut;
use h2::{Ping, Reason, client};
use http::{Method, Request, StatusCode};
use ptth_link::h1::{self, ResponseReader};
use ptth_link::nested::Nested;
use ptth_link::upgrade::upgraded;
use tokio::task::JoinSet;

use super::{Answer, DialError, MAX_HEAD, MAX_REASON, Stream};

/// Over HTTP/1.1. Cancel safe: the connection is closed.
pub(super) async fn h1(mut io: Stream, request: Request<()>) -> io::Result<Answer> {
    let mut input = BytesMut::new();
    let reader = ResponseReader::within(MAX_HEAD, MAX_FIELDS);
    let mut response = h1::ask(&mut io, (&request, &[]), (&mut input, reader)).await?;
    let status = response.parts.status;
    let passes = *request.method() == Method::CONNECT && status.is_success();
    if passes || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok((response.parts, Ok(Box::new(upgraded(io, input)))));
    }
    let body = response.body.beginning(&mut io, &mut input, MAX_REASON).await;
    Ok((response.parts, Err(body)))
}

/// Extended CONNECT over HTTP/2 (RFC 8441), with the tunnel inside that one stream. Cancel safe: the connection is closed.
pub(super) async fn h2(io: Stream, request: Request<()>) -> Result<Answer, DialError> {
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
        return Ok((head, Ok(Box::new(Nested::new(send, recv, driver)))));
    }
    let mut body = Vec::new();
    while body.len() < MAX_REASON
        && let Some(Ok(data)) = recv.data().await
    {
        body.extend_from_slice(&data);
    }
    body.truncate(MAX_REASON);
    Ok((head, Err(body)))
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

/// As many as the gateway takes from a visitor.
const MAX_FIELDS: usize = 100;
/// For the stream and the outer connection: 1 Gbit/s at 130 ms. The windows inside must be the narrower ones.
const WINDOW: u32 = 16 * 1024 * 1024;
