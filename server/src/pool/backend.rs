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

/// The tunnels of one process, as one shard sees them.
#[derive(Debug, Default)]
pub(super) struct Backend {
    /// Those that the shard drives.
    near: Vec<Arc<Tunnel>>,
    /// The others: their locks are wanted by another thread, too.
    far: Vec<Arc<Tunnel>>,
}

impl Backend {
    /// Adds a tunnel, for the view of `shard`.
    pub(super) fn add(&mut self, shard: usize, tunnel: &Arc<Tunnel>) {
        let side = if tunnel.shard == shard { &mut self.near } else { &mut self.far };
        side.push(tunnel.clone());
    }

    pub(super) fn remove(&mut self, id: TunnelId) {
        self.near.retain(|tunnel| tunnel.id != id);
        self.far.retain(|tunnel| tunnel.id != id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }

    /// Whose tunnels they are, if there are any.
    pub(super) fn process(&self) -> Option<Process> {
        self.tunnels().next().map(|tunnel| Process::of(tunnel))
    }

    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.near.iter().chain(&self.far)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.tunnels().map(|tunnel| tunnel.in_flight()).sum()
    }

    /// The one with the fewest streams in flight; among equals another one at each turn.
    pub(super) fn best(
        &self,
        turn: usize,
        suits: impl Fn(&&Arc<Tunnel>) -> bool,
    ) -> Option<&Arc<Tunnel>> {
        [&self.near, &self.far].into_iter().find_map(|tunnels| {
            let free = turned(tunnels, turn).filter(&suits);
            free.min_by_key(|tunnel| tunnel.in_flight())
        })
    }
}

/// All of them, beginning with another one at each turn.
pub(super) fn turned<T>(items: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let (before, after) = items.split_at(turn % items.len().max(1));
    after.iter().chain(before)
}
