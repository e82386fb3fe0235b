//! The statements of a trusted proxy about a visitor: X-Forwarded-* and Forwarded (RFC 7239).
//!
//! In:  the fields of a request from a trusted sender. Out: a [`Forwarded`] of the well-formed ones.
//!
//! Invariant: lists are read from the right, where the nearest proxy wrote. The first address there that
//! isn't a trusted proxy's is the visitor's. The visitor may have written the members left of it, so they are
//! neither believed nor passed on; nor are those left of a malformed one.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;

use crate::h1;

/// A visitor behind trusted proxies, and its connection to the first of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forwarded {
    /// The visitor and then the proxies, the gateway's peer last.
    chain: Vec<IpAddr>,
    pub scheme: Option<Scheme>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// The part of the path that proxies removed, without a slash at its end.
    pub prefix: Option<String>,
}

impl Forwarded {
    /// The statements of `proxy`, and of the proxies before it that are `trusted`. X-Forwarded-For counts before
    /// Forwarded, which most proxies pass on as it came to them.
    pub fn read(fields: &HeaderMap, proxy: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> Self {
        let mut chain = vec![proxy.to_canonical()];
        let mut element = Element::default();
        if fields.contains_key(FOR) {
            walk(fields, &FOR, &mut chain, trusted, node);
        } else {
            walk(fields, &FORWARDED, &mut chain, trusted, |text| {
                // The last one read is the visitor's; the others are about hops between proxies.
                let hop = Element::parse(text)?;
                let node = hop.node?;
                element = hop;
                Some(node)
            });
        }
        chain.reverse();
        Self {
            chain,
            scheme: only(fields, &PROTO).and_then(scheme).or(element.scheme),
            host: only(fields, &HOST).and_then(host).or(element.host),
            port: only(fields, &PORT).and_then(port),
            prefix: only(fields, &PREFIX).and_then(prefix),
        }
    }

    pub fn visitor(&self) -> Option<IpAddr> {
        self.chain.first().copied()
    }

    pub fn chain(&self) -> &[IpAddr] {
        &self.chain
    }
}

/// Adds to `chain` the addresses of a list from its right end: up to the first that isn't trusted, which is
/// the visitor's, or to a member that isn't an address.
fn walk(
    fields: &HeaderMap,
    name: &HeaderName,
    chain: &mut Vec<IpAddr>,
    trusted: impl Fn(IpAddr) -> bool,
    mut read: impl FnMut(&str) -> Option<IpAddr>,
) {
    // A comma inside of quotes cuts an element in two malformed ones: that ends the walk, too.
    for value in fields.get_all(name).iter().rev() {
        let Ok(value) = value.to_str() else { return };
        // RFC 9110 §5.6.1.2: empty members don't count.
        for member in value.rsplit(',').map(str::trim).filter(|member| !member.is_empty()) {
            let Some(address) = read(member).filter(|_| chain.len() < HOPS) else { return };
            chain.push(address);
            if !trusted(address) {
                return;
            }
        }
    }
}

/// One hop of Forwarded (RFC 7239 §4).
#[derive(Debug, Default)]
struct Element {
    node: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<String>,
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let mut element = Self::default();
        for pair in text.split(';') {
            let (name, value) = pair.split_once('=')?;
            let value = match value.trim().strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?,
                None => value.trim(),
            };
            // No value that counts here needs an escape.
            if value.contains(['"', '\\']) {
                return None;
            }
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => element.node = node(value),
                "proto" => element.scheme = scheme(value),
                "host" => element.host = host(value),
                _ => {}
            }
        }
        Some(element)
    }
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(v6) => IpAddr::V6(v6.parse().ok()?),
        None => {
            text.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip())).ok()?
        }
    };
    Some(address.to_canonical())
}

fn scheme(text: &str) -> Option<Scheme> {
    let known = [Scheme::HTTP, Scheme::HTTPS];
    known.into_iter().find(|known| text.eq_ignore_ascii_case(known.as_str()))
}

/// A host that requests can be routed by, with a port or without.
fn host(text: &str) -> Option<String> {
    let written = h1::port(text.as_bytes())?;
    let fine = if written.is_empty() { !text.ends_with(':') } else { port(written).is_some() };
    (fine && text.len() <= LONGEST_HOST).then(|| text.to_owned())
}

fn port(text: &str) -> Option<u16> {
    // `parse` alone would take "+80".
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// A path that can stand before another one: not `//host`, which a browser would take for another site's.
fn prefix(text: &str) -> Option<String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+;=:@%".contains(&byte);
    let sound = text.starts_with('/') && !text.starts_with("//") && text.bytes().all(fine);
    let text = text.trim_end_matches('/');
    (sound && !text.is_empty()).then(|| text.to_owned())
}

/// The value of a field that is there once.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none());
    value.map(HeaderValue::to_str)?.ok().map(str::trim)
}

