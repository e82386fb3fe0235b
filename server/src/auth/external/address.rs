//! Where an authorizer is: its URL, taken apart.

use std::fmt;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use ptth_link::tcp::is_near;
use rustls::pki_types::ServerName;

use crate::auth::secret::LoadError;

pub(super) struct Address {
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
    pub(super) fn parse(url: &[u8]) -> Result<Self, LoadError> {
        let uri = Uri::try_from(url).map_err(|_| wrong())?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        // A user and password there would be a secret that requests don't carry.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        // `http` takes what is no number for no port.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(_) => authority.port_u16().ok_or_else(wrong)?,
            None => return Err(wrong()),
        };
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        let target = uri.path_and_query().cloned();
        Ok(Self {
            tls,
            port,
            name,
            host: host.to_owned(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")).into(),
        })
    }

    /// Whether it is no name, whose address only the dial shows, but a public address.
    pub(super) fn is_surely_public(&self) -> bool {
        self.host.parse().is_ok_and(|address| !is_near(address))
    }
}

/// The URL isn't quoted: it may hold a secret.
fn wrong() -> LoadError {
    LoadError::settings(
        "`external`: `url` must be like `https://auth.example.com/path`, without user or password",
    )
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let host = &self.host;
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{host}{close}:{}", self.port)
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
