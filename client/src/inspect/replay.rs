//! Sends a request again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Uri};
use http_body::Body as _;
use ptth_link::body::Body;
use serde_json::Value;
use tokio::time::timeout;

use super::store::{MASK, Store};
use super::tape::Tape;
use crate::config::{OriginAddress, OriginOptions, Service};
use crate::demo::Demo;
use crate::origin::Origin;
use crate::serve::{Answers, Own};
use crate::tls::TlsError;
use crate::watch::{Event, Hears, Side, tap};

/// The services that requests are sent to again, each by its name where there are several.
#[derive(Debug)]
pub(super) struct Replays(pub(super) Vec<Replayed>);

/// A service, and what answers for it: its origin, or the demo.
#[derive(Debug)]
pub(super) struct Replayed {
    service: Option<String>,
    origin: Option<Origin>,
}

impl Replayed {
    pub(super) fn of(service: &Service) -> Result<Self, TlsError> {
        let origin = match &service.origin {
            OriginAddress::Demo => None,
            address => Some(Origin::new(address.clone(), &service.asking)?),
        };
        Ok(Self { service: service.label.clone(), origin })
    }
}

impl Replays {
    /// Sends what `tape` has, with the changes that `edits` (JSON, may be empty) says, and waits for the response's end.
    /// The number of the new exchange.
    ///
    /// # Errors
    /// Why it can't be sent, in a sentence.
    pub(super) async fn replay(
        &self,
        store: &Arc<Store>,
        tape: &Arc<Tape>,
        edits: &[u8],
    ) -> Result<u64, String> {
        let edits = match edits {
            [] => Value::Null,
            text => serde_json::from_slice(text).map_err(|err| format!("no JSON: {err}"))?,
        };
        let request = request(tape, &edits)?;
        let to = edits["to"].as_str().filter(|to| !to.is_empty());
        let other = to.map(|to| {
            let address = OriginAddress::parse(to).map_err(|why| why.to_string())?;
            Origin::new(address, &OriginOptions::default()).map_err(|why| why.to_string())
        });
        let other = other.transpose()?;
        let own = self.0.iter().find(|it| it.service == tape.service);
        let own = own.and_then(|it| it.origin.as_ref());
        let (head, body) = request.into_parts();
        let tape = store.add(Some(tape.id), tape.service.as_deref(), &head);
        let (id, again): (_, Arc<dyn Hears>) = (tape.id, tape);
        let request = Request::from_parts(head, body.with_tap(Some(tap(&again, Side::Request))));
        let asking: Pin<Box<dyn Future<Output = ()> + Send>> = match (other, own) {
            (Some(origin), _) => Box::pin(ask(origin, request, again.clone())),
            (None, Some(origin)) => Box::pin(ask(origin.apart(), request, again.clone())),
            (None, None) => Box::pin(ask(Demo, request, again.clone())),
        };
        if timeout(PATIENCE, asking).await.is_err() {
            again.hear(Event::Ended(None, Some("a replay ends after a minute")));
        }
        Ok(id)
    }
}

/// The request, with what `edits` says in the place of what it had.
fn request(tape: &Tape, edits: &Value) -> Result<Request<Body>, String> {
    if tape.protocol.is_some() {
        return Err("an upgraded connection can't be sent again".to_owned());
    }
    let method = edits["method"].as_str().map_or(Ok(tape.method.clone()), |method| {
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method"))
    })?;
    let mut uri = tape.uri.clone().into_parts();
    if let Some(path) = edits["path"].as_str() {
        let wrong = |_| format!("{path:?} is no path");
        uri.path_and_query = Some(path.parse().map_err(wrong)?);
    }
    let uri = Uri::from_parts(uri).map_err(|_| "the target is malformed".to_owned())?;
    let mut fields = match edits["fields"].as_array() {
        None => tape.fields.clone(),
        Some(pairs) => edited(pairs, &tape.fields)?,
    };
    let kept = tape.state.lock();
    let body = match edits["body"].as_str() {
        Some(text) => STANDARD.decode(text).map_err(|_| "the body is no base64".to_owned())?,
        None if kept.request.is_whole() => kept.request.bytes.clone(),
        None => return Err("its body wasn't kept as a whole; give another one".to_owned()),
    };
    drop(kept);
    fields.remove(TRANSFER_ENCODING);
    // Without it the body goes in chunks, as before.
    if fields.contains_key(CONTENT_LENGTH) {
        fields.insert(CONTENT_LENGTH, body.len().into());
    }
    let mut request = Request::new(Body::full(Bytes::from(body)));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, fields);
    Ok(request)
}

/// The fields that were given. A masked value stands for what the first request had.
fn edited(pairs: &[Value], before: &HeaderMap) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for pair in pairs {
        let (name, text) = (pair[0].as_str().unwrap_or(""), pair[1].as_str().unwrap_or(""));
        let wrong = || format!("{name:?} with this value is no field");
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        if text == MASK {
            before.get_all(&parsed).iter().for_each(|value| {
                fields.append(parsed.clone(), value.clone());
            });
            continue;
        }
        fields.append(parsed, HeaderValue::from_str(text).map_err(|_| wrong())?);
    }
    Ok(fields)
}

/// Asks a service, and has all of the response heard.
pub(super) async fn ask(
    mut service: impl Answers,
    request: Request<Body>,
    hears: Arc<impl Hears + ?Sized>,
) {
    let answered = async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    };
    let response = match answered.await {
        Ok(response) => response,
        Err(err) => return hears.hear(Event::Ended(None, Some(&err.to_string()))),
    };
    if let Some(Own { failure, why }) = response.extensions().get::<Own>() {
        return hears.hear(Event::Ended(Some(failure.row().status), Some(why)));
    }
    let (head, body) = response.into_parts();
    hears.hear(Event::Head(&head));
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame {
            Ok(frame) => hears.hear(Event::Body(Side::Response, &frame)),
            Err(err) => return hears.hear(Event::Ended(None, Some(&err.to_string()))),
        }
    }
    hears.hear(Event::Ended(None, None));
}

const PATIENCE: Duration = Duration::from_secs(60);
