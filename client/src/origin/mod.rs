//! Answers from a server near the client: one stream becomes one HTTP/1.1 request, or one TCP connection.
//!
//! Invariant: the address that is dialled comes from the command line alone; nothing that a request
//! says can change it.

mod capsule;
mod h1;
mod leg;
mod tcp;
#[cfg(test)]
mod tests;
mod upgrade;
mod urls;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use log::debug;
use ptth_link::body::Body;
use ptth_link::forwarded::PREFIX;
use tower_service::Service;

use crate::config::{HostHeader, OriginAddress};
use crate::serve::{Early, Own};

use h1::Sending;
use leg::{Leg, Legs};

pub use h1::H1Error;
use upgrade::Spliced;
use urls::{Asked, Urls};

/// The service that asks an origin. One for each runtime, whose connections it keeps.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    legs: Legs,
    host: Option<HeaderValue>,
    asked: Asked,
}

/// Why the origin gave no response; each becomes a status code.
#[derive(Debug)]
pub enum OriginError {
    /// It isn't listening, or not reachable.
    Connect(io::Error),
    /// It broke off before its response, or what it sent is no response.
    Response(H1Error),
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
            Self::Response(err) => write!(f, "no valid response: {err}"),
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
        let secure = matches!(address, OriginAddress::Https { .. });
        let asked = Asked::new(secure, host.as_ref());
        Self(Arc::new(Inner { legs: Legs::new(address), host, asked }))
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
        let host = HeaderValue::from_str(&self.0.legs.address().authority());
        let host = host.map_err(|_| OriginError::Request)?;
        let request = Sending::new(&Method::HEAD, "/", &host, &HeaderMap::new(), Body::empty());
        Ok(Some(self.0.legs.ask(request, &Method::HEAD, None).await?.0.status()))
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<OriginBody>, OriginError> {
        if let OriginAddress::Tcp { host, port } = self.0.legs.address() {
            return tcp::answer(host, *port, request).await;
        }
        let (mut head, body) = request.into_parts();
        let host = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let host = self.0.host.clone().or(host).ok_or(OriginError::Request)?;
        if head.headers.contains_key(TE) {
            // RFC 9110 §10.1.4: TE concerns one hop, and so must say.
            head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        let prefix = head.headers.get(PREFIX).cloned();
        let urls = Urls::new(&head.uri, &self.0.asked, prefix.as_ref());
        urls.iter().for_each(|urls| urls.request(&mut head.headers));
        let mut response = if head.method == Method::CONNECT {
            upgrade::ask(&self.0.legs, head, &host, body).await?
        } else {
            let body = body.with_length(declared_length(&head.headers));
            let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
            let request = Sending::new(&head.method, target, &host, &head.headers, body);
            let early = head.extensions.get::<Early>();
            let (response, leg) = self.0.legs.ask(request, &head.method, early).await?;
            response.map(|()| OriginBody(Kind::Http(Some(leg))))
        };
        urls.iter().for_each(|urls| urls.response(response.headers_mut()));
        Ok(response)
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
                response.extensions_mut().insert(Own);
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
    Http(Option<Leg>),
    Upgraded(Spliced),
    Tcp(tcp::Download),
    Page(Option<Bytes>),
}

/// Why a response's body broke off.
#[derive(Debug)]
pub enum OriginBodyError {
    /// HTTP: truncated, malformed, reset.
    Http(H1Error),
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
            Kind::Http(leg) => {
                let Some(asked) = leg else { return Poll::Ready(None) };
                let frame = asked.poll_frame(cx).map_err(OriginBodyError::Http);
                // What isn't over keeps its connection: its end may be yet to be read.
                leg.take_if(|leg| leg.is_over()).into_iter().for_each(Leg::keep);
                frame
            }
            Kind::Upgraded(spliced) => spliced.poll_read(cx).map_err(OriginBodyError::Io),
            Kind::Tcp(download) => download.poll_read(cx).map_err(OriginBodyError::Io),
            Kind::Page(page) => Poll::Ready(page.take().map(|page| Ok(Frame::data(page)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http(leg) => leg.as_ref().is_none_or(Leg::is_whole),
            Kind::Upgraded(_) | Kind::Tcp(_) => false,
            Kind::Page(page) => page.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http(leg) => {
                let left = leg.as_ref().map_or(Some(0), Leg::left);
                left.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Kind::Upgraded(_) | Kind::Tcp(_) => SizeHint::new(),
            Kind::Page(page) => SizeHint::with_exact(page.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl Drop for OriginBody {
    fn drop(&mut self) {
        // A response without a body is never polled.
        if let Kind::Http(leg) = &mut self.0 {
            leg.take_if(|leg| leg.is_over()).into_iter().for_each(Leg::keep);
        }
    }
}
