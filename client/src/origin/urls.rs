//! Rewrites the visitor's URL into the origin's in requests, and back in responses.
//!
//! In and out: the fields of a message. No other host, no other port, no body is rewritten.
//!
//! Invariant: a request from another site still says so, and a response names no other target than before.

use http::Uri;
use http::header::{
    CONTENT_LOCATION, Entry, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, REFERER,
    REFRESH, SET_COOKIE,
};
use http::uri::{Authority, Port, Scheme};

/// The two URLs of one request, without their paths.
#[derive(Debug)]
pub(super) struct Urls<'a> {
    outer: Place,
    inner: Place,
    /// The origin was told another host than the visitor's.
    renamed: bool,
    /// The path prefix that the gateway took off.
    prefix: Option<&'a str>,
}

#[derive(Debug)]
struct Place {
    scheme: Scheme,
    authority: Authority,
}

/// How a field holds URLs.
#[derive(Clone, Copy)]
enum Form {
    /// It is one (RFC 9110 §10.2.2, RFC 6454 §7).
    Url,
    /// Between `<` and `>`, outside of parentheses (RFC 4918 §10.4).
    Tags,
    /// Behind `url=` (HTML, 4.2.5.3).
    Refresh,
    /// The host alone, in an attribute (RFC 6265 §4.1.2.3).
    Domain,
}

/// Of a request, and whether it matters only where the origin is told another host.
const REQUEST: [(HeaderName, Form, bool); 4] = [
    (HeaderName::from_static("destination"), Form::Url, false),
    (HeaderName::from_static("if"), Form::Tags, false),
    (ORIGIN, Form::Url, true),
    (REFERER, Form::Url, true),
];

const RESPONSE: [(HeaderName, Form, bool); 4] = [
    (LOCATION, Form::Url, false),
    (CONTENT_LOCATION, Form::Url, false),
    (REFRESH, Form::Refresh, false),
    (SET_COOKIE, Form::Domain, true),
];

impl<'a> Urls<'a> {
    /// `host` is the origin's Host if it isn't the visitor's. `None` if the visitor's `uri` isn't absolute.
    pub(super) fn new(
        uri: &Uri,
        secure: bool,
        host: Option<&HeaderValue>,
        prefix: Option<&'a HeaderValue>,
    ) -> Option<Self> {
        let outer = Place { scheme: uri.scheme()?.clone(), authority: uri.authority()?.clone() };
        let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
        let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let renamed = named.is_some();
        let inner = Place { scheme, authority: named.unwrap_or_else(|| outer.authority.clone()) };
        Some(Self { outer, inner, renamed, prefix: prefix.and_then(|it| it.to_str().ok()) })
    }

    pub(super) fn request(&self, fields: &mut HeaderMap) {
        self.rewrite(fields, &REQUEST, |url| self.inwards(url));
    }

    pub(super) fn response(&self, fields: &mut HeaderMap) {
        self.rewrite(fields, &RESPONSE, |url| self.outwards(url));
    }

    fn rewrite(
        &self,
        fields: &mut HeaderMap,
        table: &[(HeaderName, Form, bool)],
        url: impl Fn(&str) -> Option<String>,
    ) {
        for (name, form, renamed) in table {
            // Most messages have none of these fields.
            if (*renamed && !self.renamed) || !fields.contains_key(name) {
                continue;
            }
            let Entry::Occupied(mut values) = fields.entry(name) else { continue };
            for value in values.iter_mut() {
                let Ok(text) = value.to_str() else { continue };
                let new = match form {
                    Form::Url => url(text),
                    Form::Tags => tags(text, &url),
                    Form::Refresh => refresh(text, &url),
                    Form::Domain => self.domain(text),
                };
                if let Some(new) = new.and_then(|new| HeaderValue::try_from(new).ok()) {
                    *value = new;
                }
            }
        }
    }

