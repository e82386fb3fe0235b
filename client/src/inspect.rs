//! The inspector: a page on this machine that shows the exchanges, and the interface below it.
//!
//! In:  what [`crate::watch`] hears, kept in bounded memory (`store`).
//! Out: the page, its JSON, bodies, a HAR file; and an exchange again, as it was or edited (`replay`).
//!
//! Invariant: each call shows the key, which only the address that the user gets has; a call of another page's script,
//! or by another name than this machine's, reaches nothing.

mod capture;
pub mod command;
mod har;
mod replay;
mod store;
mod tape;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue,
    ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use ptth_link::admin::{Content, Listener, json, of, refusal};
use ptth_link::crypto;
use serde_json::json;

use crate::config::{Limits, Service};
use crate::tls::TlsError;
use crate::watch::Watch;
use capture::Capture;
use replay::{Replayed, Replays};
use store::{Listening, Store};

/// What serves the page. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inspector(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    key: String,
    replays: Replays,
}

impl Inspector {
    /// One that keeps so much, and writes each request to a file in the folder `capture`. The origins of `services` answer
    /// what is sent again. Reads certificates, so it blocks.
    pub fn new(
        limits: Limits,
        capture: Option<PathBuf>,
        services: &[Service],
    ) -> Result<Self, TlsError> {
        let key = crypto::hex(&crypto::random::<16>());
        let store = Store::new(limits, capture.map(Capture::to));
        let asks = services.iter().map(Replayed::of).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { store, key, replays: Replays(asks) })))
    }

    /// What hears the exchanges.
    pub fn watch(&self) -> Arc<dyn Watch> {
        Arc::new(Listening(self.0.store.clone()))
    }

    /// What stands behind the address in the page's link.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// Serves the page. Runs until it is dropped.
    pub async fn serve(self, listener: Listener) {
        listener
            .serve(LARGEST, move |request| {
                let own = self.clone();
                async move { secured(own.0.answer(request).await) }
            })
            .await;
    }
}

impl Inner {
    async fn answer(&self, request: Request<Bytes>) -> Response<Content> {
        let path = request.uri().path();
        for (own, kind, text) in [
            ("/", "text/html; charset=utf-8", include_str!("inspect/page.html")),
            ("/page.js", "text/javascript; charset=utf-8", include_str!("inspect/page.js")),
            ("/page.css", "text/css; charset=utf-8", include_str!("inspect/page.css")),
        ] {
            if path == own && request.method() == Method::GET {
                return of(kind, StatusCode::OK, text);
            }
        }
        if !self.is_own(&request) {
            return refusal(StatusCode::FORBIDDEN, "open the address that the client printed");
        }
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let secrets = request.uri().query().is_some_and(|it| it.split('&').any(|it| it == SECRETS));
        let none = || refusal(StatusCode::NOT_FOUND, "there is no such exchange any more");
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["api", "events"]) => {
                let events = Content::Events(self.store.listen("listening"));
                of("text/event-stream", StatusCode::OK, events)
            }
            (&Method::GET, ["api", "exchanges"]) => {
                let all: Vec<_> = self.store.all().iter().map(|tape| tape.summary()).collect();
                json(StatusCode::OK, &all.into())
            }
            (&Method::DELETE, ["api", "exchanges"]) => {
                self.store.clear();
                json(StatusCode::OK, &json!({}))
            }
            (&Method::GET, ["har"]) => {
                let mut har = json(StatusCode::OK, &har::all(&self.store, secrets));
                let save = HeaderValue::from_static("attachment; filename=\"2ptth.har\"");
                har.headers_mut().insert(CONTENT_DISPOSITION, save);
                har
            }
            (&Method::GET, ["api", "exchanges", id]) => {
                let tape = id.parse().ok().and_then(|id| self.store.find(id));
                tape.map_or_else(none, |tape| {
                    json(StatusCode::OK, &tape.detail(&self.store, secrets))
                })
            }
            (&Method::GET, ["api", "exchanges", id, side @ ("request" | "response")]) => {
                self.body(id, *side == "request").unwrap_or_else(none)
            }
            (&Method::POST, ["api", "exchanges", id, "replay"]) => {
                let Some(tape) = id.parse().ok().and_then(|id| self.store.find(id)) else {
                    return none();
                };
                match self.replays.replay(&self.store, &tape, request.body()).await {
                    Ok(id) => json(StatusCode::OK, &json!({ "id": id })),
                    Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
                }
            }
            _ => refusal(StatusCode::NOT_FOUND, "there is no such page"),
        }
    }

    /// A body as it came, coded as it came, which the page's browser undoes.
    fn body(&self, id: &str, request: bool) -> Option<Response<Content>> {
        let tape = self.store.find(id.parse().ok()?)?;
        let state = tape.state.lock();
        let (kept, fields) = match request {
            true => (&state.request, Some(&tape.fields)),
            false => (&state.response, state.head.as_ref().map(|(_, fields, _)| fields)),
        };
        let mut body =
            of("application/octet-stream", StatusCode::OK, Bytes::from(kept.bytes.clone()));
        let coding = fields.and_then(|fields| fields.get(CONTENT_ENCODING));
        if let Some(coding) = coding.filter(|_| kept.is_whole() && !kept.bytes.is_empty()) {
            body.headers_mut().insert(CONTENT_ENCODING, coding.clone());
        }
        Some(body)
    }

    /// Whether a request shows the key, and no other page made it.
    fn is_own(&self, request: &Request<Bytes>) -> bool {
        let field = |name: &HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
        let host = [b"http://", field(&HOST).unwrap_or_default()].concat();
        field(&KEY).is_some_and(|key| crypto::same(key, self.key.as_bytes()))
            && field(&ORIGIN).is_none_or(|origin| origin == host)
    }
}

/// The fields that keep what was captured from acting in the browser.
fn secured(mut response: Response<Content>) -> Response<Content> {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const KEY: HeaderName = HeaderName::from_static("inspect-key");
/// Asks for the values that are masked otherwise.
const SECRETS: &str = "secrets=1";
/// Bytes of an edited request: a body of [`Limits::body`]'s default in base64, and its fields.
const LARGEST: usize = 4 << 20;
