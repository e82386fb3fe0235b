//! Which header fields cross, in both directions and at both ends.
//!
//! Invariant: a visitor's field never takes the place of one that the gateway sets. Such a field is removed from
//! the visitor's message first, under every spelling that an origin might take for it (CGI turns `-` into `_`, and so
//! can't tell the two apart). A trusted proxy's fields are read before ([`crate::forwarded`]), and set again from that.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;

use crate::forwarded::Forwarded;

/// Connection fields: they concern one hop and never cross (RFC 9110 §7.6.1, RFC 9113 §8.2.2).
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("proxy-authentication-info"),
];

/// Fields that only the gateway sets on a request; from a visitor they are dropped. Lower case, with `-`.
const IDENTITY: [&str; 9] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
    "via",
    "client-cert",
];

/// Fields from which origins read a visitor's address, host or scheme; a trusted proxy may set them. So may those that
/// begin with [`FORWARDED`]. Lower case, with `-`.
const CLAIMS: [&str; 14] = [
    "x-forwarded",
    "client-cert-chain",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
];
const FORWARDED: &str = "x-forwarded-";

/// CGI takes it for the address of a proxy for the origin's own requests (httpoxy, CVE-2016-5385): it never crosses.
const PROXY: &str = "proxy";

/// Names that frame or route a message. Spelt with `_`, they only serve attacks.
const FRAMING: [&str; 8] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
];

/// Fields that may not be trailers, besides all of the above: framing, routing, authentication, conditions, reading of
/// the content, and control data of a response (RFC 9110 §6.5.1). Lower case.
const HEAD_ONLY: [&str; 19] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expires",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "vary",
    "warning",
    "www-authenticate",
];
const HEAD_ONLY_PREFIXES: [&str; 2] = ["if-", "proxy-"];

const PREFIX: &str = "x-forwarded-prefix";

/// The prefix of this project's fields (docs/protocol.md).
const OURS: &str = "2ptth-";

/// The sender of a request, as the gateway knows it from the socket, or from a proxy that it trusts.
#[derive(Clone, Copy, Debug)]
pub struct Origination<'a> {
    pub address: IpAddr,
    /// `Host` or `:authority`.
    pub host: &'a str,
    pub scheme: &'a Scheme,
    /// The statements of a trusted proxy.
    pub said: Option<&'a Forwarded>,
    /// The HTTP version of the visitor's request, as Via writes it (RFC 9110 §7.6.3).
    pub version: &'static str,
}

