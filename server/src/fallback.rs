//! The backend in this process that answers for a route without one, from an origin that the operator named.
//!
//! The client's own half answers at the other end of a pipe, so that to the rest of the gateway it is one more tunnel.
//! It has no grants, since it is in no route's pool.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ptth_client::config::{OriginAddress, OriginOptions};
use ptth_client::origin::Origin;
use ptth_client::serve::{Answering, answer};
use ptth_link::budget::Budget;
use ptth_link::h2::Asking;
use ptth_link::h2::window::Window;
use ptth_link::limits::{BODY_BUDGET, TUNNEL_STREAMS};
use ptth_link::shutdown::{Trigger, channel};
use tokio::io::duplex;
use tokio::select;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::identity::Identity;
use crate::live::Tunnel;
use crate::pool::{Lease, NoTunnel, Pool};

#[derive(Debug)]
pub(crate) struct Fallbacks {
    known: Mutex<HashMap<String, Fallback>>,
    /// The gateway's threads, on whichever a visitor is.
    shards: usize,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Fallback {
    pool: Arc<Pool>,
    /// The two ends of its pipe, which end when this is dropped.
    _running: JoinSet<()>,
    /// Dropped, the far end would drain.
    _trigger: Trigger,
}

impl Fallbacks {
    pub(crate) fn new(shards: usize) -> Self {
        Self { known: Mutex::default(), shards, budget: Budget::new(BODY_BUDGET) }
    }

    /// A stream to the origin, for a visitor. Cancel safe.
    ///
    /// # Errors
    /// [`NoTunnel`]: it has all the streams that it may, or it can't be had at all.
    pub(crate) async fn lease(
        &self,
        address: &OriginAddress,
        visitor: IpAddr,
        shard: usize,
    ) -> Result<Lease, NoTunnel> {
        let mut known = self.known.lock().await;
        let key = address.to_string();
        let lease = |it: &Fallback| it.pool.lease(&it.pool.share(visitor), shard, &[]);
        if let Some(fallback) = known.get(&key) {
            match lease(fallback) {
                Err(NoTunnel::Absent) => {}
                found => return found,
            }
        }
        let pool = Pool::new(self.shards);
        // Requests that come meanwhile wait for the same one, behind the lock.
        let begun = timeout(BEGIN, Fallback::begin(address, shard, pool, &self.budget)).await;
        let fallback = begun.ok().flatten().ok_or(NoTunnel::Absent)?;
        let lease = lease(&fallback);
        known.insert(key, fallback);
        lease
    }
}

impl Fallback {
    async fn begin(
        address: &OriginAddress,
        shard: usize,
        pool: Arc<Pool>,
        budget: &Arc<Budget>,
    ) -> Option<Self> {
        let (mut reading, to) = (JoinSet::new(), address.clone());
        // It reads the system's certificates.
        reading.spawn_blocking(move || Origin::new(to, &OriginOptions::default()));
        let service = reading.join_next().await?.ok()?.ok()?;
        let (near, far) = duplex(PIPE);
        let (trigger, drain) = channel();
        let (up, _) = oneshot::channel();
        let answering = Answering {
            pulse: Arc::default(),
            journal: Default::default(),
            announced: Default::default(),
            budget: budget.part(),
            covers: None,
            ours: true,
            streams: TUNNEL_STREAMS,
            explain: Default::default(),
            opening: None,
        };
        let mut running = JoinSet::new();
        running.spawn(async move {
            answer(far, service, answering, drain, up).await;
        });
        let part = budget.part();
        let window = Window::tunnel(part.clone(), true);
        let (sender, mut engine) = Asking::asking(near, (), window).await.ok()?;
        // From then on it is known whether it takes WebSockets.
        engine.answered().await.ok()?;
        let tunnel = Tunnel::new(shard, (Identity::default(), Vec::new()), part, sender);
        let driven = tunnel.clone();
        running.spawn(async move {
            let mut look = interval(RELEASE);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                select! {
                    _ = poll_fn(|cx| engine.poll(cx, driven.load(), |_, _| {})) => break,
                    _ = look.tick() => {
                        driven.reset_limiter.release();
                    }
                }
            }
            driven.drain();
        });
        pool.add(&tunnel);
        Some(Self { pool, _running: running, _trigger: trigger })
    }
}

const PIPE: usize = 256 * 1024;
/// For certificates to be read, and two ends of a pipe to greet each other.
const BEGIN: Duration = Duration::from_secs(5);
const RELEASE: Duration = Duration::from_secs(1);
