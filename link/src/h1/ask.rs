//! One request with a body that is there, and its response, on a connection that has no other.

use std::io;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::outgoing::{Framing, write_request};
use super::response::{Response, ResponseReader};
use super::{Decoder, Part, bad};
use crate::limits::INFORMATIONAL_RESPONSES;

/// Sends the request, and reads the head of the final response; bytes behind it stay in `input`. A Content-Length
/// among the fields becomes the body's; a body that isn't empty has one anyway. Cancel safe if the connection is closed
/// then.
pub async fn ask(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    (request, body): (&Request<()>, &[u8]),
    (input, mut reader): (&mut BytesMut, ResponseReader),
) -> io::Result<Response> {
    let (method, fields, uri) = (request.method(), request.headers(), request.uri());
    let target = match method {
        // RFC 9112 §3.2.3: it is the authority alone.
        &Method::CONNECT => uri.authority().map_or("", |authority| authority.as_str()),
        _ => uri.path_and_query().map_or("/", PathAndQuery::as_str),
    };
    let framing = match fields.contains_key(CONTENT_LENGTH) || !body.is_empty() {
        true => Framing::Length(body.len() as u64),
        false => Framing::None,
    };
    let unnamed = HeaderValue::from_static("");
    let host = fields.get(HOST).unwrap_or(&unnamed);
    let head = write_request(method, target, host, fields, framing);
    // Its error counts only without a response: the peer may have refused before it had read all.
    let written = async {
        io.write_all(&head).await?;
        io.write_all(body).await?;
        io.flush().await
    }
    .await;
    let mut informational = 0;
    loop {
        let Some(response) = reader.read(input, method)? else {
            input.reserve(READ);
            if io.read_buf(input).await? == 0 {
                return Err(written.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()));
            }
            continue;
        };
        let status = response.parts.status;
        if !status.is_informational() || status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        informational += 1;
        if informational > INFORMATIONAL_RESPONSES {
            return Err(bad("one 1xx after the other").into());
        }
    }
}

impl Decoder {
    /// The first bytes of the body, at most `most`, as far as they come.
    pub async fn beginning(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        input: &mut BytesMut,
        most: usize,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < most {
            match self.next(input) {
                Ok(Some(Part::Data(data))) => bytes.extend_from_slice(&data),
                Ok(None) if !self.is_done() => {
                    input.reserve(READ);
                    if !matches!(io.read_buf(input).await, Ok(1..)) {
                        break;
                    }
                }
                Ok(_) | Err(_) => break,
            }
        }
        bytes.truncate(most);
        bytes
    }

    /// The whole body, which may have `most` bytes.
    pub async fn whole(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        input: &mut BytesMut,
        most: usize,
    ) -> io::Result<Vec<u8>> {
        let bytes = self.beginning(io, input, most + 1).await;
        match (bytes.len() > most, self.end()) {
            (true, _) => Err(bad("a body is too long").into()),
            (false, false) => Err(io::ErrorKind::UnexpectedEof.into()),
            (false, true) => Ok(bytes),
        }
    }
}

/// Most heads are shorter.
const READ: usize = 4 * 1024;
