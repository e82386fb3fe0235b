//! One request over HTTP/1.1 on a fresh connection, which may become a byte stream: for a registration, and for
//! CONNECT at a proxy.

use std::io;

use bytes::BytesMut;
use http::{Method, Request, StatusCode};
use ptth_link::h1::{self, ResponseReader};
use ptth_link::upgrade::upgraded;

use super::{Answer, MAX_HEAD, MAX_REASON, Stream};

/// Cancel safe: the connection is closed.
pub(super) async fn ask(mut io: Stream, request: Request<()>) -> io::Result<Answer> {
    let mut input = BytesMut::new();
    let reader = ResponseReader::within(MAX_HEAD, MAX_FIELDS);
    let mut response = h1::ask(&mut io, &request, (&mut input, reader)).await?;
    let status = response.parts.status;
    let passes = *request.method() == Method::CONNECT && status.is_success();
    if passes || status == StatusCode::SWITCHING_PROTOCOLS {
        let stream: Stream = Box::new(upgraded(io, input));
        return Ok(Answer { head: response.parts, stream: Some(stream), body: Vec::new() });
    }
    let body = response.beginning(&mut io, &mut input, MAX_REASON).await;
    Ok(Answer { head: response.parts, stream: None, body })
}

/// As many as the gateway takes from a visitor.
const MAX_FIELDS: usize = 100;
