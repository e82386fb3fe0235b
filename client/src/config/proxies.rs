//! Which proxy leads to a gateway, by the variables that every program knows.
//!
//! Invariant: nothing here prints a proxy's password.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::{Gateway, host_and_port};

/// The proxies of an environment: HTTPS_PROXY, else ALL_PROXY, but not for hosts in NO_PROXY.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Option<Arc<Matcher>>);

impl Proxies {
    /// Reads the values of the variables; an empty one counts as unset. `no` is a list, separated by
    /// commas, of hosts (with all below them), addresses, networks like `10.0.0.0/8`, or `*`.
    ///
    /// # Errors
    /// What is wrong with one of the first two.
    pub fn new(https: &str, all: &str, no: &str) -> Result<Self, &'static str> {
        for value in [https, all].into_iter().filter(|value| !value.is_empty()) {
            check(value)?;
        }
        if https.is_empty() && all.is_empty() {
            return Ok(Self::default());
        }
        let matcher = Matcher::builder().https(https).all(all).no(no).build();
        Ok(Self(Some(Arc::new(matcher))))
    }

    pub(crate) fn to(&self, gateway: &Gateway) -> Option<Proxy> {
        let uri: Uri = format!("https://{gateway}/").parse().ok()?;
        proxy(&self.0.as_ref()?.intercept(&uri)?).ok()
    }
}

/// One proxy. Displayed, it shows neither user nor password.
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    pub(crate) address: Gateway,
    /// For an HTTP proxy's Proxy-Authorization.
    pub(crate) basic: Option<HeaderValue>,
    /// For a SOCKS proxy (RFC 1929).
    pub(crate) login: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// CONNECT (RFC 9110 §9.3.6).
    Http,
    /// CONNECT, inside TLS.
    Https,
    /// SOCKS5 (RFC 1928).
    Socks,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks => "socks5",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// Whether the matcher would understand this value, which it drops without a word if it doesn't.
fn check(value: &str) -> Result<(), &'static str> {
    if value.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("socks4")) {
        return Err("SOCKS4 isn't spoken here, only SOCKS5");
    }
    let matcher = Matcher::builder().https(value).build();
    let probe = Uri::from_static("https://gateway.invalid/");
    let intercept = matcher.intercept(&probe).ok_or("it isn't a proxy's URL")?;
    proxy(&intercept).map(drop)
}

fn proxy(intercept: &Intercept) -> Result<Proxy, &'static str> {
    let uri = intercept.uri();
    let (kind, port) = match uri.scheme_str() {
        Some("http") => (Kind::Http, 80),
        Some("https") => (Kind::Https, 443),
        // Both have the proxy resolve names: the client may not be able to.
        Some("socks5" | "socks5h") => (Kind::Socks, 1080),
        _ => return Err("its scheme is none of http, https, socks5 and socks5h"),
    };
    let authority = uri.authority().ok_or("it names no host")?;
    let (host, given) = host_and_port(authority.as_str())?;
    let address = Gateway { host, port: given.unwrap_or(port) };
    let login = intercept.raw_auth().map(|(user, pass)| (user.to_owned(), pass.to_owned()));
    if let Some((user, pass)) = &login {
        // RFC 1929 §2 gives each a length of one byte, from 1.
        let fits = |text: &str| (1..=255).contains(&text.len());
        if !fits(user) || !fits(pass) {
            return Err("SOCKS5 takes a user and a password of 1 to 255 bytes each");
        }
    }
    Ok(Proxy { kind, address, basic: intercept.basic_auth().cloned(), login })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(text: &str) -> Gateway {
        Gateway::parse(text).unwrap()
    }

    #[test]
    fn a_proxy_is_chosen_as_every_program_does() {
        let seen = |https, all, no, to: &str| {
            let proxies = Proxies::new(https, all, no).unwrap();
            proxies.to(&gateway(to)).map_or("-".to_owned(), |proxy| proxy.to_string())
        };
        let table = [
            ("", "", "", "example.com", "-"),
            ("http://p:3128", "", "", "example.com", "http://p:3128"),
            ("p:3128", "", "", "example.com", "http://p:3128"),
            ("http://p", "", "", "example.com", "http://p:80"),
            ("https://p/", "", "", "example.com", "https://p:443"),
            ("", "socks5h://p", "", "example.com", "socks5://p:1080"),
            ("", "socks5://[::1]:9", "", "example.com", "socks5://[::1]:9"),
            ("http://p:1", "socks5://q:2", "", "example.com", "http://p:1"),
            ("http://p:1", "", "example.com", "example.com:8443", "-"),
            ("http://p:1", "", "example.com", "www.Example.com", "-"),
            ("http://p:1", "", ".example.com", "www.example.com", "-"),
            ("http://p:1", "", "example.com", "notexample.com", "http://p:1"),
            ("http://p:1", "", " a.b , 10.0.0.0/8", "10.1.2.3", "-"),
            ("http://p:1", "", "::1", "[::1]:8443", "-"),
            ("http://p:1", "", "10.0.0.0/8", "11.1.2.3", "http://p:1"),
            ("http://p:1", "", "*", "example.com", "-"),
        ];
        for (https, all, no, to, expected) in table {
            assert_eq!(seen(https, all, no, to), expected, "{https} {all} {no} {to}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_said_to_be_none_instead_of_being_ignored() {
        for value in ["http://", "ftp://p", "socks4://p", "p p", "socks5://u@p"] {
            assert!(Proxies::new(value, "", "").is_err(), "{value}");
            assert!(Proxies::new("", value, "").is_err(), "{value}");
        }
    }

    #[test]
    fn a_proxys_password_does_not_show() {
        for url in ["http://u:c2VjcmV0@p:1", "socks5://u:c2VjcmV0@p:1"] {
            let proxies = Proxies::new(url, "", "").unwrap();
            let proxy = proxies.to(&gateway("example.com")).unwrap();
            let shown = format!("{proxies:?} {proxy} {:?}", proxy.basic);
            assert!(!shown.contains("c2VjcmV0") && !shown.contains("dTpj"), "{shown}");
            assert!(proxy.basic.is_some() || proxy.login.is_some());
        }
    }
}
