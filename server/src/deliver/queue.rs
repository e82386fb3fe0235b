//! The order in which requests are delivered.
//!
//! On each route the addresses take turns, and each has at most half of the attempts that it finds free: what one
//! sender's requests hang on holds up no other sender's.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::quota::Counter;
use crate::router::RouteId;

use ptth_link::lock::Mutex;

/// What waits, and how much of each route and address is under way.
pub(super) struct Queue<T> {
    /// With the route that each led to at the last look.
    waiting: VecDeque<(Key, T)>,
    under_way: UnderWay,
    at_once: usize,
}

type Key = (RouteId, IpAddr);
/// By route, and by route and address.
type UnderWay = Arc<Mutex<Counter<(RouteId, Option<IpAddr>)>>>;

/// The right to one attempt, until dropped.
pub(super) struct Turn {
    under_way: UnderWay,
    key: Key,
}

impl<T> Queue<T> {
    pub(super) fn new(at_once: usize) -> Self {
        Self { waiting: VecDeque::new(), under_way: Arc::default(), at_once }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, route: RouteId, address: IpAddr, item: T) {
        self.waiting.push_back(((route, address), item));
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.waiting.retain(|(_, item)| keep(item));
    }

    /// Takes out what may begin now. `leads` says to which route a request leads, and by what way; a request that leads
    /// nowhere waits on, and holds up none behind it.
    pub(super) fn begin<W>(
        &mut self,
        leads: impl Fn(&T) -> Option<(RouteId, W)>,
    ) -> Vec<(T, W, Turn)> {
        let (mut begun, mut left) = (Vec::new(), VecDeque::new());
        while let Some((mut key, item)) = self.waiting.pop_front() {
            let turn = leads(&item).and_then(|(route, way)| {
                key.0 = route;
                Some((way, self.turn(&key)?))
            });
            let Some((way, turn)) = turn else {
                left.push_back((key, item));
                continue;
            };
            begun.push((item, way, turn));
            // The others of this address have their turn after those of all others.
            let all = std::mem::take(&mut self.waiting).into_iter();
            let (own, others): (VecDeque<_>, _) = all.partition(|(other, _)| *other == key);
            self.waiting = others;
            self.waiting.extend(own);
        }
        self.waiting = left;
        begun
    }

    fn turn(&self, key: &Key) -> Option<Turn> {
        let mut counts = self.under_way.lock();
        let [all, own] = both(key).map(|key| counts.of(&key)[0]);
        let free = self.at_once.saturating_sub(all);
        if free == 0 || own > 0 && own >= (free + own) / 2 {
            return None;
        }
        both(key).into_iter().for_each(|key| counts.add(key, [1]));
        Some(Turn { under_way: self.under_way.clone(), key: key.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.under_way.lock();
        both(&self.key).iter().for_each(|key| counts.sub(key, [1]));
    }
}

fn both((route, address): &Key) -> [(RouteId, Option<IpAddr>); 2] {
    [(route.clone(), None), (route.clone(), Some(*address))]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn queue(at_once: usize, items: impl IntoIterator<Item = (u8, char)>) -> Queue<char> {
        let mut queue = Queue::new(at_once);
        items.into_iter().for_each(|(address, item)| push(&mut queue, address, item));
        queue
    }

    fn route(of: char) -> RouteId {
        RouteId::Name(if of.is_ascii_uppercase() { "upper" } else { "lower" }.to_owned())
    }

    fn push(queue: &mut Queue<char>, address: u8, item: char) {
        queue.push(route(item), Ipv4Addr::new(192, 0, 2, address).into(), item);
    }

    fn begin(queue: &mut Queue<char>) -> (String, Vec<Turn>) {
        let begun = queue.begin(|item| (*item != '-').then(|| (route(*item), ())));
        begun.into_iter().map(|(item, (), turn)| (item, turn)).unzip()
    }

    /// Three hundred of one sender that hang leave room for another's at once.
    #[test]
    fn one_address_holds_up_no_other() {
        let mut queue = queue(8, (0..300).map(|_| (1, 'a')));
        let (begun, mut hanging) = begin(&mut queue);
        assert_eq!(begun, "aaaa");
        for address in 2..=5 {
            push(&mut queue, address, 'b');
            let (begun, turns) = begin(&mut queue);
            assert_eq!(begun, "b", "{address}");
            hanging.extend(turns);
        }
        push(&mut queue, 6, 'c');
        assert_eq!(begin(&mut queue).0, "", "eight are under way");
        push(&mut queue, 6, 'C');
        assert_eq!(begin(&mut queue).0, "C", "another route");
        drop(hanging);
        assert_eq!(begin(&mut queue).0, "acaa");
        assert!(queue.under_way.lock().all().next().is_none(), "nothing is remembered");
    }

    /// However many of one wait, the others come in between; and the first of each comes first.
    #[test]
    fn addresses_take_turns_and_each_keeps_its_order() {
        let mut queue =
            queue(1, [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'd'), (3, 'e'), (3, 'f'), (2, '-')]);
        let order: String = (0..7).map(|_| begin(&mut queue).0).collect();
        assert_eq!(order, "adebfc");
        assert_eq!(queue.waiting.len(), 1, "it leads nowhere");
    }
}
