//! What is kept of one exchange.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, request};
use http_body::Frame;
use ptth_link::headers;
use ptth_link::lock::Mutex;
use ptth_link::logging;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::store::Store;
use crate::watch::{Event, Hears, Side};

#[derive(Debug)]
pub(super) struct Tape {
    pub(super) id: u64,
    pub(super) service: Option<String>,
    /// The exchange that this one repeats.
    pub(super) replay_of: Option<u64>,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) fields: HeaderMap,
    /// What the visitor wants in the place of HTTP (RFC 8441).
    pub(super) protocol: Option<String>,
    begun: (SystemTime, Instant),
    pub(super) state: Mutex<State>,
    store: Weak<Store>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) request: Kept,
    pub(super) response: Kept,
    informational: Vec<(StatusCode, HeaderMap, Duration)>,
    pub(super) head: Option<(StatusCode, HeaderMap, Duration)>,
    pub(super) ended: Option<Duration>,
    /// Why it failed, where it did.
    why: Option<String>,
    /// Bytes that all of this is counted as.
    held: usize,
    /// It made room for others: nothing more is kept.
    gone: bool,
}

/// A body, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    /// Bytes that it has.
    pub(super) total: u64,
    trailers: Option<HeaderMap>,
    /// When which part came: milliseconds since the request, and where the part ends.
    pieces: Vec<(f64, usize)>,
}

impl Kept {
    /// Keeps a frame, up to `most` bytes of the body. The bytes that the memory grew by.
    fn keep(&mut self, frame: &Frame<Bytes>, most: usize, at: Duration) -> usize {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(data) = frame.data_ref() else { return 0 };
        self.total += data.len() as u64;
        let fits = data.get(..most.saturating_sub(self.bytes.len())).unwrap_or(data);
        if fits.is_empty() {
            return 0;
        }
        self.bytes.extend_from_slice(fits);
        self.pieces.push((millis(at), self.bytes.len()));
        fits.len() + PIECE
    }

    pub(super) fn is_whole(&self) -> bool {
        self.total == self.bytes.len() as u64
    }

    fn json(&self, fields: &HeaderMap, store: &Store, secrets: bool) -> Value {
        json!({
            "fields": store.fields(fields, secrets),
            "trailers": self.trailers.as_ref().map(|fields| store.fields(fields, secrets)),
            "bytes": self.total,
            "kept": self.bytes.len(),
            "pieces": self.pieces,
        })
    }
}

impl Tape {
    pub(super) fn new(
        store: &Arc<Store>,
        (id, replay_of): (u64, Option<u64>),
        service: Option<&str>,
        head: &request::Parts,
    ) -> Self {
        let held = headers::weight(&head.headers);
        store.grew(held);
        let protocol = head.extensions.get::<h2::ext::Protocol>();
        Self {
            id,
            service: service.map(str::to_owned),
            replay_of,
            method: head.method.clone(),
            uri: head.uri.clone(),
            fields: head.headers.clone(),
            protocol: protocol.map(|protocol| protocol.as_str().to_owned()),
            begun: (SystemTime::now(), Instant::now()),
            state: Mutex::new(State { held, ..State::default() }),
            store: Arc::downgrade(store),
        }
    }

    /// When the request came, in UTC (RFC 3339).
    pub(super) fn began(&self) -> String {
        let mut text = String::new();
        logging::date_time(&mut text, self.begun.0);
        text
    }

    /// What the list shows.
    pub(super) fn summary(&self) -> Value {
        let state = self.state.lock();
        let began = self.begun.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let visitor = self.fields.get(VISITOR).and_then(|it| it.to_str().ok());
        let (head, kind) = (state.head.as_ref(), http::header::CONTENT_TYPE);
        let kind = head.and_then(|(_, fields, _)| fields.get(kind)?.to_str().ok());
        json!({
            "id": self.id,
            "service": self.service,
            "replay_of": self.replay_of,
            "began": millis(began),
            "method": self.method.as_str(),
            "host": self.uri.authority().map(http::uri::Authority::as_str),
            "path": self.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
            "protocol": self.protocol,
            "visitor": visitor,
            "status": head.map(|(status, _, _)| status.as_u16()),
            "type": kind,
            "head_ms": head.map(|(_, _, at)| millis(*at)),
            "ms": state.ended.map(millis),
            "bytes_in": state.request.total,
            "bytes_out": state.response.total,
            "why": state.why,
        })
    }

    /// All but the bodies.
    pub(super) fn detail(&self, store: &Store, secrets: bool) -> Value {
        let mut all = self.summary();
        let state = self.state.lock();
        let none = HeaderMap::new();
        let fields = state.head.as_ref().map_or(&none, |(_, fields, _)| fields);
        let early = state.informational.iter().map(|(status, fields, at)| {
            let fields = store.fields(fields, secrets);
            json!({ "status": status.as_u16(), "fields": fields, "ms": millis(*at) })
        });
        all["informational"] = early.collect();
        all["request"] = state.request.json(&self.fields, store, secrets);
        all["response"] = state.response.json(fields, store, secrets);
        all
    }

    /// Forgets its bodies, and keeps no more. The bytes that this freed.
    pub(super) fn forget(&self) -> usize {
        let mut state = self.state.lock();
        state.gone = true;
        (state.request, state.response) = Default::default();
        std::mem::take(&mut state.held)
    }
}

impl Hears for Tape {
    fn hear(&self, event: Event<'_>) {
        let Some(store) = self.store.upgrade() else { return };
        let at = self.begun.1.elapsed();
        let (mut more, mut news) = (0, true);
        let ended = matches!(event, Event::Ended(..));
        let mut state = self.state.lock();
        if state.gone || ended && state.ended.is_some() {
            return;
        }
        match event {
            Event::Body(Side::Request, frame) => {
                (more, news) = (state.request.keep(frame, store.limits.body, at), false);
            }
            Event::Body(Side::Response, frame) => {
                // What goes on for long is shown while it does.
                let is_stream = self.protocol.is_some() || state.response.bytes.is_empty();
                (more, news) = (state.response.keep(frame, store.limits.body, at), is_stream);
            }
            Event::Informational(status, fields) => {
                more = headers::weight(fields);
                state.informational.push((status, fields.clone(), at));
            }
            Event::Head(head) => {
                more = headers::weight(&head.headers);
                state.head = Some((head.status, head.headers.clone(), at));
            }
            Event::Ended(status, why) => {
                if let Some(status) = status {
                    state.head = Some((status, HeaderMap::new(), at));
                }
                (state.ended, state.why) = (Some(at), why.map(str::to_owned));
            }
        }
        state.held += more;
        store.grew(more);
        drop(state);
        if ended {
            store.ended(self);
        }
        store.make_room();
        if news {
            store.tell(self);
        }
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Memory of the note about a part of a body.
const PIECE: usize = 32;
const VISITOR: HeaderName = HeaderName::from_static("x-real-ip");
