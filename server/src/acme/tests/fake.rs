//! A directory in memory: it issues at once, says what it is told to say, and remembers what it was asked.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::directory::{Connect, RetryAfter};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

thread_local! {
    static START: Cell<Option<(SystemTime, Instant)>> = const { Cell::new(None) };
}

/// The time of day of the paused clock.
pub(super) fn now() -> SystemTime {
    let (began, at) = START.get().expect("a directory was made");
    began + at.elapsed()
}

/// What it does with the next orders.
pub(super) enum Answer {
    /// It isn't there.
    Down,
    /// It refuses the order with these words, and with this Retry-After.
    Refuse(&'static str, u64),
    /// It can't validate the name.
    Invalid(&'static str),
}

#[derive(Default)]
struct State {
    asked: Vec<String>,
    answers: VecDeque<Answer>,
    /// When to renew, in days from the start.
    suggested: Option<(i64, i64)>,
    orders: Vec<Order>,
}

#[derive(Default)]
struct Order {
    name: String,
    invalid: Option<&'static str>,
    chain: Option<String>,
}

#[derive(Clone)]
pub(super) struct Fake(Arc<Mutex<State>>, Arc<Issuer<'static, KeyPair>>);

impl Fake {
    pub(super) fn new() -> Self {
        START.set(Some((SystemTime::now(), Instant::now())));
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(authority, KeyPair::generate().unwrap());
        Self(Arc::default(), Arc::new(issuer))
    }

    pub(super) fn connect(&self) -> Connect {
        let fake = self.clone();
        Box::new(move |_, after| Ok(Box::new(Asking { fake: fake.clone(), after })))
    }

    pub(super) fn next(&self, answer: Answer) {
        self.0.lock().unwrap().answers.push_back(answer);
    }

    /// From the start, in days.
    pub(super) fn suggest(&self, from: i64, to: i64) {
        self.0.lock().unwrap().suggested = Some((from, to));
    }

    /// Since the last look: methods, paths, and the names of orders.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    pub(super) fn orders(&self) -> usize {
        self.asked().iter().filter(|it| it.starts_with("POST /order ")).count()
    }

    fn answer(
        &self,
        request: &Request<()>,
        body: &[u8],
        after: &RetryAfter,
    ) -> Option<Response<String>> {
        let mut state = self.0.lock().unwrap();
        let payload = serde_json::from_slice(body).ok().and_then(|signed: Value| {
            let payload = BASE64.decode(signed["payload"].as_str()?).ok()?;
            serde_json::from_slice(&payload).ok()
        });
        let payload: Value = payload.unwrap_or_default();
        let path = request.uri().path().to_owned();
        let name = payload["identifiers"][0]["value"].as_str().unwrap_or_default();
        let line = format!(
            "{} {path} {name}{}",
            request.method(),
            payload["replaces"].as_str().map_or("", |_| " replaces")
        );
        state.asked.push(line.trim_end().to_owned());
        if let Some(Answer::Down) = state.answers.front() {
            state.answers.pop_front();
            return None;
        }
        let (kind, number) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number = number.parse().unwrap_or(state.orders.len());
        let (status, location, body) = self.reply(&mut state, (kind, number), &payload, after);
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let response = Response::builder().status(status).header("replay-nonce", "n");
        let response = response.header("retry-after", "21600");
        let response = location.into_iter().fold(response, |it, at| it.header("location", at));
        Some(response.body(text).unwrap())
    }

    /// Status, location and body.
    fn reply(
        &self,
        state: &mut State,
        (kind, number): (&str, usize),
        payload: &Value,
        after: &RetryAfter,
    ) -> (u16, Option<String>, Value) {
        let url = |path: String| format!("https://directory.test{path}");
        let name = payload["identifiers"][0]["value"].as_str().unwrap_or_default();
        let (mut status, mut location) = (200, None);
        let body = match kind {
            "directory" => json!({
                "newNonce": url("/nonce".into()), "newAccount": url("/account".into()),
                "newOrder": url("/order".into()),
                "renewalInfo": state.suggested.map(|_| url("/suggestion".into())),
            }),
            "account" => {
                location = Some(url("/account/1".into()));
                json!({})
            }
            "suggestion" => {
                let (from, to) = state.suggested.unwrap();
                let text = |days: i64| {
                    let mut date = CertificateParams::default();
                    date.not_before = (START.get().unwrap().0 + DAY * days as u32).into();
                    let date = date.not_before;
                    format!(
                        "{}T{:02}:{:02}:{:02}Z",
                        date.date(),
                        date.hour(),
                        date.minute(),
                        date.second()
                    )
                };
                json!({ "suggestedWindow": { "start": text(from), "end": text(to) } })
            }
            "order" if payload["identifiers"].is_array() => match state.answers.pop_front() {
                Some(Answer::Refuse(words, wait)) => {
                    *after.lock() = Some(Duration::from_secs(wait)).filter(|it| !it.is_zero());
                    status = 429;
                    json!({ "type": "urn:ietf:params:acme:error:rateLimited", "detail": words, "status": 429 })
                }
                answer => {
                    let invalid = match answer {
                        Some(Answer::Invalid(words)) => Some(words),
                        _ => None,
                    };
                    state.orders.push(Order { name: name.to_owned(), invalid, chain: None });
                    location = Some(url(format!("/order/{number}")));
                    let mut order = state.orders[number].json(number);
                    order["replaces"] = payload["replaces"].clone();
                    order["status"] = json!("pending");
                    order
                }
            },
            "order" => state.orders[number].json(number),
            "authorization" => state.orders[number].authorization(number),
            "challenge" => state.orders[number].authorization(number)["challenges"][0].clone(),
            "finalize" => {
                let csr = BASE64.decode(payload["csr"].as_str().unwrap()).unwrap();
                state.orders[number].chain = Some(self.sign(csr));
                state.orders[number].json(number)
            }
            "certificate" => json!(state.orders[number].chain),
            _ => json!({}),
        };
        (status, location, body)
    }

    fn sign(&self, csr: Vec<u8>) -> String {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        csr.params.not_before = (START.get().unwrap().0 - Duration::from_secs(60)).into();
        csr.params.not_after = (now() + 90 * DAY).into();
        csr.params.use_authority_key_identifier_extension = true;
        csr.signed_by(&self.1).unwrap().pem()
    }
}

impl Order {
    fn json(&self, number: usize) -> Value {
        let url = |kind| format!("https://directory.test/{kind}/{number}");
        let status = match (self.invalid, &self.chain) {
            (Some(_), _) => "invalid",
            (None, Some(_)) => "valid",
            (None, None) => "ready",
        };
        json!({
            "status": status, "identifiers": [{ "type": "dns", "value": self.name }],
            "authorizations": [url("authorization")], "finalize": url("finalize"), "certificate": url("certificate"),
        })
    }

    fn authorization(&self, number: usize) -> Value {
        let error = self.invalid.map(
            |words| json!({ "type": "urn:ietf:params:acme:error:connection", "detail": words }),
        );
        json!({
            "identifier": { "type": "dns", "value": self.name }, "status": "pending",
            "challenges": [{
                "type": "tls-alpn-01", "url": format!("https://directory.test/challenge/{number}"),
                "token": "t", "status": "pending",
                "error": error,
            }],
        })
    }
}

struct Asking {
    fake: Fake,
    after: RetryAfter,
}

impl HttpClient for Asking {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (fake, after) = (self.fake.clone(), self.after.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let answer = fake.answer(&Request::from_parts(parts, ()), &body, &after);
            let answer = answer.ok_or_else(|| Error::Other("it isn't there".into()));
            ready(answer).await.map(|it| it.map(|text| Full::new(Bytes::from(text))).into())
        })
    }
}
