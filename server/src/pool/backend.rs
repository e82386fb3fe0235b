//! The tunnels of one process, among which a request that it gets may choose.

use std::sync::Arc;

use crate::identity::{Identity, Key};
use crate::live::{Tunnel, TunnelId};

/// What tells the backends of a pool apart.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Process {
    /// The credential, and what its holder calls the process.
    Named(Key, String),
    /// A tunnel that says of no process that it is its own stands alone.
    Alone(TunnelId),
}

impl Process {
    pub(super) fn of(tunnel: &Tunnel) -> Self {
        Self::named(&tunnel.identity).unwrap_or(Self::Alone(tunnel.id))
    }

    pub(super) fn named(identity: &Identity) -> Option<Self> {
        let named = !identity.instance.is_empty();
        identity.key.filter(|_| named).map(|key| Self::Named(key, identity.instance.clone()))
    }
}

/// The tunnels of one process.
pub(super) type Backend = Vec<Arc<Tunnel>>;

pub(super) fn in_flight(backend: &Backend) -> usize {
    backend.iter().map(|tunnel| tunnel.in_flight()).sum()
}

/// The one with the fewest streams in flight, of those that `shard` drives: the locks of others are wanted by another
/// thread, too. Among equals another one at each turn.
pub(super) fn best(
    backend: &Backend,
    (shard, turn): (usize, usize),
    suits: impl Fn(&&Arc<Tunnel>) -> bool,
) -> Option<&Arc<Tunnel>> {
    let free = turned(backend, turn).filter(suits);
    free.min_by_key(|tunnel| (tunnel.shard != shard, tunnel.in_flight()))
}

/// All of them, beginning with another one at each turn.
pub(super) fn turned<T>(items: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, after) = items.split_at(turn % items.len().max(1));
    after.iter().chain(before)
}
