//! The last permits, which are kept for backends.
//!
//! A backend can't be told from a stranger before it has proven its key, and strangers come faster. So a slot
//! here is lent for two seconds, few to one network, and a connection that comes when all are taken takes the oldest
//! slot: of visitors first, which are here for door B alone, then of strangers, and of networks
//! that proved a key lately only for another such network.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Slot;
use crate::quota::Recent;

/// Which connection gives way: each to its equals and betters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    Visitor,
    Stranger,
    Proved,
}

/// The slots of connections that have proven nothing yet, the oldest first; and the networks that proved a key lately.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    slots: Vec<Arc<Slot>>,
    proved: Recent<IpAddr, MOST_PROVED, LATELY>,
}

impl Reserve {
    /// A slot, if `network` has few enough. With `full`, another connection loses its slot for it.
    pub(super) fn slot(&mut self, network: Option<IpAddr>, full: bool) -> Option<Arc<Slot>> {
        if network.is_some_and(|network| !self.has_room(network)) {
            return None;
        }
        let slot = Slot::new(network, Some(Instant::now() + UNPROVEN));
        if full {
            let ranks = self.slots.iter().map(|slot| self.rank(slot)).enumerate();
            let oldest = ranks.min_by_key(|(_, rank)| *rank);
            let (index, _) = oldest.filter(|(_, rank)| *rank <= self.rank(&slot))?;
            self.slots.remove(index).lose();
        }
        self.slots.push(slot.clone());
        Some(slot)
    }

    pub(super) fn has_room(&self, network: IpAddr) -> bool {
        self.slots.iter().filter(|slot| slot.network.get() == Some(&network)).count() < SHARE
    }

    pub(super) fn has(&self, slot: &Arc<Slot>) -> bool {
        self.slots.iter().any(|own| Arc::ptr_eq(own, slot))
    }

    pub(super) fn settle(&mut self, slot: &Arc<Slot>) {
        self.slots.retain(|own| !Arc::ptr_eq(own, slot));
    }

    pub(super) fn prove(&mut self, network: IpAddr) {
        self.proved.note(network);
    }

    fn rank(&self, slot: &Slot) -> Rank {
        match slot.network.get() {
            Some(network) if self.proved.has(network) => Rank::Proved,
            _ if slot.visitor.load(Ordering::Relaxed) => Rank::Visitor,
            _ => Rank::Stranger,
        }
    }
}

/// From accepting a connection to the first PONG of a backend that was let in: three round trips of the slowest link.
const UNPROVEN: Duration = Duration::from_secs(2);
/// Slots of one network: a client's tunnels come one after the other, or a few at once.
const SHARE: usize = 4;
/// How long a network counts as one that has backends, in seconds: as long as a laptop is shut over night.
const LATELY: u64 = 24 * 3600;
/// About 300 KB.
const MOST_PROVED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_gives_way_visitors_first_and_networks_with_backends_last() {
        let mut reserve = Reserve::default();
        reserve.prove(network(1).unwrap());
        let slots: Vec<_> = (1..=4).map(|n| reserve.slot(network(n), false).unwrap()).collect();
        [3, 0].into_iter().for_each(|n: usize| slots[n].visitor.store(true, Ordering::Relaxed));
        let mut losers = Vec::new();
        for newcomer in 5..=7 {
            let before: Vec<_> = (0..4).filter(|n| reserve.has(&slots[*n])).collect();
            let slot = reserve.slot(network(newcomer), true).unwrap();
            losers.extend(before.into_iter().find(|n| !reserve.has(&slots[*n])));
            reserve.settle(&slot);
        }
        assert_eq!(losers, [3, 1, 2]);
        assert!(reserve.slot(network(8), true).is_none(), "a stranger before who proved a key");
        tokio::time::advance(Duration::from_secs(LATELY)).await;
        assert_eq!(reserve.rank(&slots[0]), Rank::Visitor, "that is long ago");
    }

    #[test]
    fn one_that_has_backends_is_moved_by_its_like_alone() {
        let mut reserve = Reserve::default();
        reserve.prove(network(1).unwrap());
        reserve.prove(network(2).unwrap());
        let slot = reserve.slot(network(1), false).unwrap();
        assert!(reserve.slot(network(3), true).is_none());
        assert!(reserve.slot(network(2), true).is_some());
        assert!(slot.is_taken(), "it is somebody else's");
    }

    #[test]
    fn a_network_has_few_slots_until_it_proves_a_key() {
        let mut reserve = Reserve::default();
        let slots: Vec<_> = (0..9).filter_map(|_| reserve.slot(network(1), false)).collect();
        assert_eq!(slots.len(), SHARE);
        let behind_a_proxy = reserve.slot(None, false).unwrap();
        assert!(!reserve.has_room(network(1).unwrap()));
        reserve.settle(&behind_a_proxy);
        slots.iter().for_each(|slot| reserve.settle(slot));
        assert!(reserve.slot(network(1), false).is_some());
    }
}
