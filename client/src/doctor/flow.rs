//! Bytes in both directions: a service of the doctor's own on the tunnel, asked by the public address as a visitor.
//!
//! Invariant: a request whose path doesn't end with a random word goes to the client's own service, as without a doctor.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame};
use ptth_link::body::Body;
use ptth_link::crypto;
use ptth_link::doctor::Report;
use ptth_link::h1::{self, Framing, ResponseReader, write_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;

use crate::config::{Config, Gateway, Trust};
use crate::dial::{Network, Stream};
use crate::journal::Journal;
use crate::serve::Answers;
use crate::tunnels::Process;

use super::Patient;
use super::reach::PATIENCE;

/// The client's service, and beside it the doctor's.
#[derive(Clone, Debug)]
pub(super) struct Beside<S> {
    service: S,
    word: Arc<str>,
    /// Bytes of bodies that came to the doctor's.
    received: Arc<AtomicU64>,
}

impl<S> Beside<S> {
    pub(super) fn new(service: S) -> Self {
        let word = format!("2ptth-doctor-{}", crypto::hex(&crypto::random::<16>()));
        Self { service, word: word.into(), received: Arc::default() }
    }
}

impl<S: Answers> Service<Request<Body>> for Beside<S> {
    type Response = Response<Answer<S::Body>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !request.uri().path().ends_with(&*self.word) {
            let answered = self.service.call(request);
            return Box::pin(async move {
                Ok(answered.await?.map(|body| Answer::Service(Box::pin(body))))
            });
        }
        let received = self.received.clone();
        Box::pin(async move {
            if *request.method() == Method::GET {
                return Ok(Response::new(Answer::Endless));
            }
            let mut body = request.into_body();
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                received.fetch_add(bytes, Ordering::Relaxed);
            }
            Ok(Response::new(Answer::Empty))
        })
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum Answer<B> {
    Service(Pin<Box<B>>),
    /// Until the visitor has enough.
    Endless,
    Empty,
}

impl<B: HttpBody<Data = Bytes>> HttpBody for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut *self {
            Self::Service(body) => body.as_mut().poll_frame(cx),
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&NOTHING))))),
            Self::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Service(body) => body.is_end_stream(),
            Self::Endless => false,
            Self::Empty => true,
        }
    }
}

/// Sends for [`TIME`] in each direction, by the public address `url`.
pub(super) async fn measure<N: Network, S>(
    patient: &Patient<N>,
    url: &str,
    beside: &Beside<S>,
    report: &mut Report,
) {
    let to = match Visit::new(patient, url, &beside.word) {
        Some(to) => to,
        None => return report.skip("throughput", format!("{url} can't be asked")),
    };
    let (down, up) = (to.down().await, to.up(&beside.received).await);
    let [down, up] = match (down, up) {
        (Ok(Ok(down)), Ok(up)) if up > 0 => [down, up],
        (Ok(Err(status)), _) if status == StatusCode::NOT_FOUND || status.is_server_error() => {
            return report.skip(
                "throughput",
                format!("{url} says {}: another backend answered", status.as_u16()),
            );
        }
        (Ok(Err(status)), _) => {
            return report.skip(
                "throughput",
                format!("{url} says {}: the gate of the route refuses the doctor", status.as_u16()),
            );
        }
        (Ok(_), Ok(_)) => {
            return report.fail("throughput", "no byte of a request's body comes through", MTU);
        }
        (Err(err), _) | (_, Err(err)) => {
            let found = format!("{url} can't be asked from here: {err}");
            return report.warn(
                "throughput",
                found,
                "does the name lead to the gateway, for visitors, too?",
            );
        }
    };
    let rate = |bytes: u64| format!("{:.1} MB/s", bytes as f64 / TIME.as_secs_f64() / 1e6);
    let found = format!("{} to visitors, {} from them", rate(down), rate(up));
    report.ok("throughput", format!("{found}, by {url}, each on the way out and in again"));
}

/// Requests of a visitor that believes any gateway, since it says and believes nothing.
struct Visit<N> {
    process: Process,
    network: N,
    config: Config,
    path: String,
    host: HeaderValue,
}

impl<N: Network> Visit<N> {
    fn new(patient: &Patient<N>, url: &str, word: &str) -> Option<Self> {
        let uri = Uri::try_from(url).ok()?;
        let authority = uri.authority()?;
        let (gateway, plain) =
            Gateway::parse_either(&format!("{}://{authority}", uri.scheme_str()?)).ok()?;
        let mut config = Config::new(gateway);
        (config.plain, config.trust) = (plain, Trust::Insecure);
        config.proxies = patient.config.proxies.clone();
        let process = Process::new(config.clone(), Journal::default()).ok()?;
        let path = format!("{}/{word}", uri.path().trim_end_matches('/'));
        let host = HeaderValue::from_str(authority.as_str()).ok()?;
        Some(Self { process, network: patient.network.clone(), config, path, host })
    }

    async fn open(&self) -> io::Result<Stream> {
        let gateway = self.config.gateway.clone();
        let dialer = self.process.dialer(self.network.clone(), gateway, 0)?;
        let tls = dialer.shared.http.clone();
        Ok(dialer.shake(&tls).await.map_err(io::Error::other)?.stream)
    }

    /// Bytes of a response, or the status of another one.
    async fn down(&self) -> io::Result<Result<u64, StatusCode>> {
        let mut io = timeout(PATIENCE, self.open()).await??;
        let request = Request::builder().uri(&self.path).header(HOST, &self.host);
        let request = request.body(()).map_err(io::Error::other)?;
        let mut input = BytesMut::new();
        let asking = h1::ask(&mut io, (&request, &[]), (&mut input, ResponseReader::default()));
        let answer = timeout(PATIENCE, asking).await??;
        if answer.parts.status != StatusCode::OK
            || answer.parts.headers.contains_key(CONTENT_LENGTH)
        {
            return Ok(Err(match answer.parts.status {
                StatusCode::OK => StatusCode::NOT_FOUND,
                other => other,
            }));
        }
        let (end, mut bytes, mut buffer) = (Instant::now() + TIME, 0, vec![0; 64 << 10]);
        while let Ok(read) = timeout_at(end, io.read(&mut buffer)).await {
            bytes += match read? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => read as u64,
            };
        }
        Ok(Ok(bytes))
    }

    /// Bytes of a request's body that came to the service.
    async fn up(&self, received: &AtomicU64) -> io::Result<u64> {
        let mut io = timeout(PATIENCE, self.open()).await??;
        let fields = http::HeaderMap::new();
        let head =
            write_request(&Method::POST, &self.path, &self.host, &fields, Framing::Length(ENDLESS));
        let end = Instant::now() + TIME;
        let sending = async {
            io.write_all(&head).await?;
            loop {
                io.write_all(&NOTHING).await?;
            }
        };
        // An error means that the request was refused while its body came: then too little of it was received.
        let _: Result<io::Result<()>, _> = timeout_at(end, sending).await;
        Ok(received.load(Ordering::Relaxed))
    }
}

/// In each direction.
const TIME: Duration = Duration::from_secs(2);
/// More than is sent.
const ENDLESS: u64 = 1 << 40;
const MTU: &str =
    "something on the way may drop large packets: lower the MTU of this machine's network";
static NOTHING: [u8; 16 << 10] = [0; 16 << 10];
