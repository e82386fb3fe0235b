//! Why a tunnel ended.

use ptth_link::h2 as engine;
use ptth_link::h2::goaway::{self, Why};

use crate::dial::DialError;

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The gateway refused this client. With TLS 1.3 that arrives after the handshake.
    #[error("{0}")]
    Refused(#[from] DialError),
    /// The gateway gave the reason, and perhaps a text.
    #[error("{}", told(*.0, .1.as_deref()))]
    Told(Why, Option<String>),
    #[error("{0}")]
    Connection(#[from] engine::Ended),
}

impl Ended {
    pub(crate) const CLOSED: Self = Self::Connection(engine::Ended::Closed);
}

fn told(why: Why, words: Option<&str>) -> String {
    match (why, words) {
        (Why::Stopping, _) => "the gateway stops".to_owned(),
        (why, None) => format!("the gateway ended it: {why}"),
        (why, Some(words)) => format!("the gateway ended it: {why} ({words:?})"),
    }
}

/// What the engine's end means.
pub(super) fn ended(ended: engine::Ended) -> Ended {
    let engine::Ended::Connection(err) = ended else { return ended.into() };
    if let Some(why) = Why::of(&err) {
        return Ended::Told(why, goaway::text(&err));
    }
    if err.get_io().is_none() {
        return engine::Ended::Connection(err).into();
    }
    match err.into_io().map(DialError::of) {
        Some(refused @ DialError::Refused(_)) => refused.into(),
        Some(DialError::Tls(err)) => engine::Ended::Socket(err).into(),
        _ => engine::Ended::Closed.into(),
    }
}
