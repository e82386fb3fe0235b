//! The tunnels of one process, among which a request that it gets may choose.

use std::sync::Arc;

use crate::live::Tunnel;

/// The tunnels of one process, as one shard sees them.
#[derive(Debug)]
pub(super) struct Backend {
    /// Those that the shard drives.
    near: Vec<Arc<Tunnel>>,
    /// The others: their locks are wanted by another thread, too.
    far: Vec<Arc<Tunnel>>,
}

impl Backend {
    /// Puts together what belongs to one process.
    pub(super) fn group(all: &[Arc<Tunnel>]) -> Vec<Vec<Arc<Tunnel>>> {
        let mut backends: Vec<Vec<Arc<Tunnel>>> = Vec::new();
        for tunnel in all {
            let same = |backend: &&mut Vec<Arc<Tunnel>>| {
                let first = backend.first();
                first.is_some_and(|first| first.identity.is_same_backend(&tunnel.identity))
            };
            match backends.iter_mut().find(same) {
                Some(backend) => backend.push(tunnel.clone()),
                None => backends.push(vec![tunnel.clone()]),
            }
        }
        backends
    }

    /// One of those groups, as that shard sees it.
    pub(super) fn seen_by(shard: usize, tunnels: &[Arc<Tunnel>]) -> Self {
        let (near, far) = tunnels.iter().cloned().partition(|tunnel| tunnel.shard == shard);
        Self { near, far }
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