/// More proxies in a row are a loop.
const HOPS: usize = 32;
/// RFC 1035 §3.1, and a port.
const LONGEST_HOST: usize = 255 + ":65535".len();
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The part of the path that proxies removed, the gateway among them.
pub const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> Forwarded {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        Forwarded::read(&map, "10.0.0.1".parse().unwrap(), trusted)
    }

    fn chain(fields: &[(&'static str, &str)]) -> String {
        read(fields).chain().iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    }

    /// From the right, up to the first stranger, and to nothing malformed.
    #[test]
    fn the_visitor_is_the_last_who_is_no_proxy() {
        let table: &[(&[&str], &str)] = &[
            (&[], "10.0.0.1"),
            (&["203.0.113.9"], "203.0.113.9 10.0.0.1"),
            (&["203.0.113.9, 10.0.0.2"], "203.0.113.9 10.0.0.2 10.0.0.1"),
            (&["203.0.113.9", "10.0.0.2"], "203.0.113.9 10.0.0.2 10.0.0.1"),
            (&["10.7.7.7, 10.0.0.2"], "10.7.7.7 10.0.0.2 10.0.0.1"),
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9 10.0.0.1"),
            (&["1.1.1.1", "203.0.113.9,, 10.0.0.2 ,"], "203.0.113.9 10.0.0.2 10.0.0.1"),
            (&["evil, 203.0.113.9"], "203.0.113.9 10.0.0.1"),
            (&["203.0.113.9, evil, 10.0.0.2"], "10.0.0.2 10.0.0.1"),
            (&["203.0.113.9, unknown"], "10.0.0.1"),
            (&["203.0.113.9:4711"], "203.0.113.9 10.0.0.1"),
            (&["[2001:db8::1]:4711"], "2001:db8::1 10.0.0.1"),
            (&["[2001:db8::1]"], "2001:db8::1 10.0.0.1"),
            (&["2001:DB8:0::1"], "2001:db8::1 10.0.0.1"),
            (&["::ffff:203.0.113.9"], "203.0.113.9 10.0.0.1"),
            (&["203.0.113.9 10.0.0.2"], "10.0.0.1"),
            (&["203.0.113.09"], "10.0.0.1"),
            (&["[203.0.113.9]"], "10.0.0.1"),
        ];
        for (values, expected) in table {
            let fields: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            assert_eq!(chain(&fields), *expected, "{values:?}");
        }
        let loops = vec!["10.0.0.2"; 100].join(",");
        assert_eq!(read(&[("x-forwarded-for", &loops)]).chain().len(), HOPS);
    }

    #[test]
    fn forwarded_counts_where_the_other_one_is_absent() {
        let table = [
            ("for=203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("For=\"[2001:db8::1]:80\";proto=http;by=x", "2001:db8::1 10.0.0.1"),
            ("for=1.1.1.1, for=203.0.113.9 , for=10.0.0.2", "203.0.113.9 10.0.0.2 10.0.0.1"),
            ("for=\"1.1.1.1, for=203.0.113.9", "203.0.113.9 10.0.0.1"),
            ("for=203.0.113.9;by=\"a,b\"", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown, for=10.0.0.2", "10.0.0.2 10.0.0.1"),
            ("203.0.113.9", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ];
        for (value, expected) in table {
            assert_eq!(chain(&[("forwarded", value)]), expected, "{value}");
        }
        let both = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(chain(&both), "203.0.113.9 10.0.0.1");
        let hops = "for=203.0.113.9;proto=HTTPS;host=\"a.test:8\", for=10.0.0.2;proto=http;host=b";
        let said = read(&[("forwarded", hops)]);
        assert_eq!((said.scheme, said.host.as_deref()), (Some(Scheme::HTTPS), Some("a.test:8")));
        let said = read(&[("forwarded", "for=_hidden;proto=http;host=a.test")]);
        assert_eq!((said.scheme, said.host), (None, None));
    }

    /// A malformed value doesn't count, nor does a repeated one.
    #[test]
    fn only_sound_values_are_kept() {
        let one = |name, value| read(&[(name, value)]);
        for (value, kept) in [("https", true), ("HTTP", true), ("https,http", false), ("ws", false)]
        {
            assert_eq!(one("x-forwarded-proto", value).scheme.is_some(), kept, "{value}");
        }
        for (value, kept) in [
            ("a.test", true),
            ("A.test:8443", true),
            ("[2001:db8::1]:8443", true),
            ("192.0.2.7", true),
            ("", false),
            ("a.test, b.test", false),
            ("user@a.test", false),
            ("a.test/", false),
            ("a\"b", false),
            ("a.test:", false),
            ("a.test:99999", false),
            ("[::1]x", false),
            ("[evil]", false),
            ("a:b:c", false),
        ] {
            assert_eq!(one("x-forwarded-host", value).host.is_some(), kept, "{value}");
        }
        for (value, port) in [("443", Some(443)), ("0", None), ("+1", None), ("65536", None)] {
            assert_eq!(one("x-forwarded-port", value).port, port, "{value}");
        }
        for (value, prefix) in [
            ("/app", Some("/app")),
            ("/a/b/", Some("/a/b")),
            ("/", None),
            ("app", None),
            ("//evil.test", None),
            ("/a, /b", None),
            ("/a?b", None),
            ("/a\\b", None),
        ] {
            assert_eq!(one("x-forwarded-prefix", value).prefix.as_deref(), prefix, "{value}");
        }
        let twice = read(&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]);
        assert_eq!(twice.scheme, None);
    }
}
