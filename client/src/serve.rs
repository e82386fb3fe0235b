//! The transposed HTTP/2 server: answers what the gateway asks on one tunnel.
//!
//! In:  a TLS connection that this side dialled. Out: one call of the service for each stream.
//!
//! Invariant: a response that breaks off is reset, never ended, so that it never looks complete.

mod early;
mod ended;
mod own;
mod reply;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use log::warn;
use ptth_link::body::{Body, Inflow, split};
use ptth_link::budget::Budget;
use ptth_link::explain::{Explain, Opening, What};
use ptth_link::h2::pulse::Pulse;
use ptth_link::h2::window::Window;
use ptth_link::h2::{self as engine, Load};
use ptth_link::limits::{BODY_BUDGET, TUNNEL_STREAMS};
use ptth_link::lock::Mutex;
use ptth_link::shutdown::{Phase, Shutdown};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tower_service::Service;

use crate::announced::{Announced, announcement};
use crate::journal::{Exchange, Journal};
use crate::tls;
use crate::watch::{Side, tap};

use early::Ahead;
pub use early::Early;
pub use ended::Ended;
use ended::ended;
pub use own::Own;

pub use reply::Onward;
use reply::reply;

#[derive(Clone, Debug)]
pub struct Answering {
    pub journal: Journal,
    pub announced: Announced,
    pub budget: Arc<Budget>,
    /// The gateway's certificate, where requests for hosts that it doesn't cover are refused.
    pub covers: Option<Arc<CertificateDer<'static>>>,
    /// The gateway is one of ours: it keeps to a lower window once it has acknowledged it.
    pub ours: bool,
    pub streams: u32,
    pub pulse: Arc<Pulse>,
    pub explain: Explain,
    /// How the tunnel came to be, for [`Self::explain`].
    pub opening: Option<Opening>,
}

impl Answering {
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            announced: Announced::default(),
            budget: Budget::new(BODY_BUDGET),
            covers: None,
            ours: false,
            streams: TUNNEL_STREAMS,
            pulse: Arc::default(),
            explain: Explain::default(),
            opening: None,
        }
    }
}

/// Any service that can answer the requests of tunnels.
pub trait Answers:
    Service<Request<Body>, Response = Response<Self::Body>, Error: Display + Send, Future: Send>
    + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type Body: HttpBody<Data = Bytes, Error: Display + Send> + Send + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Body>, Response = Response<B>, Error: Display + Send, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Display + Send> + Send + 'static,
{
    type Body = B;
}

/// Answers on `io` with `service` until the connection ends, or until the exchanges that run when `drain` asks are
/// finished. `up` is told when the gateway has begun to ask. Dropping the future cuts the tunnel.
pub async fn answer(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: impl Answers,
    mut answering: Answering,
    mut drain: Shutdown,
    up: oneshot::Sender<()>,
) -> Ended {
    answering.budget = answering.budget.part();
    let window = Window::tunnel(answering.budget.clone(), answering.ours);
    let opening = answering.opening.take();
    let tap = opening.and_then(|opening| answering.explain.tap(What::Tunnel, || opening));
    // Transposed roles: this side dialled, and is HTTP/2's server.
    let engine = engine::Answering::answering(io, tap, window, answering.streams);
    let mut engine = match timeout(PREFACE, engine).await {
        Ok(Ok(engine)) => engine,
        Ok(Err(err)) => return ended(err),
        Err(_) => return engine::Ended::Dead.into(),
    };
    engine.pulse = Some(answering.pulse.clone());
    let _ = up.send(());
    let mut streams = JoinSet::new();
    let (mut draining, mut broken) = (false, None::<(engine::Ended, Pin<Box<Sleep>>)>);
    let mut drained = pin!(drain.reached(Phase::Draining));
    // One reference an exchange: counts of the process's parts would move between the cores with each.
    let answering = Arc::new(answering);
    // All in one poll: requests that came together are accepted together, and flushed once.
    poll_fn(move |cx| {
        while let Poll::Ready(Some(done)) = streams.poll_join_next(cx) {
            if done.is_err_and(|err| err.is_panic()) {
                warn!("tunnel: a stream's task panicked");
            }
        }
        if !draining && drained.as_mut().poll(cx).is_ready() {
            draining = true;
            engine.connection.graceful_shutdown();
        }
        let load = Load { streams: streams.len(), ..Load::default() };
        let polled = engine.poll(cx, load, |request, respond| {
            answering.pulse.opened.fetch_add(1, Ordering::Relaxed);
            // Boxed, since tokio would move it four times: a seventh of an exchange's instructions.
            streams.spawn(Box::pin(exchange(service.clone(), answering.clone(), request, respond)));
        });
        match polled {
            // A gateway that refuses a backend may close while this side writes: its GOAWAY is still to be read.
            Poll::Ready(err @ engine::Ended::Socket(_)) => {
                let (_, until) = broken.get_or_insert_with(|| (err, Box::pin(sleep(LAST_WORDS))));
                ready!(until.as_mut().poll(cx));
                broken.take().map_or(Poll::Pending, |(err, _)| Poll::Ready(err.into()))
            }
            polled => polled.map(ended),
        }
    })
    .await
}

