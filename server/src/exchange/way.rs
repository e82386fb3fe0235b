//! Where a request goes, and where it goes when that has changed.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{SET_COOKIE, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::config::NoBackend;
use crate::policy::{Found, Policy};
use crate::pool::{Lease, NoTunnel, TunnelId};
use crate::quota::Share;
use crate::shard::Shard;

/// What an exchange needs of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) shard: &'a Shard,
    /// The policy by which the route was found.
    policy: Arc<Policy>,
    pub(crate) found: Found,
    /// What the visitor's address has of the route's tunnels.
    share: Arc<Share>,
}

impl<'a> Way<'a> {
    /// That of a request from an address, to what was `found` for it.
    pub(crate) fn new(
        shard: &'a Shard,
        policy: Arc<Policy>,
        found: Found,
        address: IpAddr,
    ) -> Self {
        let share = found.route.pool.share(address);
        Self { shard, policy, found, share }
    }

    /// The same from the same address, to where the host and path lead now; unless there is another gate, which the
    /// request didn't pass.
    pub(super) fn anew(&self, uri: &Uri) -> Option<Self> {
        let policy = self.shard.registry.policy();
        let found = policy.find(uri.authority()?.as_str(), uri.path()).ok()?;
        let (passed, gate) = (self.found.route.gate(), found.route.gate());
        if passed.map(Arc::as_ptr) != gate.map(Arc::as_ptr) {
            return None;
        }
        Some(Self::new(self.shard, policy, found, self.share.address))
    }

    /// Whether that is elsewhere by now.
    fn has_moved(&self, uri: &Uri) -> bool {
        let other = |way: &Self| !Arc::ptr_eq(&way.found.route.pool, &self.found.route.pool);
        !Arc::ptr_eq(&self.policy, &self.shard.registry.policy())
            && self.anew(uri).as_ref().is_none_or(other)
    }

    /// The right to a stream, perhaps after a wait. A target whose prefix is stripped leads nowhere any more.
    pub(super) async fn lease(
        &self,
        target: Option<&Uri>,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        let (route, registry) = (&self.found.route, &self.shard.registry);
        let (hold, index) = (registry.hold(route), self.shard.index);
        let moved = || target.is_some_and(|uri| self.has_moved(uri));
        match (
            route.pool.acquire(&self.share, index, avoid, route.queue, hold, &moved).await,
            &route.no_backend,
        ) {
            (Err(NoTunnel::Absent), NoBackend::Origin(address)) => {
                registry.fallbacks.lease(address, self.share.address, index).await
            }
            (found, _) => found,
        }
    }

    /// Takes out of a response what its backend may not say there.
    pub(super) fn confine(&self, fields: &mut HeaderMap) {
        if let Some(path) = &self.found.confined {
            confine(fields, path);
        }
    }
}

/// What a backend may not say to a browser where its dynamic name is a path, on a host that all names share. To a browser
/// that host is one origin (RFC 6454 §4): whatever is said for all of it is said for the others, too. That one name's page
/// can read another's can't be helped from here.
///
/// Takes out of a response what counts for the whole host, and has cookies sent to `/name/` alone.
fn confine(fields: &mut HeaderMap, base: &str) {
    for field in [CLEAR_SITE_DATA, SERVICE_WORKER_ALLOWED, STRICT_TRANSPORT_SECURITY] {
        fields.remove(field);
    }
    if let http::header::Entry::Occupied(mut cookies) = fields.entry(SET_COOKIE) {
        for cookie in cookies.iter_mut() {
            *cookie = confined(cookie, base);
        }
    }
}

/// The cookie without its own Domain and Path (RFC 6265 §5.2: a user agent takes the last of each).
fn confined(cookie: &HeaderValue, base: &str) -> HeaderValue {
    let attributes = cookie.as_bytes().split(|byte| *byte == b';').enumerate();
    let kept = attributes.filter(|(index, attribute)| {
        let key = attribute.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        *index == 0 || ![&b"domain"[..], b"path"].iter().any(|it| key.eq_ignore_ascii_case(it))
    });
    let mut kept: Vec<_> = kept.map(|(_, attribute)| attribute).collect();
    let path = format!(" Path={base}");
    kept.push(path.as_bytes());
    // Of a value's bytes and a name's, so it is a value.
    HeaderValue::from_bytes(&kept.join(&b';')).unwrap_or_else(|_| HeaderValue::from_static(""))
}

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_goes_to_its_name_alone() {
        for (said, expected) in [
            ("a=b", "a=b; Path=/bob/"),
            ("a=b; Path=/; HttpOnly", "a=b; HttpOnly; Path=/bob/"),
            ("a=b; path = /alice/;DOMAIN=example.com; Secure", "a=b; Secure; Path=/bob/"),
            ("a=b; Domain; path", "a=b; Path=/bob/"),
            ("path=/x; Max-Age=1", "path=/x; Max-Age=1; Path=/bob/"),
            ("domain=\"x\"; Pathology=1", "domain=\"x\"; Pathology=1; Path=/bob/"),
        ] {
            let value = HeaderValue::from_static(said);
            assert_eq!(confined(&value, "/bob/"), expected, "{said}");
        }
        let odd = HeaderValue::from_bytes(b"a=\xff; Path=/").unwrap();
        assert_eq!(confined(&odd, "/bob/").as_bytes(), b"a=\xff; Path=/bob/");
    }
}
