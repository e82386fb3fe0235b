//! Where a request goes, and where it goes when that has changed.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Uri};

use crate::config::NoBackend;
use crate::confine::confine;
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

    /// The same from the same address, to where the host and path lead now.
    pub(super) fn anew(&self, uri: &Uri) -> Option<Self> {
        let policy = self.shard.registry.policy();
        let found = policy.find(uri.authority()?.as_str(), uri.path()).ok()?;
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
