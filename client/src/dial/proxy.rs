//! The leg through a proxy: CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928).
//!
//! Names are resolved at the proxy. Errors say which leg failed, and never a password.

use std::io;
use std::sync::Arc;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_socks::tcp::Socks5Stream;

use crate::config::{Gateway, Kind, Proxy};

use super::Stream;
use super::error::Verdict;
use super::upgrade::ask;

/// Has `proxy` connect `io` to `gateway`. `tls` is for an https:// proxy. Cancel safe: the connection is closed.
pub(super) async fn pass(
    proxy: &Proxy,
    io: Stream,
    gateway: &Gateway,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream, ProxyError> {
    match proxy.kind {
        Kind::Http => connect(proxy, io, gateway).await,
        Kind::Https => {
            let io = encrypt(proxy, io, tls).await.map_err(ProxyError::Tls)?;
            connect(proxy, io, gateway).await
        }
        Kind::Socks => socks(proxy, io, gateway).await,
    }
}

async fn encrypt(proxy: &Proxy, io: Stream, tls: Option<&Arc<ClientConfig>>) -> io::Result<Stream> {
    let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
    let name = ServerName::try_from(proxy.address.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, io).await?))
}

async fn connect(proxy: &Proxy, io: Stream, gateway: &Gateway) -> Result<Stream, ProxyError> {
    let target = gateway.to_string();
    let request = Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    let mut request = request.body(()).map_err(|_| ProxyError::Name)?;
    if let Some(basic) = &proxy.basic {
        request.headers_mut().insert(PROXY_AUTHORIZATION, basic.clone());
    }
    let answer = ask(io, request).await.map_err(ProxyError::Broken)?;
    answer.stream.ok_or(ProxyError::Status(answer.head.status))
}

async fn socks(proxy: &Proxy, io: Stream, gateway: &Gateway) -> Result<Stream, ProxyError> {
    let target = (gateway.host.as_str(), gateway.port);
    let passed = match &proxy.login {
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(io, target, user, password).await
        }
        None => Socks5Stream::connect_with_socket(io, target).await,
    };
    // The library doesn't read beyond its messages.
    Ok(Box::new(passed.map_err(ProxyError::Socks)?.into_inner()) as Stream)
}

/// The end of a sentence that begins with the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("can't be reached: {0}")]
    Unreachable(io::Error),
    #[error("broke off TLS: {0}")]
    Tls(io::Error),
    #[error("{}", answered(*.0))]
    Status(StatusCode),
    /// It isn't an HTTP proxy, or it closed.
    #[error("gave no proper answer: {0}")]
    Broken(io::Error),
    #[error("refuses: {0}")]
    Socks(tokio_socks::Error),
    #[error("gave no answer in time")]
    Late,
    #[error("can't be asked for such a name")]
    Name,
}

fn answered(status: StatusCode) -> String {
    match status.as_u16() {
        407 => "refuses (407): it wants a user and a password, or others; write them like `http://user:password@proxy:3128`".into(),
        code @ 500..=599 => format!("can't reach the gateway ({code})"),
        code => format!("refuses ({code})"),
    }
}

impl ProxyError {
    pub(super) fn verdict(&self) -> Verdict {
        use tokio_socks::Error as Socks;
        match self {
            // A proxy reports an absent gateway by one of these.
            Self::Unreachable(_)
            | Self::Socks(
                Socks::GeneralSocksServerFailure
                | Socks::NetworkUnreachable
                | Socks::HostUnreachable
                | Socks::ConnectionRefused
                | Socks::TtlExpired,
            ) => Verdict::Absent,
            Self::Status(status) if status.is_server_error() => Verdict::Absent,
            Self::Socks(Socks::Io(_)) | Self::Tls(_) | Self::Broken(_) | Self::Late => {
                Verdict::Failed
            }
            Self::Status(_) | Self::Socks(_) | Self::Name => Verdict::FinalAtFirst,
        }
    }
}
