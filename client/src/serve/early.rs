//! 1xx responses, which a service sends before its final response.

use std::sync::Arc;
use std::task::{Context, Waker};

use http::{HeaderMap, Response, StatusCode};
use ptth_link::headers;
use ptth_link::limits::INFORMATIONAL_RESPONSES;
use ptth_link::lock::Mutex;

/// Sends 1xx responses to the visitor; found among a request's extensions.
// Not a tokio channel, which allocates room for 32 values: each exchange has one of these, and few use it.
#[derive(Clone, Debug, Default)]
pub struct Early(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    responses: Vec<Response<()>>,
    taken: usize,
    exchange: Option<Waker>,
}

impl Early {
    /// Sends a 1xx response ahead of the final one. Ignored once that has begun, and beyond the first ten.
    pub fn send(&self, status: StatusCode, fields: &HeaderMap) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        headers::response(response.headers_mut());
        let mut waiting = self.0.lock();
        // HEADERS have no flow control: an endless series of them would fill the memory.
        if waiting.taken < INFORMATIONAL_RESPONSES {
            waiting.taken += 1;
            waiting.responses.push(response);
            if let Some(exchange) = waiting.exchange.take() {
                exchange.wake();
            }
        }
    }

    /// The responses since the last call. Wakes the task of `cx` when there are more.
    pub(super) fn take(&self, cx: &Context<'_>) -> Vec<Response<()>> {
        let mut waiting = self.0.lock();
        if !waiting.exchange.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.exchange = Some(cx.waker().clone());
        }
        std::mem::take(&mut waiting.responses)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn ten_go_ahead_and_the_rest_is_dropped() {
        let early = Early::default();
        let cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        for _ in 0..INFORMATIONAL_RESPONSES {
            early.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
            taken += early.take(&cx).len();
            early.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        }
        assert_eq!(taken + early.take(&cx).len(), INFORMATIONAL_RESPONSES);
    }

    /// As where a service sends from a task of its own.
    #[tokio::test(start_paused = true)]
    async fn what_is_sent_wakes_the_exchange() {
        let early = Early::default();
        let exchange = early.clone();
        let waiting = tokio::spawn(poll_fn(move |cx| {
            let came = exchange.take(cx).len();
            if came == 0 { Poll::Pending } else { Poll::Ready(came) }
        }));
        tokio::task::yield_now().await;
        early.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
        let came = timeout(Duration::from_secs(1), waiting).await;
        assert_eq!(came.expect("it is woken").unwrap(), 1);
    }
}
