//! A service made of a closure.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use ptth_client::Body;
use tower_service::Service;

/// What [`service`] makes.
pub struct Closure<F>(Arc<F>);

impl<F> Clone for Closure<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F> std::fmt::Debug for Closure<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Closure")
    }
}

/// Answers each request by calling `answer`.
pub fn service<F, Fut, B, E>(answer: F) -> Closure<F>
where
    F: Fn(Request<Body>) -> Fut,
    Fut: Future<Output = Result<Response<B>, E>>,
{
    Closure(Arc::new(answer))
}

impl<F, Fut, B, E> Service<Request<Body>> for Closure<F>
where
    F: Fn(Request<Body>) -> Fut,
    Fut: Future<Output = Result<Response<B>, E>> + Send + 'static,
{
    type Response = Response<B>;
    type Error = E;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, E>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}
