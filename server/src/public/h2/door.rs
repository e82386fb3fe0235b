//! Door B over HTTP/2: a stream of a visitor's connection that becomes a tunnel.

use std::future::{poll_fn, ready};
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Response;
use http::request::Parts;
use ptth_link::nested::Nested;
use tokio::select;
use tokio::sync::oneshot;

use super::Conduct;
use crate::error::{ExchangeError, RegisterError};
use crate::public::register::admit;
use crate::public::{Account, Visitor, check};

/// Judges the registration, and stays as long as its tunnel lives: the connection carries it.
pub(super) async fn register(
    visitor: Arc<Visitor>,
    mut parts: Parts,
    stream: RecvStream,
    mut respond: SendResponse<Bytes>,
    (account, conduct): (Account, Arc<Conduct>),
) {
    let nesting = conduct.nest();
    let admitted = match check::h2(&mut parts) {
        Err(None) => {
            conduct.malformed();
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        Err(Some(err)) => Err(err),
        Ok(()) if nesting.is_none() => Err(ExchangeError::Register(RegisterError::Full)),
        Ok(()) => select! {
            admitted = admit(&visitor, &parts) => admitted,
            // Taken back: a stream that h2 counts no longer mustn't wait here for an authorizer.
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return conduct.cancelled(),
        },
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(err) => {
            super::refuse(respond, account.failed(&err), false);
            return;
        }
    };
    let mut response = Response::new(());
    admitted.grant(&mut response, false);
    account.answered(response.status());
    let Ok(sender) = respond.send_response(response, false) else { return };
    let (over, is_over) = oneshot::channel::<()>();
    let tunnel = admitted.tunnel(ready(Some(Nested::new(sender, stream, over))), &visitor);
    // It lives to the end of the process, like those of door A.
    if visitor.shard.drive(tunnel) {
        let _ = is_over.await;
    }
}
