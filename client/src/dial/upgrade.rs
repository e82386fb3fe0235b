//! One request over HTTP/1.1 on a fresh connection, which the answer may turn into a byte stream.
//!
//! By hyper's client: for the gateway's door, and for CONNECT at a proxy.

use std::pin::pin;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;

use super::{Answer, Stream};

/// Asks. Cancel safe: the connection is closed.
pub(super) async fn ask<T>(io: T, request: Request<Empty<Bytes>>) -> Result<Answer, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connect = request.method() == Method::CONNECT;
    let (mut sender, connection) = Builder::new()
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(io))
        .await?;
    let mut driving = pin!(connection.with_upgrades());
    let mut driven = false;
    let exchange = async {
        let mut response = sender.send_request(request).await?;
        let opened = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || connect && response.status().is_success();
        if opened {
            let stream = TokioIo::new(hyper::upgrade::on(&mut response).await?);
            let (head, _) = response.into_parts();
            return Ok(Answer { head, stream: Some(Box::new(stream) as Stream), body: Vec::new() });
        }
        let (head, body) = response.into_parts();
        Ok(Answer { head, stream: None, body: beginning(body).await })
    };
    let mut exchange = pin!(exchange);
    loop {
        select! {
            biased;
            answer = &mut exchange => return answer,
            // Its error is the exchange's, too.
            _ = &mut driving, if !driven => driven = true,
        }
    }
}

/// The first bytes of a page, as far as they come.
async fn beginning(body: impl Body<Data = Bytes>) -> Vec<u8> {
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while bytes.len() < MAX_REASON
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            let room = MAX_REASON - bytes.len();
            bytes.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }
    bytes
}

/// As many as the gateway takes from a visitor.
const MAX_FIELDS: usize = 100;
/// Of the answer: enough for many cookies of a front.
const MAX_HEAD: usize = 32 * 1024;
/// Of a page, for its first line.
const MAX_REASON: usize = 1024;
