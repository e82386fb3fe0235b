//! WebSocket, and any other upgrade, from an HTTP/1.1 visitor: two byte streams after a 101.
//!
//! On the tunnel it is extended CONNECT (RFC 8441), whose two bodies these streams become.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use log::trace;
use ptth_link::body::write_out;
use ptth_link::upgrade::{WEBSOCKET, accept};
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf, split};
use tokio::sync::oneshot;

use crate::exchange::{Exchange, Upgrade};

use super::Answer;

type Socket = TokioIo<Upgraded>;

/// The wish, taken off the head before hygiene removes its fields.
pub(super) struct Wish {
    token: HeaderValue,
    key: Option<HeaderValue>,
}

impl Wish {
    /// Takes the wish of a head that asks for an upgrade, and marks the head to cross as one. `None` for
    /// one that can't cross: extended CONNECT stands for GET, and would lose any other method.
    pub(super) fn take(head: &mut Parts) -> Option<Self> {
        if head.method != Method::GET {
            return None;
        }
        let token = head.headers.get(UPGRADE)?.clone();
        // The first protocol of the list that isn't h2c, which would be HTTP again.
        let mut names = token.to_str().ok()?.split(',').map(str::trim);
        let name =
            names.find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("h2c"))?.to_owned();
        let websocket = name.eq_ignore_ascii_case(WEBSOCKET);
        let protocol = if websocket { WEBSOCKET } else { name.as_str() };
        let key = head.headers.get(SEC_WEBSOCKET_KEY).cloned();
        if websocket {
            // RFC 8441 §5: HTTP/2 proves nothing by it, so it doesn't cross.
            head.headers.remove(SEC_WEBSOCKET_KEY);
        }
        head.extensions.insert(Upgrade(Protocol::from(protocol)));
        Some(Self { token: HeaderValue::from_str(&name).ok()?, key: key.filter(|_| websocket) })
    }

    /// Turns the tunnel's 200 into the 101 that the visitor waits for.
    pub(super) fn grant<B>(&self, response: &mut Response<B>, exchange: &mut Exchange) {
        exchange.be_patient();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = response.headers_mut();
        fields.remove(CONTENT_LENGTH);
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, self.token.clone());
        if let Some(key) = &self.key
            && let Ok(accept) = HeaderValue::from_str(&accept(key.as_bytes()))
        {
            fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
}

/// Moves the bytes of an upgraded connection that hyper had.
pub(super) async fn carry(
    exchange: Exchange,
    body: Answer,
    writer: oneshot::Receiver<WriteHalf<Socket>>,
) {
    let downloading = async {
        match writer.await {
            Ok(mut writer) => write_out(body, &mut writer).await,
            Err(_) => Ok(()),
        }
    };
    let (_, result) = tokio::join!(exchange, downloading);
    if let Err(err) = result {
        trace!("visitor: upgraded connection ended: {err}");
    }
}

/// What the visitor sends after the upgrade, as a request's body; and the way to write to it.
pub(super) fn streams(upgraded: OnUpgrade) -> (Upgrading, oneshot::Receiver<WriteHalf<Socket>>) {
    let (writer, receiver) = oneshot::channel();
    let buffer = BytesMut::new();
    (Upgrading { upgraded, writer: Some(writer), reader: None, buffer }, receiver)
}

/// A body that begins with the upgrade, and is empty if there is none.
pub(super) struct Upgrading {
    upgraded: OnUpgrade,
    /// `None` from the upgrade on.
    writer: Option<oneshot::Sender<WriteHalf<Socket>>>,
    reader: Option<ReadHalf<Socket>>,
    buffer: BytesMut,
}

impl Body for Upgrading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.writer.is_some() {
            let upgraded = ready!(Pin::new(&mut this.upgraded).poll(cx));
            if let (Ok(socket), Some(writer)) = (upgraded, this.writer.take()) {
                let (read, write) = split(TokioIo::new(socket));
                let _ = writer.send(write);
                this.reader = Some(read);
            }
        }
        let Some(reader) = &mut this.reader else { return Poll::Ready(None) };
        this.buffer.reserve(CHUNK);
        if ready!(pin!(reader.read_buf(&mut this.buffer)).poll(cx))? == 0 {
            this.reader = None;
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))))
    }
}

const CHUNK: usize = 16 * 1024;
