//! Takes what the outbox holds to the backends, and tries again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{debug, error, info, warn};
use ptth_link::shutdown::Phase;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::exchange::Way;
use crate::outbox::{Counters, Counts, Delivery, Outbox};
use crate::policy::{Found, Policy, Route};
use crate::quota::network;
use crate::router::RouteId;
use crate::shard::Shard;

use super::attempt::{FIRST, LONGEST, Outcome, attempt, back_off};
use super::lane::{Lanes, Turn};

/// Why a request is tried no more.
enum Last {
    Delivered,
    Dropped(String),
    /// The process ends; they are counted together.
    Lost,
}

/// Delivers what the outbox holds until the end of the process, for all shards, so that each route has one order: once
/// that begins, nothing new is taken, and what can't be delivered within the grace is lost. Dropping the future ends it
/// at once; what is lost is counted all the same.
pub async fn run(shard: Arc<Shard>) {
    Dispatch(shard).run().await;
}

#[derive(Clone)]
struct Dispatch(Arc<Shard>);

impl Dispatch {
    async fn run(self) {
        let outbox = &self.0.outbox;
        let (mut draining, mut closing) = (self.0.shutdown.clone(), self.0.shutdown.clone());
        let mut tasks = JoinSet::new();
        let lanes = Lanes::default();
        let mut report = interval(REPORT);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tally = Tally { told: outbox.counts(), outbox: outbox.clone() };
        let mut ending = false;
        loop {
            for delivery in outbox.arrivals() {
                // Tasks of one thread begin in the order in which they were spawned, and a lane lets in the
                // first to ask: so a sender's requests set out in the order in which they came.
                tasks.spawn(self.clone().deliver(delivery, lanes.clone()));
            }
            if ending && tasks.is_empty() {
                break;
            }
            select! {
                () = outbox.news.notified() => {}
                Some(done) = tasks.join_next() => if let Err(err) = done && err.is_panic() {
                    error!("deliver: a delivery's task panicked: {err}");
                },
                _ = report.tick() => tally.report(),
                () = draining.reached(Phase::Draining), if !ending => {
                    ending = true;
                    outbox.close();
                }
                () = closing.reached(Phase::Closing) => break,
            }
        }
        tasks.shutdown().await;
    }

    /// One request's task: it waits for its turn on its route's lane, and again after each failure.
    async fn deliver(self, mut delivery: Delivery, lanes: Lanes) {
        let mut failed = None;
        let last = loop {
            let turn = self.turn(&delivery, &lanes, delivery.permit.route().clone()).await;
            // An attempt is large; most of those that wait aren't at one.
            let tried = Box::pin(self.try_once(&delivery, &lanes, turn)).await;
            let (why, after) = match tried {
                Ok((why, after)) => (why, after),
                Err(Last::Dropped(why)) => {
                    let failed = failed.map(|failed| format!("; the last attempt: {failed}"));
                    break Last::Dropped(format!("{why}{}", failed.unwrap_or_default()));
                }
                Err(last) => break last,
            };
            delivery.attempts += 1;
            self.pause(&delivery, &why, after).await;
            failed = Some(why);
        };
        self.end(&delivery, last);
    }

    /// Waits for a turn on the lane of `route`, or of the one where the host and path lead meanwhile.
    async fn turn(
        &self,
        delivery: &Delivery,
        lanes: &Lanes,
        mut route: RouteId,
    ) -> (RouteId, Turn) {
        loop {
            let lane = lanes.of(&route);
            let mut turn = pin!(lane.turn(network(delivery.address)));
            // Those in front may wait for a backend that this one doesn't need any more.
            let moved = async {
                loop {
                    match self.find(delivery) {
                        Some((_, found)) if found.route.id != route => {
                            break found.route.id.clone();
                        }
                        _ => sleep(LOOK).await,
                    }
                }
            };
            route = select! {
                biased;
                turn = &mut turn => return (route, turn),
                moved = moved => moved,
            };
        }
    }

