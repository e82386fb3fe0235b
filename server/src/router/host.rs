//! Patterns of hosts, as a configuration writes them, and the routes that they identify.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::Table;

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

impl HostPattern {
    /// Whether a Host or `:authority` is one of these hosts; its port is ignored.
    pub fn matches(&self, host: &str) -> bool {
        let mut table = Table::default();
        table.insert(self, "/", ()).is_ok() && table.find(host, "/").is_some()
    }
}

impl FromStr for HostPattern {
    type Err = &'static str;

    /// The error says what is wrong and what to write.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err("is empty; write a host like `example.com`, or `*` for every host");
        }
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains("://") {
            return Err("is a URL; write the host alone, like `example.com`");
        }
        if text.contains('/') {
            return Err(
                "has a path; write the host alone, like `example.com`, and the path as `path`",
            );
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err("is an IPv6 address, which hosts have in brackets; write it like `[::1]`");
        }
        if bare(text) != text {
            return Err(
                "has a port, which routing doesn't look at; write the host alone, like `example.com`",
            );
        }
        if text.starts_with('[') {
            return literal(text).map(Self::Literal).ok_or(NOT_A_HOST);
        }
        if !text.is_ascii() {
            return Err("isn't spelt as DNS has it; write the form that begins with `xn--`");
        }
        let lower = text.to_ascii_lowercase();
        let suffix = lower.strip_prefix("*.");
        let name = suffix.unwrap_or(&lower);
        let name = name.strip_suffix('.').unwrap_or(name);
        match suffix {
            Some(_) if name.is_empty() => {
                Err("names no domain; write `*.example.com`, or `*` for every host")
            }
            _ if name.contains('*') => Err(MISPLACED),
            _ if !is_name(name) => Err(NOT_A_HOST),
            Some(_) if name.parse::<Ipv4Addr>().is_ok() => Err(MISPLACED),
            Some(_) => Ok(Self::Under(name.into())),
            None => Ok(Self::Name(name.into())),
        }
    }
}

const MISPLACED: &str = "has a `*` in the wrong place; it can only be the first label, as in `*.example.com`, or alone for every host";
const NOT_A_HOST: &str = "is no host; write a name like `example.com`, `*.example.com`, or an address like `192.0.2.1` or `[::1]`";

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

/// A host of a configured route with its path, or a dynamic name. It has no label of the configuration, so it means the
/// same before and after a reload.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RouteId {
    /// What is under a prefix of the path, on the hosts of a pattern.
    Host(HostPattern, Box<str>),
    Name(String),
}

impl RouteId {
    pub(crate) fn is_wide(&self) -> bool {
        matches!(self, Self::Host(HostPattern::Any | HostPattern::Under(_), _))
    }

    /// The same for `host` alone.
    pub fn at(&self, host: &str) -> Option<Self> {
        match self {
            Self::Host(_, path) if self.is_wide() => Some(Self::Host(exact(host)?, path.clone())),
            narrow => Some(narrow.clone()),
        }
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, path) => write!(f, "{host}{path}"),
            Self::Name(name) => write!(f, "name {name:?}"),
        }
    }
}

/// Whether this is one DNS label in lower case (RFC 1123 §2.1): letters, digits, inner hyphens.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A name in lower case. RFC 1123 has no underscores, but names in use do.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_label(&label.replace('_', "0")))
}

/// The one host that a Host or `:authority` names, whatever its port and case.
pub(crate) fn exact(host: &str) -> Option<HostPattern> {
    let pattern = bare(host).parse().ok()?;
    matches!(pattern, HostPattern::Name(_) | HostPattern::Literal(_)).then_some(pattern)
}

/// Without the port. The result for what is no host is unspecified; visitors' heads were checked.
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

pub(super) fn literal(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}