    /// The origin's URL for a URL of the visitor, if there is one.
    fn inwards(&self, url: &str) -> Option<String> {
        let rest = self.outer.rest(url)?;
        let rest = match self.prefix {
            // By whole segments, as at the gateway.
            Some(prefix) if !rest.is_empty() => match below(rest, prefix)? {
                rest if rest.starts_with('/') => rest,
                rest => &format!("/{rest}"),
            },
            _ => rest,
        };
        Some(format!("{}://{}{rest}", self.inner.scheme, self.inner.authority))
    }

    /// The visitor's URL for a URL of the origin.
    fn outwards(&self, url: &str) -> Option<String> {
        let Place { scheme, authority } = &self.outer;
        if self.renamed
            && let Some(rest) = self.inner.rest(url)
        {
            // An origin that doesn't know the visitor's host doesn't know the prefix either.
            let prefix = self.prefix.filter(|prefix| below(rest, prefix).is_none());
            let prefix = prefix.unwrap_or_default();
            return Some(format!("{scheme}://{authority}{prefix}{rest}"));
        }
        let plain = Place { scheme: Scheme::HTTP, authority: authority.clone() };
        let rest =
            plain.rest(url).filter(|_| *scheme == Scheme::HTTPS && !url.starts_with("//"))?;
        Some(format!("{scheme}://{authority}{rest}"))
    }

    /// The cookie, with the visitor's host in place of the origin's.
    fn domain(&self, cookie: &str) -> Option<String> {
        let mut found = false;
        let attributes = cookie.split(';').enumerate().map(|(index, attribute)| {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            // RFC 6265 §5.2.3: a dot in front counts for nothing.
            let host = value.trim().strip_prefix('.').unwrap_or(value.trim());
            let ours = index > 0
                && key.trim().eq_ignore_ascii_case("domain")
                && host.eq_ignore_ascii_case(self.inner.authority.host());
            found |= ours;
            if ours {
                format!("{key}={}", self.outer.authority.host())
            } else {
                attribute.to_owned()
            }
        });
        let whole = attributes.collect::<Vec<_>>().join(";");
        found.then_some(whole)
    }
}

impl Place {
    /// The rest of a URL after its authority, if scheme, host and port (RFC 6454 §4) are the same.
    fn rest<'u>(&self, url: &'u str) -> Option<&'u str> {
        let after = match url.split_once("//")? {
            ("", after) => after,
            (scheme, after) => {
                let scheme = scheme.strip_suffix(':')?;
                scheme.eq_ignore_ascii_case(self.scheme.as_str()).then_some(after)?
            }
        };
        let (authority, rest) =
            after.split_at(after.find(['/', '?', '#', '\\']).unwrap_or(after.len()));
        let authority = Authority::try_from(authority).ok()?;
        let same = authority.host().eq_ignore_ascii_case(self.authority.host())
            && self.port(&authority)? == self.port(&self.authority)?
            && !authority.as_str().contains('@')
            && !rest.starts_with('\\');
        same.then_some(rest)
    }

    /// The port of an authority under this scheme. `None` if it is no number.
    fn port(&self, authority: &Authority) -> Option<u16> {
        let default = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        match authority.as_str().strip_prefix(authority.host()) {
            Some("" | ":") => Some(default),
            _ => authority.port().map(|port: Port<&str>| port.as_u16()),
        }
    }
}

/// The rest of a path after a prefix, by whole segments.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
}

