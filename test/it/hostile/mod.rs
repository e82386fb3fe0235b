//! Peers that lie, flood, stall, and leave.

mod backend;
mod binary;
mod flood;
mod h1;
mod h2;
mod pieces;
mod proxied;
mod readers;
mod reserve;
mod resets;
mod settings;
mod share;
mod silent;
mod slow;
mod traps;
mod turns;
mod windows;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use ptth_client::Body;
use ptth_test::lab::Function;
use ptth_test::{Answer, Backend, H1, Lab, ServerProcess, connect_to, soon};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, interval_at, sleep, timeout};
use tower_service::Service;

/// What reached a backend: for each request its target, and then how its body ended.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A lab whose backend reads each request to its end and answers "ok": what begins with `/hold` only
/// once `release` says so.
async fn witness() -> (Lab, Seen, watch::Sender<bool>) {
    let seen = Seen::default();
    let (release, held) = watch::channel(false);
    let noting = seen.clone();
    let lab = Lab::serving(Function(move |request: Request<Body>| {
        let (seen, mut held) = (noting.clone(), held.clone());
        async move {
            let target = request.uri().path().to_owned();
            seen.note(target.clone());
            let body = request.into_body().collect().await;
            match body {
                Ok(body) => {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    seen.note(format!("{} whole", body.to_bytes().len()));
                    trailers.keys().for_each(|name| seen.note(format!("trailer {name}")));
                }
                Err(_) => seen.note("broken".to_owned()),
            }
            if target.starts_with("/hold") {
                let _ = held.wait_for(|release| *release).await;
            }
            Response::new(Full::new(Bytes::from_static(b"ok")))
        }
    }))
    .await;
    (lab, seen, release)
}

/// A backend of a gateway in another process, up.
async fn up<S, B>(gateway: &ServerProcess, service: S) -> Backend
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: std::fmt::Display + Send,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display + Send,
{
    let backend = Backend::start(gateway.client_config(), service);
    soon("the tunnel", async {
        let mut visitor = visitor(gateway).await;
        while ask(&mut visitor).await.status == 502 {}
    })
    .await;
    backend
}

async fn visitor(gateway: &ServerProcess) -> H1 {
    H1::over(connect_to(gateway.address, &[b"http/1.1"]).await.expect("TLS"))
}

async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(visitor: &mut H1<IO>) -> Answer {
    visitor.send("GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await;
    visitor.answer().await
}

/// Looks, again and again, until it holds. With a paused clock that takes no time.
async fn until(holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(600), looking).await.expect("stuck");
}

/// A body that pauses before each of its chunks.
#[derive(Debug)]
struct Paused {
    chunk: &'static str,
    left: usize,
    clock: Interval,
}

impl Paused {
    fn every(pause: Duration, chunk: &'static str, count: usize) -> Self {
        Self { chunk, left: count, clock: interval_at(Instant::now() + pause, pause) }
    }
}

impl http_body::Body for Paused {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.clock.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(self.chunk.as_bytes())))))
    }
}