    /// One attempt, as soon as there is a backend. Why it failed, and how long it is to be left alone; or how
    /// it ended.
    async fn try_once(
        &self,
        delivery: &Delivery,
        lanes: &Lanes,
        (mut route, mut turn): (RouteId, Turn),
    ) -> Result<(String, Option<Duration>), Last> {
        loop {
            if Instant::now() >= delivery.expires {
                return Err(Last::Dropped("nobody took it for a day".to_owned()));
            }
            // Anew each time: the policy in force says where the host and path lead now.
            let Some((policy, found)) = self.find(delivery) else {
                if self.rest().await {
                    continue;
                }
                return Err(Last::Lost);
            };
            if found.route.id != route {
                drop(turn);
                (route, turn) = self.turn(delivery, lanes, found.route.id.clone()).await;
                continue;
            }
            if !is_served(&found.route) {
                self.until_served(&found.route).await;
                if self.0.shutdown.is(Phase::Draining) && !is_served(&found.route) {
                    // No backend is let in any more.
                    return Err(Last::Lost);
                }
                // By then the policy may be another one.
                continue;
            }
            match attempt(delivery, &Way::new(&self.0, policy, found, delivery.address)).await {
                Outcome::Delivered(status) => {
                    let (id, status) = (delivery.id, status.as_u16());
                    debug!("deliver: {id} {route} status={status} retries={}", delivery.attempts);
                    return Err(Last::Delivered);
                }
                Outcome::Failed(why, after) => return Ok((why, after)),
                Outcome::Absent => {}
            }
        }
    }

    /// Where it goes by its host and path; `None` while that is nowhere.
    fn find(&self, delivery: &Delivery) -> Option<(Arc<Policy>, Found)> {
        let uri = &delivery.head.uri;
        let policy = self.0.registry.policy();
        let found = policy.find(uri.authority()?.as_str(), uri.path()).ok()?;
        Some((policy, found))
    }

    /// Waits a while. False if the process ends.
    async fn rest(&self) -> bool {
        let mut shutdown = self.0.shutdown.clone();
        select! {
            biased;
            () = shutdown.reached(Phase::Draining) => false,
            () = sleep(LOOK) => true,
        }
    }

    /// Waits for a backend, for a while: the route may be another one by then.
    async fn until_served(&self, route: &Route) {
        select! {
            biased;
            () = route.pool.until(|tunnels| tunnels.iter().any(|tunnel| !tunnel.is_draining())) => {}
            _ = self.rest() => {}
        }
    }

    /// Waits until the next attempt; with the end of the process near, only a moment.
    async fn pause(&self, delivery: &Delivery, why: &str, after: Option<Duration>) {
        self.count(|counters| &counters.retried);
        let mut shutdown = self.0.shutdown.clone();
        let (id, route, attempts) = (delivery.id, delivery.permit.route(), delivery.attempts);
        if shutdown.is(Phase::Draining) {
            debug!("deliver: {id} {route} failed attempts={attempts}: {why}");
            return sleep(FIRST).await;
        }
        let wait = back_off(attempts).max(after.unwrap_or_default().min(LONGEST));
        let seconds = wait.as_secs();
        debug!("deliver: {id} {route} failed attempts={attempts} again_in_s={seconds}: {why}");
        select! {
            () = sleep(wait) => {}
            () = shutdown.reached(Phase::Draining) => {}
        }
    }

    fn end(&self, delivery: &Delivery, last: Last) {
        match last {
            Last::Delivered => self.count(|counters| &counters.delivered),
            Last::Dropped(why) => {
                self.count(|counters| &counters.dropped);
                warn!("deliver: {} {} dropped: {why}", delivery.id, delivery.permit.route());
            }
            Last::Lost => {}
        }
    }

    fn count(&self, which: impl Fn(&Counters) -> &AtomicU64) {
        which(&self.0.outbox.counters).fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether some tunnel takes requests.
fn is_served(route: &Route) -> bool {
    route.pool.all().iter().any(|tunnel| !tunnel.is_draining())
}

/// Says what happened, now and then and at the end, however that comes.
struct Tally {
    outbox: Arc<Outbox>,
    told: Counts,
}

impl Tally {
    fn report(&mut self) {
        let counts = self.outbox.counts();
        if counts != self.told {
            self.told = counts;
            let (requests, bytes) = self.outbox.held();
            info!("deliver: {counts} waiting={requests} bytes={bytes}");
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.outbox.close();
        // What was taken and neither delivered nor dropped.
        let Counts { queued, delivered, dropped, .. } = self.outbox.counts();
        let lost = queued.saturating_sub(delivered).saturating_sub(dropped);
        if lost > 0 {
            self.outbox.counters.dropped.fetch_add(lost, Ordering::Relaxed);
            warn!("deliver: requests lost at the end, which had been answered: {lost}");
        }
        self.report();
    }
}

/// How often a request without a backend looks where its host and path lead now.
const LOOK: Duration = Duration::from_secs(10);
/// Often enough to be near what it tells of.
const REPORT: Duration = Duration::from_secs(60);