/// An If field with rewritten resource tags.
fn tags(text: &str, url: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (mut out, mut rest, mut found) = (String::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find(['<', '(']) {
        let (before, from) = rest.split_at(at);
        // A list of conditions ends with the first `)`, since neither tokens nor entity tags hold one.
        let end = if from.starts_with('(') { ')' } else { '>' };
        let (part, after) = from.split_at(from.find(end)? + 1);
        let tag = part.strip_prefix('<').and_then(|tag| tag.strip_suffix('>'));
        out.push_str(before);
        match tag.and_then(&url) {
            Some(new) => {
                found = true;
                out.extend(["<", &new, ">"]);
            }
            None => out.push_str(part),
        }
        rest = after;
    }
    out.push_str(rest);
    found.then_some(out)
}

/// A Refresh field, `5; url=…`, with a rewritten URL, which may be quoted.
fn refresh(text: &str, url: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (seconds, rest) = text.split_at(text.find([';', ','])? + 1);
    let (key, value) =
        rest.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("url"))?;
    let value = value.trim();
    let quote = value.chars().next().filter(|first| ['\'', '"'].contains(first));
    let bare = quote.map_or(Some(value), |quote| value.strip_prefix(quote)?.strip_suffix(quote))?;
    let quote = quote.map(String::from).unwrap_or_default();
    Some(format!("{seconds}{key}={quote}{}{quote}", url(bare)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `visitor`, the origin's scheme, the host that it is told if not the visitor's, and the prefix.
    type Way = (&'static str, bool, &'static str, &'static str);

    const KEPT: Way = ("https://a.test/x", false, "", "");
    const RENAMED: Way = ("https://a.test:8443/x", false, "localhost:8080", "");

    fn rewrite((visitor, secure, host, prefix): Way, name: &str, value: &str) -> String {
        let value_of = |text: &str| HeaderValue::from_str(text).unwrap();
        let host = Some(value_of(host)).filter(|host| !host.is_empty());
        let prefix = Some(value_of(prefix)).filter(|prefix| !prefix.is_empty());
        let uri = visitor.parse().unwrap();
        let urls = Urls::new(&uri, secure, host.as_ref(), prefix.as_ref()).unwrap();
        let name = HeaderName::try_from(name).unwrap();
        let mut fields = HeaderMap::new();
        fields.append(&name, value_of("other"));
        fields.append(&name, value_of(value));
        match REQUEST.iter().any(|(of_request, ..)| *of_request == name) {
            true => urls.request(&mut fields),
            false => urls.response(&mut fields),
        }
        let values: Vec<_> = fields.get_all(&name).iter().collect();
        assert_eq!(values.len(), 2);
        assert_eq!(values[0], "other");
        values[1].to_str().unwrap().to_owned()
    }

    /// The request's own URL, and nothing else.
    #[test]
    fn a_request_names_what_the_origin_is_asked_by() {
        let stripped = ("https://a.test/x", false, "", "/api");
        for (way, name, value, expected) in [
            (KEPT, "destination", "https://a.test/b?c", "http://a.test/b?c"),
            (KEPT, "destination", "HTTPS://A.test:443/b", "http://a.test/b"),
            (KEPT, "destination", "https://a.test", "http://a.test"),
            (KEPT, "destination", "/b", "/b"),
            (KEPT, "destination", "https://a.test:444/b", "https://a.test:444/b"),
            (KEPT, "destination", "http://a.test/b", "http://a.test/b"),
            (KEPT, "destination", "https://b.test/b", "https://b.test/b"),
            (KEPT, "destination", "https://a.test@b.test/", "https://a.test@b.test/"),
            (KEPT, "destination", "https://u@a.test/", "https://u@a.test/"),
            (KEPT, "destination", "https://a.test.b.test/", "https://a.test.b.test/"),
            (KEPT, "destination", "https://a.test\\b", "https://a.test\\b"),
            (KEPT, "destination", "https://a.test:x/b", "https://a.test:x/b"),
            (KEPT, "origin", "https://a.test", "https://a.test"),
            (KEPT, "referer", "https://a.test/x", "https://a.test/x"),
            (RENAMED, "destination", "https://a.test:8443/b", "http://localhost:8080/b"),
            (RENAMED, "destination", "https://a.test/b", "https://a.test/b"),
            (RENAMED, "origin", "https://a.test:8443", "http://localhost:8080"),
            (RENAMED, "origin", "https://evil.test", "https://evil.test"),
            (RENAMED, "origin", "http://localhost:8080", "http://localhost:8080"),
            (RENAMED, "origin", "null", "null"),
            (RENAMED, "referer", "https://a.test:8443/x?y", "http://localhost:8080/x?y"),
            (RENAMED, "referer", "https://evil.test/", "https://evil.test/"),
            (stripped, "destination", "https://a.test/api/b", "http://a.test/b"),
            (stripped, "destination", "https://a.test/api", "http://a.test/"),
            (stripped, "destination", "https://a.test/apis", "https://a.test/apis"),
            (stripped, "destination", "https://a.test/b", "https://a.test/b"),
            (
                KEPT,
                "if",
                "<https://a.test/b> (<urn:uuid:1> [\"<https://a.test/>\"]) (Not <DAV:no-lock>)",
                "<http://a.test/b> (<urn:uuid:1> [\"<https://a.test/>\"]) (Not <DAV:no-lock>)",
            ),
            (
                KEPT,
                "if",
                "<https://b.test/b> (<x>) <https://a.test/> (<y>)",
                "<https://b.test/b> (<x>) <http://a.test/> (<y>)",
            ),
            (KEPT, "if", "(<https://a.test/>)", "(<https://a.test/>)"),
            (KEPT, "if", "<https://a.test/", "<https://a.test/"),
        ] {
            assert_eq!(rewrite(way, name, value), expected, "{name}: {value}");
        }
    }

    /// Exactly what the origin was asked by; and its own host without TLS is the visitor's with it.
    #[test]
    fn a_response_names_what_the_visitor_used() {
        let plain = ("http://a.test/x", true, "", "");
        let stripped = ("https://a.test/x", false, "app.test", "/api");
        for (way, name, value, expected) in [
            (KEPT, "location", "http://a.test/b", "https://a.test/b"),
            (KEPT, "location", "http://a.test:80/b", "https://a.test/b"),
            (KEPT, "location", "/b", "/b"),
            (KEPT, "location", "b//c", "b//c"),
            (KEPT, "location", "//a.test/b", "//a.test/b"),
            (KEPT, "location", "https://a.test/b", "https://a.test/b"),
            (KEPT, "location", "http://a.test:8080/b", "http://a.test:8080/b"),
            (KEPT, "location", "http://b.test/b", "http://b.test/b"),
            (
                KEPT,
                "location",
                "https://b.test/?to=http://a.test/",
                "https://b.test/?to=http://a.test/",
            ),
            (KEPT, "content-location", "http://a.test/b", "https://a.test/b"),
            (KEPT, "refresh", "5; url=http://a.test/b", "5; url=https://a.test/b"),
            (KEPT, "refresh", "0;URL='http://a.test/'", "0;URL='https://a.test/'"),
            (KEPT, "refresh", "5", "5"),
            (KEPT, "refresh", "5; url=/b", "5; url=/b"),
            (KEPT, "set-cookie", "a=b; Domain=a.test", "a=b; Domain=a.test"),
            (RENAMED, "location", "http://localhost:8080/b", "https://a.test:8443/b"),
            (RENAMED, "location", "//localhost:8080/b", "https://a.test:8443/b"),
            (RENAMED, "location", "http://a.test:8443/b", "https://a.test:8443/b"),
            (RENAMED, "location", "https://localhost:8080/b", "https://localhost:8080/b"),
            (RENAMED, "location", "http://localhost:9090/b", "http://localhost:9090/b"),
            (RENAMED, "location", "http://localhost/b", "http://localhost/b"),
            (RENAMED, "set-cookie", "a=b; domain=.Localhost; Secure", "a=b; domain=a.test; Secure"),
            (RENAMED, "set-cookie", "a=b; Domain=test; Path=/", "a=b; Domain=test; Path=/"),
            (RENAMED, "set-cookie", "domain=localhost", "domain=localhost"),
            (stripped, "location", "http://app.test/b", "https://a.test/api/b"),
            (stripped, "location", "http://app.test/api/b", "https://a.test/api/b"),
            (stripped, "location", "http://a.test/b", "https://a.test/b"),
            (plain, "location", "https://a.test/b", "https://a.test/b"),
            (plain, "location", "http://a.test/b", "http://a.test/b"),
        ] {
            assert_eq!(rewrite(way, name, value), expected, "{name}: {value}");
        }
    }
}
