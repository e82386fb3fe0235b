//! The order in which requests of one route are delivered.
//!
//! The addresses take turns, and each has at most half of the attempts that it finds free: what one sender's
//! requests hang on holds up no other sender's.

use std::collections::VecDeque;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::quota::{Counter, InUse};
use crate::router::RouteId;

use ptth_link::lock::Mutex;

/// The lanes of all routes for which there is something to deliver.
#[derive(Clone, Default)]
pub(super) struct Lanes(Arc<Mutex<InUse<RouteId, Lane>>>);

impl Lanes {
    pub(super) fn of(&self, route: &RouteId) -> Arc<Lane> {
        let mut lanes = self.0.lock();
        lanes.of(route, || Lane::new(AT_ONCE))
    }
}

pub(super) struct Lane(Mutex<State>);

struct State {
    free: usize,
    under_way: Counter<IpAddr>,
    /// Waiting requests, by address; the address whose turn is next in front. No address is empty.
    waiting: VecDeque<(IpAddr, VecDeque<oneshot::Sender<Turn>>)>,
}

/// The right to one attempt, until dropped.
pub(super) struct Turn {
    /// `None` once it was given back.
    lane: Option<Arc<Lane>>,
    address: IpAddr,
}

impl Lane {
    fn new(attempts: usize) -> Arc<Self> {
        let (under_way, waiting) = Default::default();
        Arc::new(Self(Mutex::new(State { free: attempts, under_way, waiting })))
    }

    /// Waits for a turn; those of one address come in the order in which this is first polled. Cancel safe: a
    /// turn that comes to a request that is gone goes to the next.
    pub(super) async fn turn(self: &Arc<Self>, address: IpAddr) -> Turn {
        let (sender, turn) = oneshot::channel();
        self.0.lock().queue(address, sender);
        self.hand_out();
        match turn.await {
            Ok(turn) => turn,
            // The lane drops no sender that it didn't use.
            Err(_) => pending().await,
        }
    }

    fn hand_out(self: &Arc<Self>) {
        loop {
            let Some((address, sender)) = self.0.lock().next() else { return };
            if let Err(mut turn) = sender.send(Turn { lane: Some(self.clone()), address }) {
                // The request is gone: the next one has it, by this loop and not by the drop.
                turn.lane = None;
                self.0.lock().give_back(address);
            }
        }
    }
}

impl State {
    fn queue(&mut self, address: IpAddr, sender: oneshot::Sender<Turn>) {
        match self.waiting.iter_mut().find(|(other, _)| *other == address) {
            Some((_, queue)) => queue.push_back(sender),
            None => self.waiting.push_back((address, VecDeque::from([sender]))),
        }
    }

    fn next(&mut self) -> Option<(IpAddr, oneshot::Sender<Turn>)> {
        let may = |(address, _): &(IpAddr, _)| {
            let [has] = self.under_way.of(address);
            has == 0 || has < (self.free + has) / 2
        };
        let index = self.waiting.iter().position(may).filter(|_| self.free > 0)?;
        let (address, mut queue) = self.waiting.remove(index)?;
        let sender = queue.pop_front()?;
        if !queue.is_empty() {
            self.waiting.push_back((address, queue));
        }
        self.free -= 1;
        self.under_way.add(address, [1]);
        Some((address, sender))
    }

    fn give_back(&mut self, address: IpAddr) {
        self.free += 1;
        self.under_way.sub(&address, [1]);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            lane.0.lock().give_back(self.address);
            lane.hand_out();
        }
    }
}

/// Requests of one route under way at a time. More would come to the origin in any order; fewer would let
/// one that hangs hold up all others for its two minutes.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    async fn came(turn: &mut tokio::task::JoinHandle<Turn>) -> bool {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        turn.is_finished()
    }

    /// Three hundred of one sender that hang leave room for another's at once.
    #[tokio::test]
    async fn one_address_holds_up_no_other() {
        let lane = Lane::new(8);
        let ask = |n: u8| {
            let lane = lane.clone();
            tokio::spawn(async move { lane.turn(address(n)).await })
        };
        let mut hanging: Vec<_> = (0..300).map(|_| ask(1)).collect();
        assert!(!came(&mut hanging[299]).await);
        let begun = hanging.iter().filter(|turn| turn.is_finished()).count();
        assert_eq!(begun, 4);
        for n in 2..=5 {
            assert!(came(&mut ask(n)).await, "{n}");
        }
        hanging.clear();
    }

    /// However many of one wait, the others come in between; and the first of each comes first.
    #[tokio::test]
    async fn addresses_take_turns_and_each_keeps_its_order() {
        let lane = Lane::new(1);
        let first = lane.turn(address(9)).await;
        let begun = Arc::new(Mutex::new(String::new()));
        let mut asking = tokio::task::JoinSet::new();
        for (n, letter) in [(1, 'a'), (1, 'b'), (1, 'c'), (2, 'd'), (3, 'e'), (3, 'f')] {
            let (lane, begun) = (lane.clone(), begun.clone());
            asking.spawn(async move {
                let _turn = lane.turn(address(n)).await;
                begun.lock().push(letter);
            });
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        drop(first);
        asking.join_all().await;
        assert_eq!(*begun.lock(), "adebfc");
    }

    /// What waited and was given up takes no turn from those behind it.
    #[tokio::test]
    async fn who_is_gone_is_passed_over() {
        let lane = Lane::new(1);
        let first = lane.turn(address(1)).await;
        let ask = |n: u8| {
            let lane = lane.clone();
            tokio::spawn(async move { lane.turn(address(n)).await })
        };
        let (gone, mut next) = (ask(2), ask(3));
        assert!(!came(&mut next).await);
        gone.abort();
        let _ = gone.await;
        drop(first);
        assert!(came(&mut next).await);
    }
}
