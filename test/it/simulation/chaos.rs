//! What goes wrong, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::actors::{Levers, Order};
use super::{Dice, Ledger, visitors};

/// Pulls levers while visitors ask, then lets the weather clear and sees that requests succeed again.
pub(super) async fn run(mut dice: Dice, levers: Levers, ledger: Ledger, done: Arc<AtomicU64>) {
    while done.load(Ordering::Relaxed) < visitors::COUNT {
        sleep(Duration::from_millis(200) + dice.millis(6000)).await;
        let backend = dice.below(2) as usize;
        let name = ["a", "b"][backend];
        let lever = &levers.backends[backend];
        let orders = [Order::Drain, Order::Crash, Order::Double, Order::Roll];
        match dice.below(10) {
            0..=4 => {
                let _ = lever.send(orders[dice.below(4) as usize]);
            }
            // Packets vanish: a connection that lost one stands still for ever, as behind a NAT that forgot it.
            5 | 6 => {
                turmoil::partition("gateway", name);
                sleep(dice.millis(30_000)).await;
                turmoil::repair("gateway", name);
            }
            // One way only.
            7 => {
                let (from, to) = if dice.one_in(2) { ("gateway", name) } else { (name, "gateway") };
                turmoil::partition_oneway(from, to);
                sleep(dice.millis(25_000)).await;
                turmoil::repair_oneway(from, to);
            }
            // They are only late.
            8 => {
                turmoil::hold("gateway", name);
                sleep(dice.millis(25_000)).await;
                turmoil::release("gateway", name);
            }
            _ => {
                let order = if dice.one_in(2) { Order::Drain } else { Order::Crash };
                let _ = levers.gateway.send(order);
            }
        }
    }
    visitors::recovers(&ledger).await;
    // The levers live until here: an actor whose lever is gone would wait for ever.
    drop(levers);
}
