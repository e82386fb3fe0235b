//! What can hear an exchange while it runs: the seam for what shows exchanges.
//!
//! Invariant: an exchange never waits for what hears it, and without it nothing of this costs anything.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};
use http_body::Frame;
use ptth_link::body::Tap;

/// Hears of each exchange.
pub trait Watch: Debug + Send + Sync {
    /// One began, of that service where there are several. Must not wait.
    fn begin(&self, service: Option<&str>, head: &request::Parts) -> Arc<dyn Hears>;
}

/// Hears one exchange. Must not wait.
pub trait Hears: Debug + Send + Sync {
    fn hear(&self, event: Event<'_>);
}

/// Whose body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Request,
    Response,
}

#[derive(Debug)]
pub enum Event<'a> {
    /// A part of a body moved on.
    Body(Side, &'a Frame<Bytes>),
    Informational(StatusCode, &'a HeaderMap),
    /// The head of the final response.
    Head(&'a response::Parts),
    /// Nothing more comes; the first of these counts. The client answered by itself, with that status, or the response broke off, for that reason.
    Ended(Option<StatusCode>, Option<&'a str>),
}

/// Has the frames of a body heard.
pub fn tap(hears: &Arc<dyn Hears>, side: Side) -> Tap {
    let hears = hears.clone();
    Tap::new(move |frame| hears.hear(Event::Body(side, frame)))
}
