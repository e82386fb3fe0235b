//! Answers from a server near the client: one stream becomes one HTTP/1.1 request, or one TCP connection.
//!
//! Invariant: the address that is dialled comes from the command line alone; nothing that a request
//! says can change it.

mod capsule;
mod leg;
mod tcp;
mod upgrade;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use log::debug;
use ptth_link::body::Body;
use tower_service::Service;

use crate::config::{HostHeader, OriginAddress};
use crate::serve::Early;

use leg::{Answer, Legs, Upload};
use upgrade::Spliced;

/// The service that asks an origin. One for each runtime, whose connections it keeps.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    legs: Legs,
    host: Option<HeaderValue>,
}

/// Why the origin gave no response; each becomes a status code.
#[derive(Debug)]
pub enum OriginError {
    /// It isn't listening, or not reachable.
    Connect(io::Error),
    /// It broke off before its response, or what it sent is no response.
    Response(hyper::Error),
    /// It answered an upgrade with a wrong key.
    Upgrade(&'static str),
    /// The request can't be put into HTTP/1.1.
    Request,
    /// A request for a service that speaks no HTTP.
    NotHttp,
    /// A WebSocket for one.
    NoWebSocket,
}

impl OriginError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Connect(err) if err.kind() == io::ErrorKind::TimedOut => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Connect(_) | Self::Response(_) | Self::Upgrade(_) => StatusCode::BAD_GATEWAY,
            Self::Request => StatusCode::BAD_REQUEST,
            Self::NotHttp => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoWebSocket => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// What visitors read: which leg failed, and nothing about addresses.
    fn explanation(&self) -> &'static str {
        match self {
            Self::Connect(_) => "The server behind this gateway is not listening.",
            Self::Response(_) => "The server behind this gateway gave no valid response.",
            Self::Upgrade(_) => "The server behind this gateway botched the upgrade.",
            Self::Request => "This request can't be passed on over HTTP/1.1.",
            Self::NotHttp => {
                "The server behind this gateway speaks no HTTP; reach it by connect-tcp."
            }
            Self::NoWebSocket => {
                "The server behind this gateway speaks no WebSocket; reach it by connect-tcp."
            }
        }
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(err) => write!(f, "can't connect: {err}"),
            Self::Response(err) => {
                write!(f, "no valid response: {err}")?;
                let cause = std::error::Error::source(err);
                cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Upgrade(why) => write!(f, "upgrade: {why}"),
            Self::Request => f.write_str("the request can't be expressed in HTTP/1.1"),
            Self::NotHttp => {
                f.write_str("a request for a service that is reached by CONNECT alone")
            }
            Self::NoWebSocket => f.write_str("a WebSocket for a service that isn't HTTP"),
        }
    }
}

impl std::error::Error for OriginError {}

impl Origin {
    /// An origin at `address`.
    pub fn new(address: OriginAddress, host_header: &HostHeader) -> Self {
        let host = match host_header {
            HostHeader::Keep => None,
            HostHeader::Origin => HeaderValue::from_str(&address.authority()).ok(),
            HostHeader::Value(value) => HeaderValue::from_str(value).ok(),
        };
        Self(Arc::new(Inner { legs: Legs::new(address), host }))
    }