/// One stream, from its head to its end.
async fn exchange(
    mut service: impl Answers,
    answering: Arc<Answering>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if let Some(news) = announcement(&request) {
        // It is the gateway's own request, not a visitor's.
        answering.announced.told(news);
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return drop(respond.send_response(response, true));
    }
    let mut line = Exchange::new(&request);
    let (mut head, stream) = request.into_parts();
    let (mut inflow, body) = split(stream, &answering.budget);
    let journal = &answering.journal;
    let covers = |certificate: &Arc<CertificateDer<'_>>| {
        head.uri.authority().is_some_and(|it| tls::covers(certificate, it.as_str()))
    };
    if !answering.covers.as_ref().is_none_or(covers) {
        return Own::misdirected().tell(respond, &line, journal);
    }
    line.hears = journal.begin(&head);
    let hears = line.hears.clone();
    let body = body.with_tap(hears.as_ref().map(|hears| tap(hears, Side::Request)));
    let ahead = Arc::new(Mutex::new(Ahead { respond: Some(respond), sent: 0, hears }));
    head.extensions.insert(Early(Arc::downgrade(&ahead)));
    let calling = async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(Request::from_parts(head, body)).await
    };
    let answer = wait(calling, &mut inflow, &ahead).await;
    let Some((answer, mut respond)) = answer.zip(ahead.lock().respond.take()) else {
        return line.unanswered(journal, None);
    };
    let own = match answer {
        Ok(mut response) => match response.extensions_mut().remove::<Own>() {
            Some(own) => own,
            None if (200..600).contains(&response.status().as_u16()) => {
                let (status, head, mut body) = (response.status(), line.waited(), Duration::ZERO);
                let sent = reply(&mut respond, response, &mut inflow, (&mut body, &line)).await;
                return line.ended(journal, status, sent, [head, body]);
            }
            // Not final (RFC 9110 §15): h2 ends the connection of a server that ends a stream with 1xx.
            None => Own::failed(format!("the service answered with {}", response.status())),
        },
        Err(err) => Own::failed(err.to_string()),
    };
    own.tell(respond, &line, journal);
}

/// Waits for the service, and moves the request's body meanwhile. `None` if the gateway resets the stream.
async fn wait<T>(
    calling: impl Future<Output = T>,
    inflow: &mut Inflow,
    ahead: &Mutex<Ahead>,
) -> Option<T> {
    let mut calling = pin!(calling);
    poll_fn(|cx| {
        let _ = Pin::new(&mut *inflow).poll(cx);
        let answer = calling.as_mut().poll(cx).map(Some);
        let is_reset = |respond: &mut SendResponse<Bytes>| respond.poll_reset(cx).is_ready();
        if answer.is_pending() && ahead.lock().respond.as_mut().is_some_and(is_reset) {
            return Poll::Ready(None);
        }
        answer
    })
    .await
}

/// From the TLS handshake to the gateway's preface.
const PREFACE: Duration = Duration::from_secs(10);
/// The gateway's last frames have arrived when its socket closes, or come with the next packet.
const LAST_WORDS: Duration = Duration::from_secs(1);
