//! The routing table: which route a request belongs to, by its host and path and nothing else.
//!
//! In:  what a configuration says of each route: [`HostPattern`]s and a path prefix.
//! Out: the value of the route that fits best, and how long its prefix is. Pure.
//!
//! The host decides first and alone, as with nginx's server blocks: an exact name beats a wildcard,
//! a longer wildcard a shorter one, and `*` comes last. Only within that host the longest path
//! prefix wins; if none fits there, nothing does. A fall back to a wider host would hand the requests
//! for one backend's name to another backend whenever a path was forgotten.
//!
//! Paths are compared byte for byte. Nothing is percent-decoded and no `..` resolved: the origin
//! gets what the visitor wrote, so what is matched must be what the origin will read.

mod host;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use http::uri::PathAndQuery;

pub use host::{HostPattern, RouteId};
pub(crate) use host::{exact, is_label};

#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    /// By host in lower case, `[address]`, `.suffix` of a wildcard, and `*`.
    hosts: HashMap<Box<str>, Paths<T>>,
    /// Labels of the longest wildcard: no longer suffix of a host is looked up.
    deepest: usize,
}

/// The routes of one host, the longest prefix first.
type Paths<T> = Vec<(Box<str>, T)>;

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), deepest: 0 }
    }
}

impl<T> Table<T> {
    /// Adds a route. `path` is `/` or like `/a/b`; a slash at its end changes nothing.
    ///
    /// # Errors
    /// The value that the table has for the same host and path already; it stays.
    pub(crate) fn insert(&mut self, host: &HostPattern, path: &str, value: T) -> Result<(), &T> {
        let host = match host {
            HostPattern::Under(suffix) => {
                self.deepest = self.deepest.max(suffix.split('.').count());
                format!(".{suffix}")
            }
            host => host.to_string(),
        };
        let paths = self.hosts.entry(host.into()).or_default();
        let prefix = path.trim_end_matches('/');
        // The longest first; among equals the order of the alphabet, so that twins meet.
        let order = |(other, _): &(Box<str>, T)| {
            prefix.len().cmp(&other.len()).then_with(|| (**other).cmp(prefix))
        };
        match paths.binary_search_by(order) {
            Ok(at) => Err(&paths[at].1),
            Err(at) => {
                paths.insert(at, (prefix.into(), value));
                Ok(())
            }
        }
    }

    /// The route for a Host or `:authority`, whose port is ignored, and a path with or without its query; and the
    /// length of the route's prefix in bytes, 0 for `/`.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<(&T, usize)> {
        self.paths(host)?.iter().find_map(|(prefix, value)| {
            let rest = path.strip_prefix(&**prefix)?;
            let whole = prefix.is_empty() || rest.is_empty() || rest.starts_with(['/', '?']);
            whole.then_some((value, prefix.len()))
        })
    }

    pub(crate) fn at(&self, host: &str) -> impl Iterator<Item = &T> {
        self.paths(host).into_iter().flatten().map(|(_, value)| value)
    }

    fn paths(&self, host: &str) -> Option<&Paths<T>> {
        let any = || self.hosts.get("*");
        let host = host::bare(host);
        if host.starts_with('[') {
            let address = host::literal(host).map(|address| format!("[{address}]"));
            return address.and_then(|address| self.hosts.get(&*address)).or_else(any);
        }
        let host = lower(host);
        let host = host.strip_suffix('.').unwrap_or(&host);
        // What begins with a dot is no host, but the key of a wildcard.
        let exact = self.hosts.get(host).filter(|_| !host.starts_with('.'));
        exact.or_else(|| self.wildcard(host)).or_else(any)
    }

    fn wildcard(&self, host: &str) -> Option<&Paths<T>> {
        let dots = host.rmatch_indices('.').map(|(at, _)| at).take_while(|at| *at > 0);
        let suffixes = dots.take(self.deepest).filter_map(|at| host.get(at..));
        suffixes.filter_map(|suffix| self.hosts.get(suffix)).last()
    }
}

/// Takes a prefix off a path, once: `/name` becomes `/`, `/name?q` `/?q`, `/name/x` `/x`.
///
/// `prefix` is the length that [`Table::find`] gave for this very path.
pub(crate) fn strip(path: &PathAndQuery, prefix: usize) -> PathAndQuery {
    if prefix == 0 {
        return path.clone();
    }
    let rest = path.as_str().get(prefix..).unwrap_or_default();
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    // A part of what was a path already.
    PathAndQuery::try_from(rest).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// The label in front of `domain`, if `host` is exactly that: `bob.example.com` under `example.com`
/// is `bob`. In lower case; port and final dot of `host` count for nothing.
pub(crate) fn label<'a>(host: &'a str, domain: &str) -> Option<Cow<'a, str>> {
    let host = host::bare(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let at = host.len().checked_sub(domain.len() + 1)?;
    let (front, rest) = host.split_at_checked(at)?;
    let under = rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(domain));
    let front = lower(front);
    (under && is_label(&front)).then_some(front)
}

/// The first segment of a path: `bob` of `/bob/x` and of `/bob?q`. As it is written, since paths
/// know no case. Its prefix, for [`strip`], is one byte longer.
pub(crate) fn segment(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('/')?;
    rest.split(['/', '?']).next().filter(|segment| !segment.is_empty())
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}
