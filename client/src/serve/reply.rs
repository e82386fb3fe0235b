//! Sends one response: head, body, trailers, and the rest of an upgraded connection.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use http_body::Body as HttpBody;
use ptth_link::body::{Inflow, Timed};
use ptth_link::failure::Party;
use ptth_link::headers;
use ptth_link::lock::Mutex;
use ptth_link::pump::{Pump, PumpError};
use tokio::task::JoinSet;

use crate::journal::{Broken, Exchange};
use crate::watch::{Event, Side, tap};

/// The other direction of an upgraded connection, which may outlast the response. A service puts it among the
/// response's extensions; without it the request ends with the response.
#[derive(Clone, Debug)]
pub struct Onward(Arc<Mutex<JoinSet<()>>>);

impl Onward {
    /// `work` reads the request's body, and ends with it. It is aborted when the response breaks off.
    pub fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(work);
        Self(Arc::new(Mutex::new(tasks)))
    }

    /// Waits for the work, and moves the request's body meanwhile, unless the gateway resets it.
    async fn finish(self, inflow: &mut Inflow) {
        poll_fn(|cx| {
            let received = Pin::new(&mut *inflow).poll(cx).is_ready();
            if received && !inflow.is_complete() {
                return Poll::Ready(());
            }
            let mut tasks = self.0.lock();
            while ready!(tasks.poll_join_next(cx)).is_some() {}
            Poll::Ready(())
        })
        .await;
    }
}

/// Sends the response. Then the rest of the request is dropped (h2 sends RST_STREAM(NO_ERROR), RFC 9113 §8.1), unless
/// the response has an [`Onward`]. `waited` becomes the time that the service took for the body.
pub(super) async fn reply(
    respond: &mut SendResponse<Bytes>,
    response: Response<impl HttpBody<Data = Bytes>>,
    inflow: &mut Inflow,
    (waited, line): (&mut Duration, &Exchange),
) -> Result<u64, &'static Broken> {
    let (mut parts, body) = response.into_parts();
    headers::response(&mut parts.headers);
    line.hear(Event::Head(&parts));
    let onward = parts.extensions.remove::<Onward>();
    let end = body.is_end_stream();
    let head = Response::from_parts(parts, ());
    let stream = respond
        .send_response(head, end)
        .map_err(|_| &Broken { party: Party::Visitor, why: "the gateway took it back" })?;
    if end {
        return Ok(0);
    }
    let body = pin!(body);
    let tapped = line.hears.as_ref().map(|hears| tap(hears, Side::Response));
    // No timeout here: the gateway resets stalled streams, and keepalive notices a gateway that is gone.
    let mut pump = Pump::new(Timed::new(body).with_tap(tapped), stream, None);
    let pumped = poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        pump.poll(cx, inflow.taken())
    })
    .await;
    *waited = pump.body().waited();
    pumped.map_err(|err| match err {
        PumpError::Body(_) => &Broken { party: Party::Origin, why: "the origin broke off" },
        PumpError::Receiver(_) => &Broken { party: Party::Visitor, why: "the visitor left" },
        PumpError::Stalled => &Broken { party: Party::Visitor, why: "the visitor stopped reading" },
    })?;
    let bytes = pump.body().moved();
    if let Some(onward) = onward {
        onward.finish(inflow).await;
    }
    Ok(bytes)
}
