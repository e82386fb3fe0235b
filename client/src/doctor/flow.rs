//! Bytes in both directions: a visitor sends them by the public address, and the tunnel sends them back.
//!
//! Invariant: a request whose path doesn't end with a random word goes to the client's own service, as without a doctor.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use ptth_link::body::Body;
use ptth_link::crypto;
use ptth_link::doctor::Report;
use ptth_link::h1::{Framing, ResponseReader, write_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use crate::config::{Config, Gateway, Trust};
use crate::demo::Demo;
use crate::dial::Network;
use crate::serve::Answers;

use super::Patient;
use super::reach::{MTU, PATIENCE};

/// The client's service, and beside it the demo, which sends a body back.
#[derive(Clone, Debug)]
pub(super) struct Beside<S> {
    pub(super) service: S,
    pub(super) word: Arc<str>,
}

impl<S: Answers> Service<Request<Body>> for Beside<S> {
    type Response = Response<Flow>;
    type Error = String;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, String>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.service.poll_ready(cx).map_err(|err| err.to_string())
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().ends_with(&*self.word) {
            let answered = Demo.call(request);
            return Box::pin(async { answered.await.map(flow).map_err(|never| match never {}) });
        }
        let answered = self.service.call(request);
        Box::pin(async { answered.await.map(flow).map_err(|err| err.to_string()) })
    }
}

/// A body of either service.
type Flow = UnsyncBoxBody<Bytes, String>;

fn flow<B>(response: Response<B>) -> Response<Flow>
where
    B: HttpBody<Data = Bytes, Error: ToString> + Send + 'static,
{
    response.map(|body| body.map_err(|err| err.to_string()).boxed_unsync())
}

/// A word for [`Beside`].
pub(super) fn word() -> Arc<str> {
    format!("2ptth-doctor-{}", crypto::hex(&crypto::random::<16>())).into()
}

/// Sends for [`TIME`] by the public address `url`.
pub(super) async fn measure<N: Network>(
    patient: &Patient<N>,
    url: &str,
    word: &str,
    report: &mut Report,
) {
    match echo(patient, url, word).await {
        Ok((StatusCode::OK, 0)) => report.fail(
            "throughput",
            format!("of what a visitor of {url} sends, nothing comes back"),
            MTU,
        ),
        Ok((StatusCode::OK, bytes)) => {
            let rate = bytes as f64 / TIME.as_secs_f64() / 1e6;
            report.ok("throughput", format!("{rate:.1} MB/s in each direction at once, by {url}"));
        }
        Ok((status, _)) => report.skip(
            "throughput",
            format!(
                "{url} answers {status}: a gate refuses the doctor, or another backend answered"
            ),
        ),
        Err(err) => report.warn(
            "throughput",
            format!("{url} can't be asked from here: {err}"),
            "see that its name leads to the gateway, for visitors, too",
        ),
    }
}

/// The status of the response, and the bytes that came back. The visitor believes any gateway, since what it sends and
/// gets means nothing.
async fn echo<N: Network>(
    patient: &Patient<N>,
    url: &str,
    word: &str,
) -> io::Result<(StatusCode, usize)> {
    let uri = Uri::try_from(url).map_err(io::Error::other)?;
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
    let authority = authority.map_or("", |it| it.as_str());
    let gateway = Gateway::parse_either(&format!("{scheme}://{authority}"));
    let (gateway, plain) = gateway.map_err(|why| io::Error::other(why.to_string()))?;
    let mut config = Config::new(gateway);
    (config.plain, config.trust) = (plain, Trust::Insecure);
    config.proxies = patient.config.proxies.clone();
    let visitor = Patient::new(config, patient.network.clone()).map_err(io::Error::other)?;
    let dialled = visitor.visit().await.map_err(io::Error::other)?;
    let path = format!("{}/{word}", uri.path().trim_end_matches('/'));
    let host = HeaderValue::from_str(authority).map_err(io::Error::other)?;
    let head = write_request(&Method::POST, &path, &host, &HeaderMap::new(), Framing::Chunked);
    let chunk = [b"4000\r\n", &[0; 0x4000][..], b"\r\n"].concat();
    let (mut from, mut to) = tokio::io::split(dialled.stream);
    let sending = async {
        // Its error counts only without a response: a gateway may refuse before it has read all.
        let _: io::Result<()> = async {
            to.write_all(&head).await?;
            loop {
                to.write_all(&chunk).await?;
                to.flush().await?;
            }
        }
        .await;
        pending().await
    };
    let receiving = async {
        let (mut input, mut reader) = (BytesMut::new(), ResponseReader::default());
        let answer = async {
            loop {
                match reader.read(&mut input, &Method::POST)? {
                    Some(answer) => return Ok::<_, io::Error>(answer.parts.status),
                    None if from.read_buf(&mut input).await? > 0 => {}
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        let status = timeout(PATIENCE, answer).await??;
        let (mut end, mut bytes) = (Instant::now() + PATIENCE, 0);
        while status == StatusCode::OK
            && let Ok(read) = timeout_at(end, from.read_buf(&mut input)).await
            && read? > 0
        {
            if bytes == 0 {
                end = Instant::now() + TIME;
            }
            bytes += input.split().len();
        }
        Ok((status, bytes))
    };
    select! {
        received = receiving => received,
        never = sending => never,
    }
}

const TIME: Duration = Duration::from_secs(2);
