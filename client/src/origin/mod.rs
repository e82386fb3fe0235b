//! The origin as a service: one stream becomes one HTTP/1.1 request, or one TCP connection.
//!
//! Invariant: the address that is dialled comes from the command line alone, whatever a request says.

mod capsule;
mod connections;
mod h1;
mod tcp;
#[cfg(test)]
mod tests;
mod upgrade;
mod urls;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use log::warn;
use ptth_link::body::{Body, BodyError};
use ptth_link::failure::Failure;
use ptth_link::forwarded::PREFIX;
use ptth_link::headers;
use tower_service::Service;

use crate::config::{OriginAddress, OriginOptions};
use crate::serve::{Early, Own};
use crate::tls::TlsError;

use connections::{Connections, Leased, Whereabouts};
use h1::Sending;

use tcp::Download;
use urls::Urls;

/// The service that asks an origin. Each runtime has one of its own, since it keeps connections.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Connections>);

#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error("can't connect: {0}")]
    Connect(io::Error),
    #[error(
        "its certificate can't be trusted ({0}); --origin-ca says by which authority to know it, --origin-name which name it must have"
    )]
    Untrusted(rustls::Error),
    /// It speaks another protocol; with advice.
    #[error("{0}")]
    Foreign(&'static str),
    /// The connection broke before the end of the response.
    #[error("no valid response: {0}")]
    Broken(#[from] io::Error),
    #[error("no valid response: malformed: {0}")]
    Malformed(&'static str),
    /// The request's body broke off.
    #[error("no valid response: {0}")]
    Body(#[from] BodyError),
    #[error("no valid response: the request's body isn't as long as it said")]
    Length,
    #[error("upgrade: {0}")]
    Upgrade(&'static str),
    #[error("the request can't be expressed in HTTP/1.1")]
    Request,
    #[error("a request for a service that is reached by CONNECT alone")]
    NotHttp,
    #[error("a WebSocket for a service that isn't HTTP")]
    NoWebSocket,
}

impl OriginError {
    fn failure(&self) -> Failure {
        match self {
            Self::Connect(err) if err.kind() == io::ErrorKind::TimedOut => Failure::OriginSilent,
            Self::Connect(_) => Failure::OriginRefused,
            Self::Untrusted(_) => Failure::OriginUntrusted,
            Self::Foreign(_) | Self::Malformed(_) => Failure::OriginProtocol,
            Self::Broken(_) => Failure::OriginBroken,
            Self::Body(_) | Self::Length => Failure::Body,
            Self::Upgrade(_) => Failure::OriginUpgrade,
            Self::Request => Failure::OriginRequest,
            Self::NotHttp => Failure::OriginTcp,
            Self::NoWebSocket => Failure::OriginNoWebSocket,
        }
    }
}

impl Origin {
    /// Reads certificates, so it blocks.
    pub fn new(address: OriginAddress, options: &OriginOptions) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Connections::new(Arc::new(Whereabouts::new(address, options)?)))))
    }

    /// The same origin, with connections of its own.
    pub fn apart(&self) -> Self {
        Self(Arc::new(Connections::new(self.0.to.clone())))
    }

    /// The status of `HEAD /`, if the origin speaks HTTP.
    pub async fn look(&self) -> Result<Option<StatusCode>, OriginError> {
        if let OriginAddress::Tcp { host, port } = &self.0.to.address {
            let connected = tcp::connect(host, *port).await;
            return connected.map(|_| None).map_err(OriginError::Connect);
        }
        let host = HeaderValue::from_str(&self.0.to.address.authority());
        let host = host.map_err(|_| OriginError::Request)?;
        let request = Sending::new(&Method::HEAD, "/", &host, &HeaderMap::new(), Body::empty());
        // Apart, so that no connection stays idle.
        let answer = self.apart().0.ask(request, &Method::HEAD, None).await;
        let unsure = match &answer {
            Ok((response, _)) => response.status() == StatusCode::BAD_REQUEST,
            Err(err) => matches!(err, OriginError::Broken(_) | OriginError::Malformed(_)),
        };
        // On a TLS port servers answer HTTP with 400, or not at all.
        if unsure && self.0.to.speaks_tls().await {
            return Err(OriginError::Foreign(h1::TLS));
        }
        Ok(Some(answer?.0.status()))
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<OriginBody>, OriginError> {
        if let OriginAddress::Tcp { host, port } = &self.0.to.address {
            return tcp::answer(host, *port, request).await;
        }
        let (mut head, body) = request.into_parts();
        let to = &*self.0.to;
        let host = head.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let host = to.host.clone().or(host).ok_or(OriginError::Request)?;
        if head.headers.contains_key(TE) {
            // RFC 9110 §10.1.4: TE is hop by hop.
            head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        let prefix = head.headers.get(PREFIX).cloned();
        if to.unforwarded {
            headers::unforward(&mut head.headers);
        }
        let urls = Urls::new(&head.uri, to.tls.is_some(), to.host.as_ref(), prefix.as_ref());
        urls.iter().for_each(|urls| urls.request(&mut head.headers));
        let (body, upgrade) = if head.method == Method::CONNECT {
            (Body::empty(), Some((upgrade::request(&mut head)?, body)))
        } else {
            let length = head.headers.get(CONTENT_LENGTH);
            (body.with_length(length.and_then(|it| it.to_str().ok()?.parse().ok())), None)
        };
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let request = Sending::new(&head.method, target, &host, &head.headers, body);
        let early = head.extensions.get::<Early>();
        let (response, leased) = self.0.ask(request, &head.method, early).await?;
        let status = response.status();
        if let Some(advice) = to.advice(status) {
            warn!("origin: {}: its first response is {}; {advice}", to.address, status.as_u16());
        }
        let mut response = match upgrade {
            Some((key, outgoing)) => upgrade::response(response, leased, outgoing, key.as_deref())?,
            None => response.map(|()| OriginBody::Http(Some(leased))),
        };
        urls.iter().for_each(|urls| urls.response(response.headers_mut()));
        Ok(response)
    }
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
                let mut response = Response::new(OriginBody::Http(None));
                let (failure, why) = (err.failure(), err.to_string());
                let failed = [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT];
                if failed.contains(&failure.row().status) && origin.0.to.complaints.is_due(&why) {
                    warn!("origin: {}: {why}", origin.0.to.address);
                }
                response.extensions_mut().insert(Own { failure, why });
                Ok(response)
            })
        })
    }
}

/// A response's body on its way from the origin.
#[derive(Debug)]
pub enum OriginBody {
    /// `None`: it has ended.
    Http(Option<Leased>),
    /// Without HTTP.
    Raw(Download),
}

impl HttpBody for OriginBody {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        match &mut *self {
            Self::Http(leased) => {
                let Some(asked) = leased else { return Poll::Ready(None) };
                let frame = asked.connection.poll_frame(cx);
                // Another exchange may have the connection before this body is dropped.
                leased.take_if(|leased| leased.connection.is_reusable());
                frame
            }
            Self::Raw(download) => download.poll_read(cx).map_err(OriginError::Broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http(leased) => leased.as_ref().is_none_or(|leased| leased.connection.is_over()),
            Self::Raw(_) => false,
        }
    }
}
