//! Where an authorizer is: its URL, taken apart.

use std::fmt;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use ptth_client::config::OriginAddress;
use ptth_link::tcp::is_near;
use rustls::pki_types::ServerName;

use crate::auth::secret::LoadError;

pub(super) struct Address {
    origin: OriginAddress,
    pub(super) tls: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What its certificate is checked for.
    pub(super) name: ServerName<'static>,
    /// For Host.
    pub(super) authority: HeaderValue,
    /// Path and query, which may hold a secret.
    pub(super) target: Uri,
}

impl Address {
    /// The error doesn't quote the URL: it may hold a secret.
    pub(super) fn parse(url: &[u8]) -> Result<Self, LoadError> {
        let why = "`external`: `url` must be like `https://auth.example.com/path`, without user or password";
        Self::read(url).ok_or_else(|| LoadError::settings(why))
    }

    fn read(url: &[u8]) -> Option<Self> {
        let uri = Uri::try_from(url).ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
        let origin = OriginAddress::parse(&format!("{scheme}://{authority}")).ok()?;
        let (tls, host, port) = match &origin {
            OriginAddress::Https { host, port } => (true, host.clone(), *port),
            OriginAddress::Http { host, port } => (false, host.clone(), *port),
            _ => return None,
        };
        let name = ServerName::try_from(host.clone()).ok()?;
        let authority = HeaderValue::from_str(authority).ok()?;
        let target = uri.path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        Some(Self { origin, tls, host, port, name, authority, target })
    }

    /// Whether it is no name, whose address only the dial shows, but a public address.
    pub(super) fn is_surely_public(&self) -> bool {
        self.host.parse().is_ok_and(|address| !is_near(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let table = [
            ("https://a.example", "https://a.example:443", "a.example", "/"),
            ("http://a.example/x?key=1", "http://a.example:80", "a.example", "/x?key=1"),
            ("HTTPS://a.example:8443/", "https://a.example:8443", "a.example:8443", "/"),
            ("http://[::1]:80/x", "http://[::1]:80", "[::1]:80", "/x"),
            ("https://127.0.0.1?x", "https://127.0.0.1:443", "127.0.0.1", "/?x"),
            ("https://a.example/x#y", "https://a.example:443", "a.example", "/x"),
        ];
        for (url, shown, authority, target) in table {
            let address = Address::parse(url.as_bytes()).unwrap();
            assert_eq!(format!("{address:?}"), shown, "{url}");
            assert_eq!(address.authority, authority, "{url}");
            assert_eq!(address.target.to_string(), target, "{url}");
        }
        for bad in [
            "",
            "/",
            "a.example",
            "a.example/x",
            "ftp://a.example",
            "//a.example",
            "https://",
            "https:///x",
            "https://:443/",
            "https://a.example:",
            "https://a.example:x",
            "https://a.example:65536",
            "https://user@a.example",
            "https://u:p@a.example",
            "https://a b",
            "https://a.example/ x",
            "https://*/",
            "https://[::g]/",
            "https://é/",
        ] {
            assert!(Address::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
