//! The exchanges as HTTP Archive 1.2, which browsers and other tools read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::store::Store;
use super::tape::{Kept, Tape, millis};

pub(super) fn all(store: &Store, secrets: bool) -> Value {
    let entries: Vec<_> = store.all().iter().map(|tape| entry(tape, store, secrets)).collect();
    json!({ "log": {
        "version": "1.2",
        "creator": { "name": "2ptth-client", "version": env!("CARGO_PKG_VERSION") },
        "entries": entries,
    } })
}

fn entry(tape: &Tape, store: &Store, secrets: bool) -> Value {
    let began = tape.began();
    let state = tape.state.lock();
    let none = HeaderMap::new();
    let (status, fields, head) =
        state.head.as_ref().map_or((0, &none, None), |it| (it.0.as_u16(), &it.1, Some(it.2)));
    let query = tape.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = query.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        json!({ "name": name, "value": value })
    });
    let ended = state.ended.or(head).unwrap_or_default();
    let wait = head.unwrap_or(ended);
    let mut request = json!({
        "method": tape.method.as_str(),
        "url": tape.uri.to_string(),
        "httpVersion": "HTTP/2",
        "cookies": [],
        "headers": pairs(store, &tape.fields, secrets),
        "queryString": query.collect::<Vec<_>>(),
        "headersSize": -1,
        "bodySize": state.request.total,
    });
    if state.request.total > 0 {
        request["postData"] = content(&state.request, &tape.fields);
    }
    let mut shown = content(&state.response, fields);
    shown["size"] = state.response.total.into();
    json!({
        "startedDateTime": began,
        "time": millis(ended),
        "request": request,
        "response": {
            "status": status,
            "statusText": "",
            "httpVersion": "HTTP/2",
            "cookies": [],
            "headers": pairs(store, fields, secrets),
            "content": shown,
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": state.response.total,
        },
        "cache": {},
        "timings": { "send": 0, "wait": millis(wait), "receive": millis(ended.saturating_sub(wait)) },
    })
}

fn pairs(store: &Store, fields: &HeaderMap, secrets: bool) -> Vec<Value> {
    let fields = store.fields(fields, secrets).into_iter();
    fields.map(|[name, value]| json!({ "name": name, "value": value })).collect()
}

/// A body as text, or in base64 where it is none.
fn content(kept: &Kept, fields: &HeaderMap) -> Value {
    let kind = fields.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    match std::str::from_utf8(&kept.bytes) {
        Ok(text) => json!({ "mimeType": kind, "text": text }),
        Err(_) => {
            json!({ "mimeType": kind, "text": STANDARD.encode(&kept.bytes), "encoding": "base64" })
        }
    }
}
