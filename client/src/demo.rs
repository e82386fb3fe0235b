//! The origin that is built in: something to look at before there is anything to show.
//!
//! GET answers with a line of text, POST with its own body, `/events` counts as server-sent events, and
//! a WebSocket gets back what it sends.

mod echo;

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use ptth_link::body::{Body, BodyError};
use ptth_link::websocket::WEBSOCKET;
use tokio::time::{Interval, interval};
use tower_service::Service;

use echo::Echo;

/// The service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demo;

impl Service<Request<Body>> for Demo {
    type Response = Response<DemoBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(answer(request)))
    }
}

fn answer(request: Request<Body>) -> Response<DemoBody> {
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    let is_websocket = protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET);
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::CONNECT, _) if is_websocket => {
            return Response::new(DemoBody::Echo(Echo::new(request.into_body())));
        }
        (&Method::CONNECT, _) => {
            let mut response = Response::new(DemoBody::Text(Some("Only websocket.\n")));
            *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
            return response;
        }
        (&Method::GET | &Method::HEAD, "/events") => {
            let mut response = Response::new(DemoBody::Events(Counter::new()));
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            return response;
        }
        (&Method::HEAD, _) => Response::new(DemoBody::Text(None)),
        (&Method::POST | &Method::PUT | &Method::PATCH, _) => {
            let length = request.headers().get(CONTENT_LENGTH).cloned();
            let kind = request.headers().get(CONTENT_TYPE).cloned();
            let mut response = Response::new(DemoBody::Body(request.into_body()));
            let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            length.map(|length| response.headers_mut().insert(CONTENT_LENGTH, length));
            return response;
        }
        _ => Response::new(DemoBody::Text(Some(POSSIBLE))),
    };
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(POSSIBLE.len()));
    response
}

const POSSIBLE: &str = "Transmission is possible!\n";

/// What the demo sends.
#[derive(Debug)]
pub enum DemoBody {
    /// A fixed text.
    Text(Option<&'static str>),
    /// What came.
    Body(Body),
    /// What came, as a WebSocket's frames.
    Echo(Echo),
    /// Server-sent events.
    Events(Counter),
}

impl HttpBody for DemoBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(
                text.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
            ),
            Self::Body(body) => Pin::new(body).poll_frame(cx),
            Self::Echo(echo) => echo.poll_frame(cx),
            Self::Events(counter) => counter.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Body(body) => body.is_end_stream(),
            Self::Echo(_) | Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.map_or(0, str::len) as u64),
            Self::Body(body) => body.size_hint(),
            Self::Echo(_) | Self::Events(_) => SizeHint::new(),
        }
    }
}

/// Counts, an event a second.
pub struct Counter {
    tick: Pin<Box<Interval>>,
    count: u64,
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Counter {
    fn new() -> Self {
        Self { tick: Box::pin(interval(Duration::from_secs(1))), count: 0 }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.tick.poll_tick(cx).map(|_| {
            self.count += 1;
            Some(Ok(Frame::data(format!("id: {0}\ndata: {0}\n\n", self.count).into())))
        })
    }
}
