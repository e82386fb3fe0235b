//! Addresses as users write them: the gateway's and the origin's.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use ptth_link::cli::quotable;
use ptth_link::settings::Mistake;
use ptth_link::token;

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Gateway {
    /// A DNS name in lower case, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

impl Gateway {
    /// Reads `example.com`, `example.com:8443`, `[::1]:8443`, `::1`, or an `https://` URL of a
    /// gateway, as a browser shows it.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        match Self::parse_either(text)? {
            (gateway, false) => Ok(gateway),
            (_, true) => {
                Err(wrong(GATEWAY, text, "it speaks TLS, so only https:// can stand there"))
            }
        }
    }

    /// The same, or the `http://` URL of one without TLS, which is told.
    pub fn parse_either(text: &str) -> Result<(Self, bool), Mistake> {
        let text = text.trim();
        let error = |why| wrong(GATEWAY, text, why);
        let (rest, plain) = match scheme(text) {
            None => (text, false),
            Some(("https", rest)) => (rest, false),
            Some(("http", rest)) => (rest, true),
            Some(_) => return Err(error("only https:// or http:// can stand there")),
        };
        let authority = bare_authority(rest).map_err(error)?;
        let (host, port) = host_and_port(authority).map_err(error)?;
        Ok((Self { host, port: port.unwrap_or(if plain { 80 } else { 443 }) }, plain))
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, Some(self.port)))
    }
}

/// The service that answers the requests: the built-in demo, HTTP/1.1 over TCP, TLS or a Unix domain socket, or no HTTP
/// but the bytes of a CONNECT as they are. It comes from the command line alone; no request can change it.
///
/// A `host` is a name in lower case, or an IP address without brackets.
#[doc(hidden)]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OriginAddress {
    Demo,
    Http { host: String, port: u16 },
    Https { host: String, port: u16 },
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl OriginAddress {
    /// Reads `8080`, `host:port`, `http://host[:port]`, `https://host[:port]`, `tcp://host:port` or
    /// `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let text = text.trim();
        let error = |why| wrong(ORIGIN, text, why);
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path`, as other programs write it, is the same file.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(error("after unix: there must be the path of a socket")),
                _ if cfg!(not(unix)) => Err(error("Unix sockets can't be used on this system")),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let split = |rest| host_and_port(bare_authority(rest)?);
        let number = text.strip_prefix(':').unwrap_or(text);
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let (scheme, parts) = match scheme(text) {
            None if is_number => ("", parse_port(number).map(|it| ("localhost".into(), Some(it)))),
            None => ("", split(text)),
            Some((scheme, rest)) => (scheme, split(rest)),
        };
        let (host, port) = parts.map_err(error)?;
        match (scheme, port) {
            ("", Some(port)) => Ok(Self::Http { host, port }),
            ("", None) => Err(error("the port is missing, like in localhost:8080")),
            ("http", port) => Ok(Self::Http { host, port: port.unwrap_or(80) }),
            ("https", port) => Ok(Self::Https { host, port: port.unwrap_or(443) }),
            ("tcp", Some(port)) => Ok(Self::Tcp { host, port }),
            ("tcp", None) => Err(error("the port is missing, like in tcp://localhost:22")),
            _ => Err(error("only http://, https://, tcp:// and unix: can stand there")),
        }
    }

    /// What a client of this origin puts into Host (RFC 9110 §7.2): without the scheme's own port.
    pub fn authority(&self) -> String {
        match self {
            Self::Demo | Self::Unix(_) => "localhost".to_owned(),
            Self::Http { host, port: 80 } | Self::Https { host, port: 443 } => {
                authority(host, None)
            }
            Self::Http { host, port } | Self::Https { host, port } | Self::Tcp { host, port } => {
                authority(host, Some(*port))
            }
        }
    }
}

impl fmt::Display for OriginAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("the built-in demo"),
            Self::Http { host, port } => write!(f, "http://{}", authority(host, Some(*port))),
            Self::Https { host, port } => write!(f, "https://{}", authority(host, Some(*port))),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}", authority(host, Some(*port))),
        }
    }
}

/// How an origin is asked.
#[doc(hidden)]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OriginOptions {
    pub host_header: HostHeader,
    /// Tell it nothing of the visitor: neither `X-Forwarded-*` nor its kin.
    pub unforwarded: bool,
    /// Of an https:// origin: the PEM file with the certificates to know it by, in place of the system's.
    pub ca: Option<PathBuf>,
    /// The name that its certificate is checked for, in place of the address's own.
    pub name: Option<ServerName<'static>>,
}

/// The Host that the origin sees. Development servers often know only their own.
#[doc(hidden)]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum HostHeader {
    /// The visitor's.
    #[default]
    Keep,
    /// [`OriginAddress::authority`].
    Origin,
    Value(String),
}

impl HostHeader {
    /// Reads `keep`, `origin` or a host with or without a port.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        match text.trim() {
            // Hosts know no case, so a host of that name could be written in none.
            word if word.eq_ignore_ascii_case("keep") => Ok(Self::Keep),
            word if word.eq_ignore_ascii_case("origin") => Ok(Self::Origin),
            value => match host_and_port(value) {
                Ok((host, port)) => Ok(Self::Value(authority(&host, port))),
                Err(why) => Err(wrong(HOST_HEADER, value, why)),
            },
        }
    }
}

/// The scheme in lower case and what follows its `://`, if there is one.
fn scheme(text: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let known =
        ["http", "https", "tcp"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known));
    Some((known.unwrap_or("another"), rest))
}

