//! WebSocket, and any other upgrade, from an HTTP/1.1 visitor: two byte streams after a 101.
//!
//! On the tunnel it is extended CONNECT (RFC 8441), whose two bodies these streams become.

use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::channel::Sender;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use log::trace;
use ptth_link::body::write_out;
use ptth_link::upgrade::{WEBSOCKET, accept};
use tokio::io::{AsyncReadExt, split};

use crate::exchange::{Exchange, Upgrade};

use super::Answer;

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

/// Moves the bytes of a connection that hyper upgrades: the response's to it, and its own to the request's body by
/// `sender`.
pub(super) async fn carry(
    mut exchange: Exchange,
    body: Answer,
    upgraded: OnUpgrade,
    mut sender: Sender<Bytes, io::Error>,
) {
    let Ok(socket) = upgraded.await else { return };
    let (mut reader, mut writer) = split(TokioIo::new(socket));
    let uploading = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CHUNK);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break drop(sender),
                Ok(_) if sender.send_data(buffer.split().freeze()).await.is_err() => break,
                Ok(_) => {}
                Err(err) => break sender.abort(err),
            }
        }
        pending::<()>().await;
    };
    let moving = async { tokio::join!(&mut exchange, write_out(body, &mut writer)) };
    tokio::select! {
        () = uploading => {}
        ((), result) = moving => match result {
            Ok(()) => exchange.delivered(),
            Err(err) => trace!("visitor: upgraded connection ended: {err}"),
        },
    }
}

const CHUNK: usize = 16 * 1024;
