//! Where a request goes, and where it goes when that has changed.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};

use crate::config::NoBackend;
use crate::confine::confine;
use crate::policy::{Found, Policy, Route};
use crate::pool::{Lease, NoTunnel, TunnelId};
use crate::quota::Share;
use crate::registry::Registry;

/// What an exchange needs of the gateway.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// The gateway's tunnels.
    pub registry: &'a Registry,
    /// The policy by which the route was found.
    pub policy: Arc<Policy>,
    /// Where it goes.
    pub route: Arc<Route>,
    /// How many bytes of the path are the route's prefix, which stays here.
    pub strip: usize,
    /// Whether the response is one of a dynamic name on a host that others share.
    pub confined: bool,
    /// The thread that this runs on.
    pub shard: usize,
    /// What the visitor's address has of the route's tunnels.
    pub share: Arc<Share>,
    /// From the last sign of the upload to the response's head.
    pub head_timeout: Duration,
    /// For a response under way of which nothing moves.
    pub stall_timeout: Duration,
}

impl Way<'_> {
    /// The same from the same address, to where the host and path lead now.
    pub(super) fn anew(&self, uri: &Uri) -> Option<Self> {
        let policy = self.registry.policy();
        let found = policy.find(uri.authority()?.as_str(), uri.path()).ok()?;
        let Found { route, strip, confined } = found;
        let share = route.pool.share(self.share.address);
        Some(Self { policy, route, strip, confined, share, ..self.clone() })
    }

    /// Whether that is elsewhere by now.
    fn has_moved(&self, uri: &Uri) -> bool {
        let other = |way: &Self| !Arc::ptr_eq(&way.route.pool, &self.route.pool);
        !Arc::ptr_eq(&self.policy, &self.registry.policy())
            && self.anew(uri).as_ref().is_none_or(other)
    }

    /// The right to a stream, perhaps after a wait. A target whose prefix is stripped leads nowhere any more.
    pub(super) async fn lease(
        &self,
        target: Option<&Uri>,
        avoid: &[TunnelId],
    ) -> Result<Lease, NoTunnel> {
        let (pool, patience) = (&self.route.pool, self.registry.patience(&self.route));
        let moved = || target.is_some_and(|uri| self.has_moved(uri));
        match (
            pool.acquire(&self.share, self.shard, avoid, patience, &moved).await,
            &self.route.no_backend,
        ) {
            (Err(NoTunnel::Absent), NoBackend::Origin(address)) => {
                self.registry.fallbacks.lease(address, self.share.address, self.shard).await
            }
            (found, _) => found,
        }
    }

    /// Takes out of a response what its backend may not say there.
    pub(super) fn confine(&self, fields: &mut HeaderMap) {
        if self.confined {
            confine(fields, &self.route.base);
        }
    }
}