/// The fields that state a request's origination. Made once for all requests of a connection that need the same:
/// making six fields costs more than the rest of the work on a head.
#[derive(Debug)]
pub struct Statement {
    /// Address, host, scheme and version of the requests for which it holds. Of a proxied request there is none: the
    /// statement repeats the proxy's.
    of: Option<(IpAddr, String, Scheme, &'static str)>,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Statement {
    pub fn new(from: Origination<'_>) -> Self {
        let address = from.address.to_canonical();
        let own = [address];
        let said = from.said;
        let chain = said.map_or(&own[..], Forwarded::chain);
        let host = said.and_then(|said| said.host.as_deref()).unwrap_or(from.host);
        let addresses: Vec<_> = chain.iter().map(IpAddr::to_string).collect();
        let fields = [
            ("x-forwarded-for", Some(addresses.join(", "))),
            ("x-real-ip", Some(address.to_string())),
            ("x-forwarded-proto", Some(from.scheme.to_string())),
            ("x-forwarded-host", Some(host.to_owned())),
            ("forwarded", Some(forwarded(chain, host, from.scheme))),
            ("via", Some(format!("{} 2ptth", from.version))),
            ("x-forwarded-port", said.and_then(|said| said.port).map(|port| port.to_string())),
            (PREFIX, said.and_then(|said| said.prefix.clone())),
        ];
        let of = || (from.address, from.host.to_owned(), from.scheme.clone(), from.version);
        Self {
            of: said.is_none().then(of),
            fields: fields.into_iter().filter_map(|(name, it)| field(name, &it?)).collect(),
        }
    }

    /// Whether it holds for another request, too.
    pub fn suits(&self, from: &Origination<'_>) -> bool {
        let is_same = |(address, host, scheme, version): &(_, String, _, _)| {
            (*address, &**host, scheme, *version)
                == (from.address, from.host, from.scheme, from.version)
        };
        from.said.is_none() && self.of.as_ref().is_some_and(is_same)
    }
}

/// Every value is made of an address and of a host that was checked, so this can't fail; if it did, the field
/// would be absent, not forged.
fn field(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
}

/// Makes a visitor's request fields fit to cross: removes the hop's fields and those that only the gateway sets, and
/// adds the statement.
pub fn request(fields: &mut HeaderMap, statement: &Statement) {
    let quotes = statement.of.is_none();
    strip(fields, |name| is_forged(name, quotes));
    fields.reserve(statement.fields.len() + 1);
    for (name, value) in &statement.fields {
        fields.insert(name.clone(), value.clone());
    }
}

/// Removes the fields that state the visitor and its way: some origins have no room for them, others refuse them.
pub fn unforward(fields: &mut HeaderMap) {
    strip(fields, |name| IDENTITY.contains(&name) || name.starts_with(OURS));
}

/// States a part of the path that is removed, behind those that proxies removed before.
pub fn prefix(fields: &mut HeaderMap, prefix: &str) {
    let before = fields.get(PREFIX).and_then(|before| before.to_str().ok()).unwrap_or_default();
    let whole = format!("{before}{prefix}");
    if let Some((name, value)) = field(PREFIX, &whole) {
        fields.insert(name, value);
    }
}

/// RFC 7239: the visitor's hop with host and scheme, and one for each proxy after it.
fn forwarded(chain: &[IpAddr], host: &str, scheme: &Scheme) -> String {
    let node = |address: &IpAddr| match address {
        IpAddr::V4(v4) => format!("for={v4}"),
        // RFC 7239 §6: an IPv6 address stands in brackets, and so in quotes.
        IpAddr::V6(v6) => format!("for=\"[{v6}]\""),
    };
    let mut elements: Vec<_> = chain.iter().map(node).collect();
    if let Some(visitor) = elements.first_mut() {
        visitor.push_str(&format!(";host=\"{host}\";proto={scheme}"));
    }
    elements.join(", ")
}

/// Makes a response's fields fit to cross.
pub fn response(fields: &mut HeaderMap) {
    strip(fields, |name| name.starts_with(OURS) || is_twin(name));
}

/// Whether an operator may have the gateway set or remove a field, named in lower case: it neither frames nor routes the
/// message, nor concerns one hop, nor is it one by which the gateway states the visitor or itself.
pub fn is_free(name: &str) -> bool {
    let is = |other: &&str| is_spelt(name, other);
    !(HOP_BY_HOP.iter().any(|hop| is_spelt(name, hop.as_str()))
        || FRAMING.iter().chain(&IDENTITY).any(is)
        || is(&PROXY)
        || spelt(name).take(OURS.len()).eq(OURS.bytes()))
}

/// Removes all fields of a name, in each spelling that an origin might take for it.
pub fn remove(fields: &mut HeaderMap, name: &HeaderName) {
    let spellings = fields.keys().filter(|it| is_spelt(it.as_str(), name.as_str()));
    let spellings: Vec<_> = spellings.cloned().collect();
    spellings.into_iter().for_each(|it| drop(fields.remove(it)));
}

/// Removes from trailers the fields that may only stand in a head.
pub fn trailers(fields: &mut HeaderMap) {
    strip(fields, |name| !may_trail(name));
}

/// Whether the value of a field of this name, in any case, is a secret, or lets another program act as its sender: the
/// fields of HTTP, ours (`x-webhooktunnel-id` is the credential of webhooktunnel's clients), and those that services
/// make up.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// Parts of such names.
const SECRET: [&str; 9] = [
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "api-key",
    "apikey",
    "signature",
    "webhooktunnel-id",
];

/// Bytes of memory that `fields` need, about: each one's own, and those of its place in a map.
pub fn weight(fields: &HeaderMap) -> usize {
    const FIELD: usize = 96;
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum()
}

/// Whether a field, named in lower case, decides nothing about the message (RFC 9110 §6.5.1).
pub fn may_trail(name: &str) -> bool {
    let begins = |prefix: &&str| name.starts_with(prefix);
    !(HEAD_ONLY.contains(&name)
        || FRAMING.contains(&name)
        || HEAD_ONLY_PREFIXES.iter().any(begins)
        || is_forged(name, false)
        || HOP_BY_HOP.iter().any(|hop| hop.as_str() == name))
}

/// Removes the connection fields, those that `Connection` names (but for the ones that frame or route),
/// and those that `also` matches. Rebuilds the map, since removing one field from it reorders the rest.
fn strip(fields: &mut HeaderMap, also: impl Fn(&str) -> bool) {
    // The one value of TE that crosses is `trailers` (RFC 9113 §8.2.2).
    let crosses = |name: &HeaderName| match *name == header::TE {
        true => fields.get_all(name).iter().eq(["trailers"]),
        false => !HOP_BY_HOP.contains(name) && !also(name.as_str()),
    };
    // Most heads have nothing to remove, `Connection` not even.
    if fields.keys().all(crosses) {
        return;
    }
    let named: Vec<HeaderName> = members(fields, header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !is_protected(name))
        .collect();
    let te_trailers = says(fields, header::TE, "trailers");
    if te_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let doomed = |name: &HeaderName| {
        HOP_BY_HOP.contains(name)
            || named.contains(name)
            || (*name == header::TE && !te_trailers)
            || also(name.as_str())
    };
    let mut kept = HeaderMap::with_capacity(fields.keys_len());
    let mut last = None;
    for (name, value) in std::mem::take(fields) {
        // A name stands before the first of its values only.
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| !doomed(name)) {
            kept.append(name, value);
        }
    }
    *fields = kept;
}

