//! The leg through a proxy: CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928).
//!
//! Names are resolved at the proxy. Errors say which leg failed, and never a password.

use std::fmt;
use std::io;
use std::sync::Arc;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, StatusCode, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_socks::tcp::Socks5Stream;

use crate::config::{Gateway, Kind, Proxy};

use super::error::Verdict;
use super::upgrade::ask;
use super::{DialError, Stream};

/// Has `proxy`, to which `io` leads, connect to `gateway`. Cancel safe: the connection is closed.
///
/// `tls` is for a proxy that is itself behind TLS.
pub(super) async fn pass(
    proxy: &Proxy,
    io: Stream,
    gateway: &Gateway,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream, ProxyError> {
    let passed = match proxy.kind {
        Kind::Http => connect(proxy, io, gateway).await,
        Kind::Https => match encrypt(proxy, io, tls).await {
            Ok(io) => connect(proxy, io, gateway).await,
            Err(err) => Err(Fault::Tls(err)),
        },
        Kind::Socks => socks(proxy, io, gateway).await,
    };
    passed.map_err(|fault| ProxyError::new(proxy, fault))
}

async fn encrypt(
    proxy: &Proxy,
    io: Stream,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream, io::Error> {
    let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
    let name = ServerName::try_from(proxy.address.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, io).await?))
}

async fn connect(proxy: &Proxy, io: Stream, gateway: &Gateway) -> Result<Stream, Fault> {
    let target = gateway.to_string();
    let mut request = Request::new(());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = Uri::try_from(&target).map_err(|_| Fault::Name)?;
    let host = HeaderValue::from_str(&target).map_err(|_| Fault::Name)?;
    request.headers_mut().insert(HOST, host);
    if let Some(basic) = &proxy.basic {
        request.headers_mut().insert(PROXY_AUTHORIZATION, basic.clone());
    }
    let answer = ask(io, request).await.map_err(|err| Fault::Broken(err.to_string()))?;
    answer.stream.ok_or(Fault::Status(answer.head.status))
}

async fn socks(proxy: &Proxy, io: Stream, gateway: &Gateway) -> Result<Stream, Fault> {
    let target = (gateway.host.as_str(), gateway.port);
    let passed = match &proxy.login {
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(io, target, user, password).await
        }
        None => Socks5Stream::connect_with_socket(io, target).await,
    };
    // The library reads its messages and not a byte more.
    Ok(Box::new(passed.map_err(Fault::Socks)?.into_inner()) as Stream)
}

/// Why there is no way through a proxy.
#[derive(Debug)]
pub struct ProxyError {
    /// As it is displayed.
    proxy: String,
    fault: Fault,
}

/// Whose fault it is.
#[derive(Debug)]
pub(super) enum Fault {
    /// The way to the proxy.
    Unreachable(io::Error),
    /// TLS with the proxy.
    Tls(io::Error),
    /// The proxy answered with that status.
    Status(StatusCode),
    /// It isn't an HTTP proxy, or it closed.
    Broken(String),
    /// By SOCKS5.
    Socks(tokio_socks::Error),
    /// No answer in time.
    Late,
    /// The gateway's name can't stand in a request.
    Name,
}

impl ProxyError {
    pub(super) fn new(proxy: &Proxy, fault: Fault) -> Self {
        Self { proxy: proxy.to_string(), fault }
    }

    pub(super) fn verdict(&self) -> Verdict {
        use tokio_socks::Error as Socks;
        match &self.fault {
            // The gateway may be away, which the proxy tells in one of these ways.
            Fault::Unreachable(_) => Verdict::Absent,
            Fault::Status(status) if status.is_server_error() => Verdict::Absent,
            Fault::Socks(
                Socks::GeneralSocksServerFailure
                | Socks::NetworkUnreachable
                | Socks::HostUnreachable
                | Socks::ConnectionRefused
                | Socks::TtlExpired,
            ) => Verdict::Absent,
            Fault::Socks(Socks::Io(_)) | Fault::Tls(_) | Fault::Broken(_) | Fault::Late => {
                Verdict::Failed
            }
            Fault::Status(_) | Fault::Socks(_) | Fault::Name => Verdict::FinalAtFirst,
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = &self.proxy;
        match &self.fault {
            Fault::Unreachable(err) => write!(f, "the proxy {proxy} can't be reached: {err}"),
            Fault::Tls(err) => write!(f, "TLS with the proxy {proxy} broke off: {err}"),
            Fault::Status(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => write!(
                f,
                "the proxy {proxy} refuses (407): it wants a user and a password, or others; write them like `http://user:password@proxy:3128`"
            ),
            Fault::Status(status) if status.is_server_error() => {
                write!(f, "the proxy {proxy} can't reach the gateway ({})", status.as_u16())
            }
            Fault::Status(status) => {
                write!(f, "the proxy {proxy} refuses ({})", status.as_u16())
            }
            Fault::Broken(err) => write!(f, "the proxy {proxy} gave no proper answer: {err}"),
            Fault::Socks(err) => write!(f, "the proxy {proxy} refuses: {err}"),
            Fault::Late => write!(f, "the proxy {proxy} gave no answer in time"),
            Fault::Name => write!(f, "the proxy {proxy} can't be asked for such a name"),
        }
    }
}

impl std::error::Error for ProxyError {}

impl From<ProxyError> for DialError {
    fn from(err: ProxyError) -> Self {
        Self::Proxy(err)
    }
}
