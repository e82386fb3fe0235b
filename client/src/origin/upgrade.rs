//! WebSocket and any other upgrade: extended CONNECT on the tunnel, `Upgrade` at the origin (RFC 8441 §5).

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use log::trace;
use ptth_link::body::Body;
use ptth_link::websocket::{self, WEBSOCKET};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use crate::serve::Onward;

use super::leg::{Answer, Legs, Upload};
use super::{Kind, OriginBody, OriginError};

/// Asks the origin to upgrade. A refusal comes back with its status, fields and body.
pub(super) async fn ask(
    legs: &Legs,
    request: Request<Upload>,
    protocol: &str,
) -> Result<Response<OriginBody>, OriginError> {
    let (mut head, outgoing) = request.into_parts();
    head.method = Method::GET;
    let token = HeaderValue::from_str(protocol).map_err(|_| OriginError::Request)?;
    head.headers.insert(UPGRADE, token);
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.remove(CONTENT_LENGTH);
    let key = (protocol == WEBSOCKET).then(websocket::key);
    if let Some(key) = &key {
        let value = HeaderValue::from_str(key).map_err(|_| OriginError::Request)?;
        head.headers.insert(SEC_WEBSOCKET_KEY, value);
        head.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    }
    let answer = legs.ask(Request::from_parts(head, Upload::new(Body::empty()))).await?;
    if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return accepted(answer, outgoing.into_body(), key.as_deref()).await;
    }
    let Answer { response, leg } = answer;
    let mut response = response.map(|body| OriginBody(Kind::Http { body, leg: Some(leg) }));
    if response.status().is_success() {
        // A page instead of an upgrade: as the answer to CONNECT, 200 would mean the opposite.
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    super::frame_once(response.headers_mut());
    Ok(response)
}

async fn accepted(
    answer: Answer,
    outgoing: Body,
    key: Option<&str>,
) -> Result<Response<OriginBody>, OriginError> {
    let Answer { mut response, mut leg } = answer;
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if let Some(key) = key
        && accept != Some(websocket::accept(key.as_bytes()).as_bytes())
    {
        return Err(OriginError::Upgrade("Sec-WebSocket-Accept doesn't fit the key"));
    }
    let mut upgrade = pin!(hyper::upgrade::on(&mut response));
    let upgraded = poll_fn(|cx| {
        leg.poll(cx);
        upgrade.as_mut().poll(cx)
    });
    let upgraded = upgraded.await.map_err(OriginError::Response)?;
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::OK;
    for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
        head.headers.remove(name);
    }
    let (reader, writer) = split(TokioIo::new(upgraded));
    // Each direction ends on its own; what breaks one off, breaks off both.
    head.extensions.insert(Onward::new(async move {
        if let Err(err) = upload(outgoing, writer).await {
            trace!("origin: upgraded connection: {err}");
        }
    }));
    let spliced = Spliced { reader, buffer: BytesMut::new() };
    Ok(Response::from_parts(head, OriginBody(Kind::Upgraded(spliced))))
}

type Socket = TokioIo<Upgraded>;

/// What comes from the origin after an upgrade.
#[derive(Debug)]
pub(super) struct Spliced {
    reader: ReadHalf<Socket>,
    buffer: BytesMut,
}

impl Spliced {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.buffer.reserve(CHUNK);
        let read = ready!(pin!(self.reader.read_buf(&mut self.buffer)).poll(cx))?;
        Poll::Ready((read > 0).then(|| Ok(Frame::data(self.buffer.split().freeze()))))
    }
}

/// Copies what the visitor sends, and closes our half when he closed his.
async fn upload(body: Body, mut socket: WriteHalf<Socket>) -> io::Result<()> {
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            socket.write_all(&data).await?;
            socket.flush().await?;
        }
    }
    socket.shutdown().await
}

const CHUNK: usize = 16 * 1024;