/// `Connection: host` or `Connection: content-length` must not make the next hop see another request.
fn is_protected(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::CACHE_CONTROL, header::TE].contains(name)
        || is_forged(name.as_str(), false)
}

/// Whether a list-valued field has that member, in any case.
pub fn says(fields: &HeaderMap, name: HeaderName, member: &str) -> bool {
    members(fields, name).any(|it| it.eq_ignore_ascii_case(member.as_bytes()))
}

/// The members of a list-valued field (RFC 9110 §5.6.1), empty ones too.
pub(crate) fn members(fields: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = fields.get_all(name).into_iter();
    values.flat_map(|it| it.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// Whether only the gateway may set a field. `quotes`: the request comes from a trusted proxy, which may set the
/// [`CLAIMS`].
fn is_forged(name: &str, quotes: bool) -> bool {
    // No name of the lists begins otherwise, and most fields do.
    if !matches!(name.as_bytes().first(), Some(b'2' | b'c' | b'f' | b'p' | b't' | b'v' | b'x')) {
        return is_twin(name);
    }
    let begins = |prefix: &str| spelt(name).take(prefix.len()).eq(prefix.bytes());
    let is = |other: &&str| is_spelt(name, other);
    let claims = || CLAIMS.iter().any(is) || begins(FORWARDED);
    let set = || begins(OURS) || is(&PROXY) || IDENTITY.iter().any(is);
    let counts = quotes && !is_odd(name);
    set() || (!counts && claims()) || is_twin(name)
}

/// Whether a name frames a message only for origins to which `_`, `.` or `+` is `-`.
fn is_twin(name: &str) -> bool {
    FRAMING.iter().any(|other| is_spelt(name, other)) && is_odd(name)
}

/// Whether a name has characters that some origins take for `-`: CGI writes `_` for it, and for other ones.
fn is_odd(name: &str) -> bool {
    name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-')
}

/// Whether those origins read a name as the other one.
fn is_spelt(name: &str, other: &str) -> bool {
    name.len() == other.len() && spelt(name).eq(other.bytes())
}

/// A name as those origins read it.
fn spelt(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn text(map: &HeaderMap) -> Vec<(String, String)> {
        map.iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())
            })
            .collect()
    }

    const VISITOR: Origination<'_> = Origination {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        host: "example.com",
        scheme: &Scheme::HTTPS,
        said: None,
        version: "2",
    };

    #[test]
    fn hop_by_hop_fields_do_not_cross() {
        let mut fields = map(&[
            ("connection", "close, x-mine , content-length, host"),
            ("connection", "x-forwarded-for"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-authentication-info", "x"),
            ("transfer-encoding", "chunked"),
            ("transfer_encoding", "chunked"),
            ("content_length", "4"),
            ("2ptth-request-id", "1"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("te", "gzip, Trailers;q=1"),
            ("content-length", "3"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("empty", ""),
            ("latin", "caf\u{e9}"),
        ]);
        response(&mut fields);
        let left = text(&fields);
        let expected = [
            ("content-length", "3"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("empty", ""),
            ("latin", "caf\u{e9}"),
        ];
        let expected: Vec<_> = expected.map(|(n, v)| (n.to_string(), v.to_string())).into();
        assert_eq!(left, expected);
    }

    /// The origin sees the same of a visitor that forges as of an honest one.
    #[test]
    fn forged_identity_changes_nothing() {
        let mut honest = HeaderMap::new();
        request(&mut honest, &Statement::new(VISITOR));
        let mut forged = HeaderMap::new();
        // Written out again, so that a name that is deleted above fails here.
        #[rustfmt::skip]
        let names = [
            "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
            "x-forwarded-prefix", "x-real-ip", "forwarded", "via", "client-cert", "x-forwarded",
            "client-cert-chain", "client-ip", "x-client-ip", "x-cluster-client-ip",
            "true-client-ip", "cf-connecting-ip", "fastly-client-ip", "x-original-url",
            "x-original-host", "x-rewrite-url", "x-scheme", "x-url-scheme", "front-end-https",
            "x-forwarded-ssl", "x-forwarded-user", "2ptth-anything", "proxy",
        ];
        for name in names {
            for spelling in ["-", "_", ".", "+"].map(|it| name.replace('-', it)) {
                let name = HeaderName::from_bytes(spelling.as_bytes()).unwrap();
                forged.append(&name, HeaderValue::from_static("203.0.113.9"));
                forged.append(name, HeaderValue::from_static("evil"));
            }
        }
        for twin in ["content_length", "transfer_encoding"] {
            forged.append(twin, HeaderValue::from_static("5"));
        }
        // Nor can it have the gateway's fields removed on the next hop.
        forged.append("connection", HeaderValue::from_static("x-forwarded-for, via, forwarded"));
        request(&mut forged, &Statement::new(VISITOR));
        assert_eq!(text(&forged), text(&honest));
        assert_eq!(honest["forwarded"], "for=127.0.0.1;host=\"example.com\";proto=https");
        assert_eq!(honest["x-forwarded-for"], "127.0.0.1");
        assert_eq!(honest["via"], "2 2ptth");
    }

    /// What a trusted proxy says is said on, with the proxy added; nothing else gets through with it.
    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_appended_to() {
        let mut fields = map(&[
            ("x-forwarded-for", "6.6.6.6, 2001:db8::9, 10.0.0.2"),
            ("forwarded", "for=6.6.6.6;host=evil;proto=http"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "public.test"),
            ("x-forwarded-port", "8080"),
            ("x-forwarded-prefix", "/app"),
            ("x-real-ip", "6.6.6.6"),
            ("via", "1.1 evil"),
            ("client-cert", ":evil:"),
            ("x_forwarded_for", "6.6.6.6"),
            ("2ptth-url", "https://evil"),
            ("x-forwarded-user", "ann"),
            ("x_forwarded_user", "eve"),
            ("proxy", "http://evil"),
        ]);
        let proxy = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let said = Forwarded::read(&fields, proxy, |a| a.to_string().starts_with("10."));
        let address = said.visitor().unwrap();
        let scheme = said.scheme.clone().unwrap();
        let from = Origination { address, scheme: &scheme, said: Some(&said), ..VISITOR };
        request(&mut fields, &Statement::new(from));
        prefix(&mut fields, "/name");
        let expected = [
            ("x-forwarded-user", "ann"),
            ("x-forwarded-for", "2001:db8::9, 10.0.0.2, 10.0.0.1"),
            ("x-real-ip", "2001:db8::9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "public.test"),
            (
                "forwarded",
                "for=\"[2001:db8::9]\";host=\"public.test\";proto=http, for=10.0.0.2, for=10.0.0.1",
            ),
            ("via", "2 2ptth"),
            ("x-forwarded-port", "8080"),
            ("x-forwarded-prefix", "/app/name"),
        ];
        assert_eq!(text(&fields), expected.map(|(n, v)| (n.to_string(), v.to_string())));
    }

    #[test]
    fn te_keeps_only_trailers() {
        for (value, left) in [
            ("trailers", Some("trailers")),
            ("gzip", None),
            ("deflate, TRAILERS", Some("trailers")),
        ] {
            let mut fields = map(&[("te", value)]);
            strip(&mut fields, |_| false);
            assert_eq!(fields.get("te").map(|v| v.to_str().unwrap()), left, "{value}");
        }
    }

    /// A trailer never becomes part of the head.
    #[test]
    fn trailers_frame_and_route_nothing() {
        #[rustfmt::skip]
        let names = [
            "content-length", "transfer-encoding", "host", "connection", "te", "trailer",
            "upgrade", "expect", "content_length", "transfer_encoding", "keep-alive",
            "http2-settings", "age", "authorization", "cache-control", "content-encoding",
            "content-range", "content-type", "cookie", "date", "expires", "location",
            "max-forwards", "pragma", "range", "retry-after", "set-cookie",
            "strict-transport-security", "vary", "warning", "www-authenticate", "if-none-match",
            "proxy-status", "proxy", "x-forwarded-for", "cf-connecting-ip", "2ptth-url",
        ];
        for name in names {
            let mut fields = map(&[(name, "3")]);
            trailers(&mut fields);
            assert!(fields.is_empty(), "{name}");
            assert!(!may_trail(name), "{name}");
        }
        let mut fields = map(&[("range", "bytes=0-"), ("sum", "9"), ("set-cookie", "a=b")]);
        trailers(&mut fields);
        assert_eq!(text(&fields), [("sum".to_string(), "9".to_string())]);
    }
}
