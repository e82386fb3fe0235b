//! The way through a proxy: CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928).
//!
//! Names are resolved at the proxy. Errors say which part of it failed, and never a password.

use std::io;
use std::sync::Arc;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Method, Request};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_socks::Error;
use tokio_socks::tcp::Socks5Stream;

use crate::config::{Gateway, Kind, Proxy};

use super::error::Verdict;
use super::{Stream, ask};

/// Has `proxy` connect `io` to `gateway`. `tls` is for an https:// proxy. Cancel safe: the connection is closed.
pub(super) async fn pass(
    proxy: &Proxy,
    io: Stream,
    gateway: &Gateway,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Stream, Refused> {
    let target = (gateway.host.as_str(), gateway.port);
    match (proxy.kind, &proxy.login) {
        (Kind::Http, _) => connect(proxy, io, gateway).await,
        (Kind::Https, _) => {
            let name = ServerName::try_from(proxy.address.host.clone()).map_err(io::Error::other);
            let encrypted = async {
                let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
                TlsConnector::from(tls.clone()).connect(name?, io).await
            };
            let broken = |err| (format!("broke off TLS: {err}"), Verdict::Failed);
            let io = Box::new(encrypted.await.map_err(broken)?);
            connect(proxy, io, gateway).await
        }
        // The library doesn't read beyond its messages.
        (Kind::Socks, Some((user, password))) => {
            let passed =
                Socks5Stream::connect_with_password_and_socket(io, target, user, password).await;
            passed.map(Socks5Stream::into_inner).map_err(refusal)
        }
        (Kind::Socks, None) => {
            let passed = Socks5Stream::connect_with_socket(io, target).await;
            passed.map(Socks5Stream::into_inner).map_err(refusal)
        }
    }
}

async fn connect(proxy: &Proxy, io: Stream, gateway: &Gateway) -> Result<Stream, Refused> {
    let target = gateway.to_string();
    let request = Request::builder().method(Method::CONNECT).uri(&target).header(HOST, &target);
    let unnamed = |_| ("can't be asked for such a name".to_owned(), Verdict::FinalAtFirst);
    let mut request = request.body(()).map_err(unnamed)?;
    if let Some(basic) = &proxy.basic {
        request.headers_mut().insert(PROXY_AUTHORIZATION, basic.clone());
    }
    // It isn't an HTTP proxy, or it closed.
    let broken = |err| (format!("gave no proper answer: {err}"), Verdict::Failed);
    let (head, opened) = ask::h1(io, request).await.map_err(broken)?;
    opened.map_err(|_| match head.status.as_u16() {
        407 => ("refuses (407): it wants a user and a password, or others; write them like `http://user:password@proxy:3128`".into(), Verdict::FinalAtFirst),
        code @ 500..=599 => (format!("can't reach the gateway ({code})"), Verdict::Absent),
        code => (format!("refuses ({code})"), Verdict::FinalAtFirst),
    })
}

/// The end of a sentence that begins with the proxy, and what to do.
pub(super) type Refused = (String, Verdict);

fn refusal(err: Error) -> Refused {
    let verdict = match err {
        // A proxy reports an absent gateway by one of these.
        Error::GeneralSocksServerFailure
        | Error::NetworkUnreachable
        | Error::HostUnreachable
        | Error::ConnectionRefused
        | Error::TtlExpired => Verdict::Absent,
        Error::Io(_) => Verdict::Failed,
        _ => Verdict::FinalAtFirst,
    };
    (format!("refuses: {err}"), verdict)
}