    /// What the origin says to `HEAD /`, if it speaks HTTP: a first look, before anybody else does.
    ///
    /// # Errors
    /// [`OriginError`].
    pub async fn look(&self) -> Result<Option<StatusCode>, OriginError> {
        if let OriginAddress::Tcp { host, port } = self.0.legs.address() {
            let connected = tcp::connect(host, *port).await;
            return connected.map(|_| None).map_err(OriginError::Connect);
        }
        let mut request = Request::new(Upload::new(Body::empty()));
        *request.method_mut() = Method::HEAD;
        let host = HeaderValue::from_str(&self.0.legs.address().authority());
        request.headers_mut().insert(HOST, host.map_err(|_| OriginError::Request)?);
        Ok(Some(self.0.legs.ask(request).await?.response.status()))
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<OriginBody>, OriginError> {
        if let OriginAddress::Tcp { host, port } = self.0.legs.address() {
            return tcp::answer(host, *port, request).await;
        }
        let (mut head, body) = request.into_parts();
        let host = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let host = self.0.host.clone().or(host).ok_or(OriginError::Request)?;
        let mut target = uri::Parts::default();
        let path = head.uri.into_parts().path_and_query;
        target.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(target).map_err(|_| OriginError::Request)?;
        head.version = Version::HTTP_11;
        head.headers.insert(HOST, host);
        if head.headers.contains_key(TE) {
            // RFC 9110 §10.1.4: TE concerns one hop, and so must say.
            head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        let (early, protocol) = (head.extensions.remove(), head.extensions.remove::<Protocol>());
        let body = Upload::new(body.with_length(declared_length(&head.headers)));
        let mut request = Request::from_parts(head, body);
        if let Some::<Early>(early) = early {
            hyper::ext::on_informational(&mut request, move |response| {
                early.send(response.status(), response.headers());
            });
        }
        if request.method() == Method::CONNECT {
            let protocol = protocol.ok_or(OriginError::Request)?;
            return upgrade::ask(&self.0.legs, request, protocol.as_str()).await;
        }
        let Answer { response, leg } = self.0.legs.ask(request).await?;
        let mut response = response.map(|body| OriginBody(Kind::Http { body, leg: Some(leg) }));
        frame_once(response.headers_mut());
        Ok(response)
    }
}

/// A length that frames nothing here would contradict the DATA frames (RFC 9112 §6.3).
fn frame_once(fields: &mut HeaderMap) {
    let several = fields.get_all(CONTENT_LENGTH).iter().count() > 1;
    if several || fields.contains_key(TRANSFER_ENCODING) {
        fields.remove(CONTENT_LENGTH);
    }
}

fn declared_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Service<Request<Body>> for Origin {
    type Response = Response<OriginBody>;
    type Error = OriginError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, OriginError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OriginError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let origin = self.clone();
        Box::pin(async move {
            origin.answer(request).await.or_else(|err| {
                debug!("origin: {err}");
                let text = format!("{} {}\n", err.status().as_u16(), err.explanation());
                let mut response = Response::new(OriginBody(Kind::Page(Some(text.into()))));
                *response.status_mut() = err.status();
                if matches!(err, OriginError::NotHttp) {
                    // RFC 9110 §15.5.6.
                    response.headers_mut().insert(ALLOW, HeaderValue::from_static("CONNECT"));
                }
                Ok(response)
            })
        })
    }
}

/// A response's body on its way from the origin. Dropping it closes the origin's connection, unless the
/// response was whole.
#[derive(Debug)]
pub struct OriginBody(Kind);

#[derive(Debug)]
enum Kind {
    Http { body: hyper::body::Incoming, leg: Option<leg::Leg> },
    Upgraded(Spliced),
    Tcp(tcp::Download),
    Page(Option<Bytes>),
}

/// Why a response's body broke off.
#[derive(Debug)]
pub enum OriginBodyError {
    /// HTTP: truncated, malformed, reset.
    Http(hyper::Error),
    /// After an upgrade, or without HTTP.
    Io(io::Error),
}

impl fmt::Display for OriginBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(err) => write!(f, "the origin's response broke off: {err}"),
            Self::Io(err) => write!(f, "the connection to the origin broke: {err}"),
        }
    }
}

impl std::error::Error for OriginBodyError {}

impl HttpBody for OriginBody {
    type Data = Bytes;
    type Error = OriginBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginBodyError>>> {
        match &mut self.0 {
            Kind::Http { body, leg } => {
                let frame = match leg {
                    Some(leg) => leg.poll_frame(body, cx),
                    None => Pin::new(&mut *body).poll_frame(cx),
                };
                let frame = frame.map_err(OriginBodyError::Http);
                if matches!(frame, Poll::Ready(None)) || body.is_end_stream() {
                    // Whole: the connection may serve the next request.
                    if let Some(leg) = leg.take() {
                        leg.keep();
                    }
                }
                frame
            }
            Kind::Upgraded(spliced) => spliced.poll_read(cx).map_err(OriginBodyError::Io),
            Kind::Tcp(download) => download.poll_read(cx).map_err(OriginBodyError::Io),
            Kind::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http { body, .. } => body.is_end_stream(),
            Kind::Upgraded(_) | Kind::Tcp(_) => false,
            Kind::Page(page) => page.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http { body, .. } => body.size_hint(),
            Kind::Upgraded(_) | Kind::Tcp(_) => SizeHint::new(),
            Kind::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl Drop for OriginBody {
    fn drop(&mut self) {
        // A response without a body is never polled.
        if let Kind::Http { body, leg } = &mut self.0
            && body.is_end_stream()
            && let Some(leg) = leg.take()
        {
            leg.keep();
        }
    }
}
