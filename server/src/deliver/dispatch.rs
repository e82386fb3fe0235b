//! Takes what the outbox holds to the backends, and tries again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};
use ptth_link::shutdown::Phase;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::exchange::Way;
use crate::outbox::{Counts, Delivery, Outbox};
use crate::policy::{Found, Policy, Route};
use crate::quota::network;
use crate::router::RouteId;
use crate::shard::Shard;

use super::attempt::{FIRST, LONGEST, Outcome, attempt, back_off};
use super::lane::{Lanes, Turn};

/// Delivers the requests of the outbox until the end of the process, for all shards, so that each route has one order.
/// When the end begins, no new request is taken, and a request that isn't delivered within the grace is lost. Dropping
/// the future ends it at once; lost requests are still counted.
pub async fn run(shard: Arc<Shard>) {
    let outbox = shard.outbox.clone();
    let (mut draining, mut closing) = (shard.shutdown.clone(), shard.shutdown.clone());
    let dispatch = Dispatch { shard, lanes: Lanes::default() };
    let mut tasks = JoinSet::new();
    let mut report = interval(REPORT);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tally = Tally { told: outbox.counts(), outbox: outbox.clone() };
    let mut ending = false;
    loop {
        for delivery in outbox.arrivals() {
            // Tasks of one thread begin in the order in which they were spawned, and a lane lets in the
            // first to ask: so a sender's requests set out in the order in which they came.
            tasks.spawn(dispatch.clone().deliver(delivery));
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

#[derive(Clone)]
struct Dispatch {
    shard: Arc<Shard>,
    lanes: Lanes,
}

impl Dispatch {
    /// One request's task: it waits for its turn on its route's lane, and again after each failure.
    async fn deliver(self, mut delivery: Delivery) {
        let outbox = &self.shard.outbox;
        let mut last = String::new();
        loop {
            let turn = self.turn(&delivery, delivery.permit.route().clone()).await;
            // An attempt is large; most of those that wait aren't at one.
            match Box::pin(self.try_once(&delivery, turn)).await {
                Some(Outcome::Failed(why, after)) => {
                    delivery.attempts += 1;
                    outbox.count(|counts| counts.retried += 1);
                    self.pause(&delivery, &why, after).await;
                    last = format!("; the last attempt: {why}");
                }
                Some(Outcome::Delivered(_)) => {
                    return outbox.count(|counts| counts.delivered += 1);
                }
                Some(Outcome::Expired) => {
                    outbox.count(|counts| counts.dropped += 1);
                    let (id, route) = (delivery.id, delivery.permit.route());
                    return warn!("deliver: {id} {route} dropped: nobody took it for a day{last}");
                }
                // Those that are lost are counted together.
                None => return,
            }
        }
    }

    /// Waits for a turn on the lane of `route`, or of the route that host and path lead to meanwhile.
    async fn turn(&self, delivery: &Delivery, mut route: RouteId) -> (RouteId, Turn) {
        loop {
            let lane = self.lanes.of(&route);
            let mut turn = pin!(lane.turn(network(delivery.address)));
            // The requests in front may wait for a backend that this request doesn't need any more.
            route = loop {
                if let Some((_, found)) = self.find(delivery)
                    && found.route.id != route
                {
                    break found.route.id.clone();
                }
                if let Ok(turn) = timeout(LOOK, &mut turn).await {
                    return (route, turn);
                }
            };
        }
    }

    /// One attempt, as soon as there is a backend. `None`: the process ends.
    async fn try_once(
        &self,
        delivery: &Delivery,
        (mut route, mut turn): (RouteId, Turn),
    ) -> Option<Outcome> {
        while Instant::now() < delivery.expires {
            // Anew each time: the policy in force says where the host and path lead now.
            let Some((policy, found)) = self.find(delivery) else {
                if self.rest().await {
                    continue;
                }
                return None;
            };
            if found.route.id != route {
                drop(turn);
                (route, turn) = self.turn(delivery, found.route.id.clone()).await;
                continue;
            }
            if !is_served(&found.route) {
                select! {
                    biased;
                    () = found.route.pool.until(|_| is_served(&found.route)) => {}
                    _ = self.rest() => {}
                }
                if self.shard.shutdown.is(Phase::Draining) && !is_served(&found.route) {
                    // No backend is let in any more.
                    return None;
                }
                // By then the policy may be another one.
                continue;
            }
            let way = Way::new(&self.shard, policy, found, delivery.address);
            if let Some(outcome) = attempt(delivery, &way).await {
                if let Outcome::Delivered(status) = outcome {
                    let (id, status) = (delivery.id, status.as_u16());
                    debug!("deliver: {id} {route} status={status} retries={}", delivery.attempts);
                }
                return Some(outcome);
            }
        }
        Some(Outcome::Expired)
    }

    /// The route of its host and path, if there is one now.
    fn find(&self, delivery: &Delivery) -> Option<(Arc<Policy>, Found)> {
        let uri = &delivery.head.uri;
        let policy = self.shard.registry.policy();
        let found = policy.find(uri.authority()?.as_str(), uri.path()).ok()?;
        Some((policy, found))
    }

    /// Waits a while. False if the process ends.
    async fn rest(&self) -> bool {
        timeout(LOOK, self.shard.shutdown.clone().reached(Phase::Draining)).await.is_err()
    }

    /// Waits until the next attempt; with the end of the process near, only a moment.
    async fn pause(&self, delivery: &Delivery, why: &str, after: Option<Duration>) {
        let mut shutdown = self.shard.shutdown.clone();
        let (id, route, attempts) = (delivery.id, delivery.permit.route(), delivery.attempts);
        if shutdown.is(Phase::Draining) {
            debug!("deliver: {id} {route} failed attempts={attempts}: {why}");
            return sleep(FIRST).await;
        }
        let wait = back_off(attempts).max(after.unwrap_or_default().min(LONGEST));
        let seconds = wait.as_secs();
        debug!("deliver: {id} {route} failed attempts={attempts} again_in_s={seconds}: {why}");
        let _ = timeout(wait, shutdown.reached(Phase::Draining)).await;
    }
}

/// Whether some tunnel takes requests.
fn is_served(route: &Route) -> bool {
    route.pool.all().iter().any(|tunnel| !tunnel.is_draining())
}

/// Logs the counts at intervals and at the end, also where the future is dropped.
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
        let Counts { queued, delivered, dropped, .. } = self.outbox.counts();
        let lost = queued.saturating_sub(delivered).saturating_sub(dropped);
        if lost > 0 {
            self.outbox.count(|counts| counts.dropped += lost);
            warn!("deliver: requests lost at the end, which had been answered: {lost}");
        }
        self.report();
    }
}

/// How often a request without a backend looks up its route again.
const LOOK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(60);
