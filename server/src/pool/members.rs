//! The tunnels of a pool, and what is known of them without looking at each: joining and leaving cost the same
//! among ten and among ten thousand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::identity::{Identity, Key};
use crate::live::{Tunnel, TunnelId};
use crate::quota::Counter;

use super::backend::Process;

#[derive(Debug, Default)]
pub(super) struct Members {
    /// In the order in which they came.
    tunnels: BTreeMap<TunnelId, Arc<Tunnel>>,
    /// The index of each backend in the views.
    backends: HashMap<Process, usize>,
    /// How many tunnels each credential has; none at all is one, too.
    credentials: Counter<Option<Key>>,
}

impl Members {
    /// Every tunnel, the oldest first.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.tunnels.values()
    }

    /// Adds a tunnel. The index of its backend, a new one at the end; `None` if it was here already.
    pub(super) fn insert(&mut self, tunnel: &Arc<Tunnel>) -> Option<usize> {
        if self.tunnels.insert(tunnel.id, tunnel.clone()).is_some() {
            return None;
        }
        self.credentials.add(tunnel.identity.key, [1]);
        let next = self.backends.len();
        Some(*self.backends.entry(Process::of(tunnel)).or_insert(next))
    }

    /// Takes a tunnel out, and the index of its backend, which stays until [`Self::vacate`].
    pub(super) fn remove(&mut self, id: TunnelId) -> Option<(Arc<Tunnel>, usize)> {
        let tunnel = self.tunnels.remove(&id)?;
        self.credentials.sub(&tunnel.identity.key, [1]);
        let index = self.backends.get(&Process::of(&tunnel)).copied()?;
        Some((tunnel, index))
    }

    /// The backend whose last tunnel this was is no more; `heir` has its index now.
    pub(super) fn vacate(&mut self, last: &Tunnel, heir: Option<Process>) {
        let index = self.backends.remove(&Process::of(last));
        if let Some((heir, index)) = heir.zip(index) {
            self.backends.insert(heir, index);
        }
    }

    /// The index of the backend that is called so.
    pub(super) fn index(&self, identity: &Identity) -> Option<usize> {
        self.backends.get(&Process::named(identity)?).copied()
    }

    /// How many tunnels are here by the credential of `identity`.
    pub(super) fn held_by(&self, identity: &Identity) -> usize {
        let [count] = self.credentials.of(&identity.key);
        count
    }
}
