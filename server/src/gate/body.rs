//! A request's body that may have so many bytes and no more.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::Refused;

/// Whether a body was found too long; `None` where it has no limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Excess(Option<Arc<AtomicBool>>);

impl Excess {
    /// Why the request with this body failed: the body's length if it is too long, else `err`.
    pub(crate) fn or<E: From<Refused>>(&self, err: E) -> E {
        let found = self.0.as_ref().is_some_and(|found| found.load(Ordering::Relaxed));
        if found { Refused::Body.into() } else { err }
    }
}

/// The same body, which breaks off where it is found longer than `most` bytes.
pub(crate) fn limited<B>(
    body: B,
    most: Option<u64>,
) -> (impl Body<Data = Bytes, Error = ()> + Send + 'static, Excess)
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let excess = Excess(most.map(|_| Arc::default()));
    let found = excess.0.clone();
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    // What exactly is wrong with the body itself, the visitor's side knows.
    let body = Limited::new(body.map_err(|_| "malformed"), most);
    let body = body.map_err(move |err: Box<dyn Error + Send + Sync>| {
        if let Some(found) = found.iter().find(|_| err.is::<LengthLimitError>()) {
            found.store(true, Ordering::Relaxed);
        }
    });
    (body, excess)
}
