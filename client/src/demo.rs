//! The origin that is built in: something to look at before there is anything to show.
//!
//! GET answers with a line of text, POST with its own body, `/events` counts as server-sent events, and
//! a WebSocket gets back what it sends. `?delay=2` in the target makes it think that many seconds first.

mod echo;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use ptth_link::body::{Body, BodyError};
use ptth_link::upgrade::WEBSOCKET;
use tokio::time::{interval, sleep};
use tower_service::Service;

use echo::Echo;

#[derive(Clone, Copy, Debug, Default)]
pub struct Demo;

impl Service<Request<Body>> for Demo {
    type Response = Response<DemoBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async {
            if let Some(delay) = delay(request.uri().query()) {
                sleep(delay).await;
            }
            Ok(answer(request))
        })
    }
}

/// What `delay=SECONDS` asks for, a fraction perhaps, as far as it goes.
fn delay(query: Option<&str>) -> Option<Duration> {
    let seconds = query?.split('&').find_map(|pair| pair.strip_prefix("delay="))?;
    let seconds = seconds.parse::<f64>().ok().filter(|seconds| seconds.is_finite())?;
    Duration::try_from_secs_f64(seconds.min(LONGEST_DELAY)).ok()
}

/// Long enough to look at; visitors choose it, and each holds a stream meanwhile.
const LONGEST_DELAY: f64 = 30.0;

fn answer(request: Request<Body>) -> Response<DemoBody> {
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    let is_websocket = protocol.is_some_and(|protocol| protocol.as_str() == WEBSOCKET);
    let (mut status, mut fields) = (StatusCode::OK, HeaderMap::new());
    let body = match (request.method(), request.uri().path()) {
        (&Method::CONNECT, _) if is_websocket => {
            let mut echo = Echo::new(request.into_body());
            DemoBody::Stream(Box::new(move |cx| echo.poll_frame(cx)))
        }
        (&Method::CONNECT, _) => {
            status = StatusCode::NOT_IMPLEMENTED;
            DemoBody::Text(Some("Only websocket.\n"))
        }
        (&Method::GET | &Method::HEAD, "/events") => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            events()
        }
        (&Method::POST | &Method::PUT | &Method::PATCH, _) => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            for name in [CONTENT_TYPE, CONTENT_LENGTH] {
                if let Some(value) = request.headers().get(&name) {
                    fields.insert(name, value.clone());
                }
            }
            let mut body = request.into_body();
            DemoBody::Stream(Box::new(move |cx| Pin::new(&mut body).poll_frame(cx)))
        }
        (method, _) => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            fields.insert(CONTENT_LENGTH, POSSIBLE.len().into());
            DemoBody::Text((method != Method::HEAD).then_some(POSSIBLE))
        }
    };
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (status, fields);
    response
}

const POSSIBLE: &str = "Transmission is possible!\n";

#[allow(missing_debug_implementations, reason = "no caller prints it")]
pub enum DemoBody {
    Text(Option<&'static str>),
    Stream(Frames),
}

type Frames =
    Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> + Send>;

impl HttpBody for DemoBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text.into())))),
            Self::Stream(poll_frame) => poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None))
    }
}

/// Counts, an event a second.
fn events() -> DemoBody {
    let (mut tick, mut count) = (interval(Duration::from_secs(1)), 0);
    DemoBody::Stream(Box::new(move |cx| {
        tick.poll_tick(cx).map(|_| {
            count += 1;
            Some(Ok(Frame::data(format!("id: {count}\ndata: {count}\n\n").into())))
        })
    }))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_kept_and_is_bounded() {
        let table = [
            ("/", 0),
            ("/?delay=", 0),
            ("/?delay=-1", 0),
            ("/?delay=NaN", 0),
            ("/?delays=3", 0),
            ("/?delay=0.25", 250),
            ("/x?a=b&delay=2", 2000),
            ("/?delay=1e300", 30_000),
            ("/?delay=3600", 30_000),
        ];
        for (target, milliseconds) in table {
            let began = Instant::now();
            let request = Request::post(target).body(Body::empty()).unwrap();
            let response = Demo.call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let took = began.elapsed().as_millis();
            assert!(took.abs_diff(milliseconds) <= 2, "{target}: {took} ms");
        }
    }
}