/// The authority of a URL that has nothing else, but for a bare `/` as browsers add it.
fn bare_authority(rest: &str) -> Result<&str, &'static str> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    match authority.find(['/', '?', '#', '@']).map(|at| authority.as_bytes().get(at)) {
        None => Ok(authority),
        Some(Some(b'@')) => Err("a user name or password can't stand there"),
        Some(_) => Err("a path or query can't stand there; requests keep their own"),
    }
}

/// Takes `host`, `host:port`, `[v6]:port`, `[v6]` or `v6` apart.
pub(crate) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    if let Ok(ip) = authority.parse::<Ipv6Addr>() {
        return Ok((ip.to_string(), None));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, _)) if authority.ends_with(']') && host.starts_with('[') => (authority, None),
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (authority, None),
    };
    if let Some(bracketed) = host.strip_prefix('[') {
        let ip = bracketed.strip_suffix(']').and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        let ip = ip.ok_or("what stands in brackets must be an IPv6 address")?;
        return Ok((ip.to_string(), port));
    }
    if host.is_empty() {
        return Err("the host is missing");
    }
    // Where the address ends and the port begins would be a guess (RFC 3986 §3.2.2).
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address that has a port stands in brackets, like in [::1]:8080");
    }
    // As a name it would be looked up, so it would go to every resolver on the way.
    let host = host.to_ascii_lowercase();
    if token::begins_like_one(&host) {
        return Err("that is a token; give it by the variable TOKEN or by --token-file");
    }
    if !host.is_ascii() {
        return Err("write a name in another alphabet in its xn--… form");
    }
    let well_formed = host.parse::<IpAddr>().is_ok() || ServerName::try_from(host.as_str()).is_ok();
    if well_formed {
        Ok((host, port))
    } else {
        Err("that is neither a host name nor an IP address")
    }
}

/// The mistake in an address; with what it is the address of, and how to write it.
fn wrong((what, example): (&str, &str), text: &str, why: &str) -> Mistake {
    Mistake::new(format!("{what} {:?}: {why}; {example}", quotable(text)))
}

const GATEWAY: (&str, &str) = ("the gateway", "write it like `example.com` or `192.0.2.1:8443`");
const ORIGIN: (&str, &str) = ("the origin", "write it like `8080` or `http://localhost:8080`");
const HOST_HEADER: (&str, &str) = ("--host-header", "write `keep`, `origin` or a host");

fn parse_port(text: &str) -> Result<u16, &'static str> {
    // `parse` alone would take "+80".
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    port.filter(|port| *port != 0).ok_or("the port must be a number from 1 to 65535")
}

