//! Requests that wait for room on a pool's tunnels, and what is ended to make it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Lease, NoTunnel, Pool, TunnelId, has_its_part};
use crate::quota::Share;

impl Pool {
    /// Waits for room, and for the address's part of it, until `deadline`.
    pub(super) async fn queue(
        &self,
        share: &Arc<Share>,
        shard: usize,
        avoid: &[TunnelId],
        deadline: Instant,
    ) -> Result<Lease, NoTunnel> {
        let (mut permit, mut pressing, mut woken, mut turn) = (None, None, false, 0);
        loop {
            // Enabled, neither of the two is missed; so look once more before waiting. A request that waits for a part
            // of its own address doesn't take the signals of those that only wait for room.
            let mut returned = std::pin::pin!(share.streams.freed());
            returned.as_mut().enable();
            if self.view(shard).is_some_and(|view| has_its_part(&view, share)) {
                (permit, pressing) = (None, None);
                if std::mem::take(&mut woken) {
                    // The room that woke this request is for another one.
                    self.lobby.freed.notify_one();
                }
                let _permit = share.waiting.take(QUEUE).ok_or(NoTunnel::Full)?;
                // What others give back makes its part larger, too, without a signal.
                let look = deadline.min(Instant::now() + LOOK);
                if timeout_at(look, returned).await.is_err() && look == deadline {
                    return Err(NoTunnel::Full);
                }
                continue;
            }
            if permit.is_none() {
                permit = Some(self.lobby.wait(QUEUE).ok_or(NoTunnel::Full)?);
            }
            let mut freed = std::pin::pin!(self.lobby.freed.notified());
            freed.as_mut().enable();
            match self.lease(share, shard, avoid) {
                Err(NoTunnel::Full) => {}
                other => return other,
            }
            pressing = pressing.or_else(|| Pressing::begin(self));
            let next = if pressing.is_some() { Instant::now() + PRESS } else { deadline };
            woken = timeout_at(next.min(deadline), freed).await.is_ok();
            if !woken && next >= deadline {
                return Err(NoTunnel::Full);
            } else if !woken {
                self.press(shard, turn);
                turn = (turn + 1) % TURNS;
            }
        }
    }

    /// Asks streams whose visitors don't read to make room for the requests that wait.
    fn press(&self, shard: usize, turn: u32) {
        let (view, waiting) = (self.view(shard), self.lobby.waiting());
        let tunnels = view.iter().flat_map(|it| it.values()).flatten();
        let full = tunnels.filter(|tunnel| !tunnel.has_room());
        full.for_each(|tunnel| tunnel.tally.press(waiting, turn));
    }
}

/// One of the requests that wait for room presses for all of them; when it goes, the next one does.
struct Pressing<'a>(&'a Pool);

impl<'a> Pressing<'a> {
    fn begin(pool: &'a Pool) -> Option<Self> {
        (!pool.pressing.swap(true, Ordering::Relaxed)).then_some(Self(pool))
    }
}

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        self.0.pressing.store(false, Ordering::Relaxed);
        self.0.lobby.freed.notify_one();
    }
}

/// Requests that may wait for a stream, and those of one address that may wait for its part of them: as many as
/// one burst of a thousand.
const QUEUE: usize = 1000;
/// How often an address that has its part of the room looks whether that has grown.
const LOOK: Duration = Duration::from_millis(250);
/// How long a request waits for room before streams that nobody reads are ended for it, and between two turns of
/// that. After all turns, within a second, those of the smallest holders were asked.
const PRESS: Duration = Duration::from_millis(50);
const TURNS: u32 = 14;
