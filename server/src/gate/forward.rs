//! Asks the operator's authenticator about a request, by the convention of nginx's auth_request and Traefik's
//! forwardAuth.
//!
//! In:  a request's head; of its body nothing.
//! Out: the fields that the authenticator adds; or its own response, for the visitor: a redirect to a page of its, or
//! a challenge.
//!
//! Invariant: a field that the authenticator sets is never the visitor's, whatever it answers.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, RANGE, TE, TRAILER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use ptth_link::headers;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Refused;
use crate::config::Forward;

/// The response of an authenticator that doesn't let the request pass.
pub(super) async fn ask(
    forward: &Forward,
    head: &mut Parts,
    questions: &Semaphore,
) -> Result<Option<Response<Bytes>>, Refused> {
    let refuse = |why: &str| Refused::Forward(why.to_owned());
    let question = question(forward, head).ok_or(refuse("no field can hold the request"))?;
    forward.copy.iter().for_each(|name| headers::remove(&mut head.headers, name));
    let asking = async {
        let _permit = questions.acquire().await;
        // Of what lets a request pass only the head counts.
        let most = |status: StatusCode| if status.is_success() { 0 } else { MOST };
        forward.client.ask_for(&question, &[], most).await
    };
    let answer = timeout(forward.timeout, asking).await.map_err(|_| refuse("it is too slow"))?;
    let (mut answer, body) = answer.map_err(|failure| refuse(&failure.to_string()))?;
    if !answer.status.is_success() {
        // Neither another protocol, nor a word about content that the question didn't have (RFC 9110 §15.4.5).
        let fits = matches!(answer.status.as_u16(), 300..=303 | 305..=599);
        fits.then_some(()).ok_or(refuse("it gives no proper answer"))?;
        headers::response(&mut answer.headers);
        answer.headers.insert(CONTENT_LENGTH, body.len().into());
        return Ok(Some(Response::from_parts(answer, body.into())));
    }
    for name in &forward.copy {
        for value in answer.headers.get_all(name) {
            head.headers.append(name.clone(), value.clone());
        }
    }
    Ok(None)
}

/// The request as its target and fields say it, without what is about its body, about the content that the origin
/// would send, or about the hop.
fn question(forward: &Forward, head: &Parts) -> Option<Request<()>> {
    let mut question = forward.question.clone();
    let fields = question.headers_mut();
    for (name, value) in &head.headers {
        if !OTHERS.contains(name) && !name.as_str().starts_with("if-") {
            fields.append(name.clone(), value.clone());
        }
    }
    let target = head.uri.path_and_query()?.as_str();
    // An upgrade crosses as extended CONNECT, and was a GET (RFC 8441 §4).
    let method = if head.method == Method::CONNECT { Method::GET } else { head.method.clone() };
    let said = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = said("x-forwarded-proto").or(head.uri.scheme_str())?;
    let host = said("x-forwarded-host").or(head.uri.authority().map(|it| it.as_str()))?;
    let url = format!("{scheme}://{host}{target}");
    for (name, value) in [
        ("x-forwarded-method", method.as_str()),
        ("x-forwarded-uri", target),
        ("x-original-method", method.as_str()),
        ("x-original-uri", target),
        ("x-original-url", &url),
    ] {
        let name = HeaderName::from_static(name);
        headers::remove(fields, &name);
        fields.insert(name, HeaderValue::from_str(value).ok()?);
    }
    Some(question)
}

const OTHERS: [HeaderName; 6] = [CONTENT_LENGTH, EXPECT, HOST, RANGE, TE, TRAILER];
/// The largest body of a refusal, in bytes.
const MOST: usize = 64 << 10;