/// The authority of a URL (RFC 3986 §3.2): an IPv6 address stands in brackets.
pub(super) fn authority(host: &str, port: Option<u16>) -> String {
    let brackets = if host.parse::<Ipv6Addr>().is_ok() { ("[", "]") } else { ("", "") };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{host}{}{port}", brackets.0, brackets.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_in_many_ways() {
        let table = [
            ("8080", "http://localhost:8080", "localhost:8080"),
            (":8080", "http://localhost:8080", "localhost:8080"),
            ("localhost:80", "http://localhost:80", "localhost"),
            ("192.0.2.1:8080", "http://192.0.2.1:8080", "192.0.2.1:8080"),
            ("[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
            ("http://App.local", "http://app.local:80", "app.local"),
            ("http://localhost:8080/", "http://localhost:8080", "localhost:8080"),
            ("HTTPS://[::1]", "https://[::1]:443", "[::1]"),
            ("https://localhost:80", "https://localhost:80", "localhost:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock", "localhost"),
            ("unix:///run/app.sock", "unix:/run/app.sock", "localhost"),
            ("unix:app.sock", "unix:app.sock", "localhost"),
            ("TCP://Db.local:5432", "tcp://db.local:5432", "db.local:5432"),
            ("tcp://[::1]:22/", "tcp://[::1]:22", "[::1]:22"),
        ];
        for (text, shown, authority) in table {
            let origin = OriginAddress::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(origin.to_string(), shown, "{text}");
            assert_eq!(origin.authority(), authority, "{text}");
            assert_eq!(OriginAddress::parse(shown).unwrap(), origin, "{text}");
        }
        assert_eq!(OriginAddress::Demo.authority(), "localhost");
    }

    #[test]
    fn bad_addresses_are_refused_with_the_reason() {
        let origins = [
            ("", "missing"),
            ("localhost", "port is missing"),
            ("0", "1 to 65535"),
            ("65536", "1 to 65535"),
            ("localhost:", "1 to 65535"),
            ("localhost:+80", "1 to 65535"),
            (":", "1 to 65535"),
            ("::1", "port is missing"),
            ("[::1]", "port is missing"),
            ("[::1:80", "brackets"),
            ("1:2:3:4:5:6:7:8:80", "brackets"),
            ("[localhost]:80", "brackets"),
            ("http://", "host is missing"),
            ("http://localhost:8080/app", "path"),
            ("http://localhost?x", "path or query"),
            ("localhost:8080/app", "path"),
            ("http://user:secret@localhost", "user name"),
            ("http://localhost//", "path"),
            ("ftp://localhost", "only http://"),
            ("ws://localhost", "only http://"),
            ("tcp://localhost", "port is missing"),
            ("tcp://localhost:22/path", "path"),
            ("unix:", "path of a socket"),
            ("my host:80", "neither a host name"),
            ("käse.de:80", "xn--"),
        ];
        for (text, part) in origins {
            let sentence = OriginAddress::parse(text).unwrap_err().to_string();
            assert!(sentence.contains(part), "{text}: {part:?} isn't in {sentence:?}");
        }
        let gateways = [
            ("", "missing"),
            ("http://example.com", "TLS"),
            ("example.com/path", "path"),
            ("https://me:secret@example.com", "user name"),
            ("2ptth_secret", "TOKEN"),
            ("example.com:0", "1 to 65535"),
            ("example.com:443:443", "neither"),
            ("unix:/path", "path"),
            ("tcp://example.com:443", "http://"),
            ("*.example.com", "neither"),
        ];
        for (text, part) in gateways {
            let sentence = Gateway::parse(text).unwrap_err().to_string();
            assert!(sentence.contains(part), "{text}: {part:?} isn't in {sentence:?}");
        }
    }

    #[test]
    fn host_headers_are_words_or_values() {
        let value = |text: &str| HostHeader::Value(text.to_owned());
        let table = [
            ("keep", HostHeader::Keep),
            ("KEEP", HostHeader::Keep),
            ("origin", HostHeader::Origin),
            ("App.local:8080", value("app.local:8080")),
            ("[::1]:80", value("[::1]:80")),
            ("::1", value("[::1]")),
        ];
        for (text, expected) in table {
            assert_eq!(HostHeader::parse(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "a b", "http://a", "a\r\nb", "a:b", "a/"] {
            assert!(
                HostHeader::parse(bad)
                    .is_err_and(|err| err.to_string().starts_with("--host-header ")),
                "{bad:?}"
            );
        }
    }
}
