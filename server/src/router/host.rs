//! Patterns of hosts, as a configuration writes them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Which hosts a route is for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum HostPattern {
    /// `*`: every host.
    Any,
    /// This name, or this IPv4 address; in lower case and without a final dot.
    Name(Box<str>),
    /// This IPv6 address, however it is spelt.
    Literal(Ipv6Addr),
    /// `*.example.com`: every name with one or more labels in front of this one, which isn't among
    /// them itself.
    Under(Box<str>),
}

/// Why a text is no pattern of hosts. `Display` says what to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PatternError {
    /// Nothing.
    Empty,
    /// `https://example.com/`.
    Url,
    /// `example.com:443`.
    Port,
    /// A path behind the host.
    Path,
    /// A `*` that isn't the whole first label.
    Wildcard,
    /// `*.` with nothing behind it.
    BareWildcard,
    /// Letters that DNS doesn't know.
    NotAscii,
    /// `2001:db8::1` without its brackets.
    Brackets,
    /// Anything else.
    NotAHost,
}

impl HostPattern {
    /// Whether a Host or `:authority` is one of those; its port counts for nothing.
    pub fn matches(&self, host: &str) -> bool {
        let host = bare(host);
        let name = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Any => true,
            Self::Name(wanted) => name.eq_ignore_ascii_case(wanted),
            Self::Literal(address) => literal(host) == Some(*address),
            Self::Under(suffix) => {
                let at = name.len().checked_sub(suffix.len() + 1).filter(|at| *at > 0);
                let rest = at.and_then(|at| name.get(at..)?.strip_prefix('.'));
                rest.is_some_and(|rest| rest.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains("://") {
            return Err(PatternError::Url);
        }
        if text.contains('/') {
            return Err(PatternError::Path);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(PatternError::Brackets);
        }
        if bare(text) != text {
            return Err(PatternError::Port);
        }
        if text.starts_with('[') {
            return literal(text).map(Self::Literal).ok_or(PatternError::NotAHost);
        }
        if !text.is_ascii() {
            return Err(PatternError::NotAscii);
        }
        let lower = text.to_ascii_lowercase();
        let (suffix, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, &*lower),
        };
        let name = rest.strip_suffix('.').unwrap_or(rest);
        match (suffix, name) {
            (true, "") => Err(PatternError::BareWildcard),
            (_, name) if name.contains('*') => Err(PatternError::Wildcard),
            (_, name) if !is_name(name) => Err(PatternError::NotAHost),
            (true, name) if name.parse::<Ipv4Addr>().is_ok() => Err(PatternError::Wildcard),
            (true, name) => Ok(Self::Under(name.into())),
            (false, name) => Ok(Self::Name(name.into())),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Literal(address) => write!(f, "[{address}]"),
            Self::Under(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty; write a host like `example.com`, or `*` for every host",
            Self::Url => "is a URL; write the host alone, like `example.com`",
            Self::Port => "has a port, which routing doesn't look at; write the host alone, like `example.com`",
            Self::Path => "has a path; write the host alone, like `example.com`, and the path as `path`",
            Self::Wildcard => "has a `*` in the wrong place; it can only be the first label, as in `*.example.com`, or alone for every host",
            Self::BareWildcard => "names no domain; write `*.example.com`, or `*` for every host",
            Self::NotAscii => "isn't spelt as DNS has it; write the form that begins with `xn--`",
            Self::Brackets => "is an IPv6 address, which hosts have in brackets; write it like `[::1]`",
            Self::NotAHost => "is no host; write a name like `example.com`, `*.example.com`, or an address like `192.0.2.1` or `[::1]`",
        })
    }
}

impl std::error::Error for PatternError {}

/// Whether this is one DNS label in lower case (RFC 1123 §2.1): letters, digits, inner hyphens.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name in lower case. Underscores aren't in RFC 1123, but in names that people have.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_label(&label.replace('_', "0")))
}

/// The one host that a Host or `:authority` names, whatever its port and case.
pub(crate) fn exact(host: &str) -> Option<HostPattern> {
    let pattern = bare(host).parse().ok()?;
    matches!(pattern, HostPattern::Name(_) | HostPattern::Literal(_)).then_some(pattern)
}

/// Without the port. What is no host at all may come out as anything; visitors' heads were checked.
pub(super) fn bare(host: &str) -> &str {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']').map(|at| at + 2),
        None => host.find(':'),
    };
    let end = end.unwrap_or(host.len());
    match host.split_at_checked(end) {
        Some((bare, rest)) if rest.is_empty() || rest.starts_with(':') => bare,
        _ => host,
    }
}

/// The address in brackets.
pub(super) fn literal(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}
