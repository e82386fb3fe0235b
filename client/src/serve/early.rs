//! 1xx responses, which a service sends before its final response.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response, StatusCode};
use ptth_link::headers;
use ptth_link::limits::INFORMATIONAL_RESPONSES;
use ptth_link::lock::Mutex;

use crate::watch::{Event, Hears};

/// Sends 1xx responses to the visitor; found among a request's extensions.
// Weak: a service that keeps it for longer than the exchange must not keep the stream.
#[derive(Clone, Debug)]
pub struct Early(pub(super) Weak<Mutex<Ahead>>);

/// A stream before its final response.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Taken for the final response.
    pub(super) respond: Option<SendResponse<Bytes>>,
    pub(super) sent: usize,
    pub(super) hears: Option<Arc<dyn Hears>>,
}

impl Early {
    /// Sends a 1xx response ahead of the final one. Ignored once that has begun, and beyond the first ten.
    pub fn send(&self, status: StatusCode, fields: &HeaderMap) {
        let Some(ahead) = self.0.upgrade() else { return };
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        headers::response(response.headers_mut());
        let Ahead { respond, sent, hears } = &mut *ahead.lock();
        *sent += 1;
        if let Some(hears) = hears {
            hears.hear(Event::Informational(status, response.headers()));
        }
        // HEADERS have no flow control: an endless series of them would fill the memory.
        if let Some(respond) = respond.as_mut().filter(|_| *sent <= INFORMATIONAL_RESPONSES) {
            let _ = respond.send_informational(response);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::Request;
    use tokio::io::duplex;
    use tokio::task::JoinSet;

    use super::*;

    /// Each leaves at once, as where a service sends from a task of its own.
    #[tokio::test]
    async fn ten_go_ahead_and_the_rest_is_dropped() {
        let (near, far) = duplex(4096);
        let (client, server) =
            tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
        let ((mut sender, connection), mut server) = (client.unwrap(), server.unwrap());
        let mut driving = JoinSet::new();
        driving.spawn(async move { drop(connection.await) });
        let request = Request::get("https://a.test/").body(()).unwrap();
        let (mut response, _) = sender.send_request(request, true).unwrap();
        let (_, respond) = server.accept().await.unwrap().unwrap();
        driving.spawn(async move { while server.accept().await.is_some() {} });
        let ahead = Arc::new(Mutex::new(Ahead { respond: Some(respond), sent: 0, hears: None }));
        let early = Early(Arc::downgrade(&ahead));
        for n in 1..=INFORMATIONAL_RESPONSES + 1 {
            early.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
            if n <= INFORMATIONAL_RESPONSES {
                let came = poll_fn(|cx| response.poll_informational(cx)).await;
                assert_eq!(came.unwrap().unwrap().status(), StatusCode::EARLY_HINTS);
            }
        }
        let mut respond = ahead.lock().respond.take().unwrap();
        early.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        respond.send_response(Response::new(()), true).unwrap();
        assert!(poll_fn(|cx| response.poll_informational(cx)).await.is_none());
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_way_that_is_kept_keeps_no_stream() {
        let ahead = Arc::new(Mutex::new(Ahead { respond: None, sent: 0, hears: None }));
        let early = Early(Arc::downgrade(&ahead));
        drop(ahead);
        early.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        assert!(early.0.upgrade().is_none());
    }
}
