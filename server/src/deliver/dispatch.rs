//! Takes what the outbox holds to the backends, and tries again.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use log::{debug, error, info, warn};
use ptth_link::body::Body;
use ptth_link::crypto;
use ptth_link::shutdown::Phase;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::error::ExchangeError;
use crate::exchange::{Exchange, Way, ask};
use crate::observe::Record;
use crate::outbox::{Counts, Delivery, Outbox};
use crate::policy::{Found, Policy};
use crate::quota::network;
use crate::shard::Shard;

use super::queue::{Queue, Turn};

/// Delivers the requests of the outbox until the end of the process, for all shards, so that each route has one order.
/// When the end begins, no new request is taken, and a request that isn't delivered within the grace is lost. Dropping
/// the future ends it at once; lost requests are still counted.
pub async fn run(shard: Arc<Shard>) {
    let outbox = shard.outbox.clone();
    let (mut draining, mut closing) = (shard.shutdown.clone(), shard.shutdown.clone());
    // Dropped last, when nothing is kept any more.
    let mut tally = Tally { told: outbox.counts(), outbox: outbox.clone() };
    let (mut queue, mut tasks) = (Queue::new(AT_ONCE), JoinSet::new());
    let (mut report, mut look) = (interval(REPORT), interval(LOOK));
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ending = false;
    loop {
        // Made before the look, it misses no tunnel that comes after it.
        let changed = shard.registry.changed();
        outbox.arrivals().into_iter().for_each(|delivery| push(&mut queue, Box::new(delivery)));
        begin(&shard, &mut queue, &mut tasks, ending);
        if ending && tasks.is_empty() {
            break;
        }
        select! {
            () = outbox.news.notified() => {}
            () = changed => {}
            _ = look.tick(), if !queue.is_empty() => {}
            Some(done) = tasks.join_next() => match done {
                Ok(again) => again.into_iter().for_each(|delivery| push(&mut queue, delivery)),
                Err(err) if err.is_panic() => error!("deliver: a delivery's task panicked: {err}"),
                Err(_) => {}
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

fn push(queue: &mut Queue<Box<Delivery>>, delivery: Box<Delivery>) {
    queue.push(delivery.permit.route().clone(), network(delivery.address), delivery);
}

/// Begins each attempt that may begin now, and gives up what is too late.
fn begin(
    shard: &Arc<Shard>,
    queue: &mut Queue<Box<Delivery>>,
    tasks: &mut JoinSet<Option<Box<Delivery>>>,
    ending: bool,
) {
    // The policy in force says where the host and path lead now.
    let policy = shard.registry.policy();
    let find = |delivery: &Delivery| {
        let uri = &delivery.head.uri;
        let found = policy.find(uri.authority()?.as_str(), uri.path()).ok();
        found.filter(|found| found.route.pool.is_served())
    };
    queue.retain(|delivery| {
        let late = delivery.expires <= Instant::now();
        if late {
            shard.outbox.count(|counts| counts.dropped += 1);
            let (id, route, last) = (delivery.id, delivery.permit.route(), &delivery.last);
            warn!("deliver: {id} {route} dropped: no backend took it for a day{last}");
        }
        // At the end no backend is let in any more. Those that are lost are counted together.
        !late && (!ending || find(delivery).is_some())
    });
    // Tasks of one thread begin in the order in which they were spawned, so a sender's requests set out as they came.
    for (delivery, found, turn) in queue.begin(|it| {
        let found = find(it)?;
        Some((found.route.id.clone(), found))
    }) {
        tasks.spawn(deliver(shard.clone(), delivery, policy.clone(), found, turn));
    }
}

/// One attempt, and the pause after a failure. The request, if it is to wait for its turn again.
async fn deliver(
    shard: Arc<Shard>,
    mut delivery: Box<Delivery>,
    policy: Arc<Policy>,
    found: Found,
    turn: Turn,
) -> Option<Box<Delivery>> {
    let (outbox, id, route) = (&shard.outbox, delivery.id, found.route.id.clone());
    let way = Way::new(&shard, policy, found, delivery.address);
    // An attempt is large; most of those that are here pause.
    let outcome = Box::pin(attempt(&delivery, &way)).await;
    drop((turn, way));
    let (why, after) = match outcome {
        None => return Some(delivery),
        Some(Ok(status)) => {
            let (status, attempts) = (status.as_u16(), delivery.attempts);
            debug!("deliver: {id} {route} status={status} retries={attempts}");
            outbox.count(|counts| counts.delivered += 1);
            return None;
        }
        Some(Err(failure)) => failure,
    };
    // Its turn is another request's now.
    outbox.news.notify_one();
    delivery.attempts += 1;
    outbox.count(|counts| counts.retried += 1);
    let (attempts, mut shutdown) = (delivery.attempts, shard.shutdown.clone());
    if shutdown.is(Phase::Draining) {
        // With the end of the process near, only a moment.
        debug!("deliver: {id} {route} failed attempts={attempts}: {why}");
        sleep(FIRST).await;
    } else {
        let wait = back_off(attempts).max(after.unwrap_or_default().min(LONGEST));
        let seconds = wait.as_secs();
        debug!("deliver: {id} {route} failed attempts={attempts} again_in_s={seconds}: {why}");
        let _ = timeout(wait, shutdown.reached(Phase::Draining)).await;
    }
    delivery.last = format!("; the last attempt: {why}");
    Some(delivery)
}

/// What the origin answered, if it has the request; or why the attempt failed, and the shortest pause before the next one.
type Outcome = Result<StatusCode, (String, Option<Duration>)>;

/// Tries once. `None`: there was no backend to ask. Dropping the future resets the stream.
async fn attempt(delivery: &Delivery, way: &Way<'_>) -> Option<Outcome> {
    let data = Full::new(delivery.body.clone());
    let body = match delivery.trailers.clone() {
        None => Either::Left(data),
        Some(trailers) => Either::Right(data.with_trailers(ready(Some(Ok(trailers))))),
    };
    match ask(way, Box::new(delivery.head.clone()), body, &mut |_, _| {}, &mut Record::default())
        .await
    {
        Ok((response, exchange)) => {
            let (head, body) = response.into_parts();
            drain(body, exchange).await;
            Some(judge(head.status, &head.headers))
        }
        Err(ExchangeError::Absent(_) | ExchangeError::Moved) => None,
        Err(err) => Some(Err((err.to_string(), None))),
    }
}

/// A 5xx is a fault of the origin, and 408 and 429 ask for another attempt. Any other answer is about the request
/// itself, and would be the same the next time.
fn judge(status: StatusCode, fields: &HeaderMap) -> Outcome {
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if !status.is_server_error() && !passing.contains(&status) {
        return Ok(status);
    }
    // In seconds alone: a date would be by the origin's clock.
    let after = fields.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err((format!("status {}", status.as_u16()), after.map(Duration::from_secs)))
}

/// Reads a short response to its end, so that its stream isn't reset.
async fn drain(body: Body, exchange: Exchange) {
    let reading = async move {
        let mut body = Limited::new(body, DRAINED);
        while let Some(Ok(_)) = body.frame().await {}
    };
    // Late or not, the head has come, and that is what counts.
    let _ = timeout(DRAINING, async { tokio::join!(exchange, reading) }).await;
}

/// It doubles from two seconds to five minutes, less up to a half at random: what failed together comes back apart.
fn back_off(attempts: u32) -> Duration {
    spread(attempts, u32::from_ne_bytes(crypto::random()))
}

fn spread(attempts: u32, random: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let longest = (FIRST * 2 * (1 << doublings)).min(LONGEST);
    longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
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

/// Requests of one route under way at a time. More would come to the origin in any order; fewer would let
/// one that hangs hold up all others for its two minutes.
const AT_ONCE: usize = 8;
/// How often the requests that wait look up their routes again.
const LOOK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(60);
/// The first pause: an origin that restarts is back in a second or two.
const FIRST: Duration = Duration::from_secs(1);
/// A repaired origin gets the waiting requests within minutes.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Bytes of a response that are read. Answers to webhooks are short.
const DRAINED: usize = 64 * 1024;
const DRAINING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let seconds = |attempts, random| spread(attempts, random).as_secs_f64();
        assert_eq!((seconds(1, 0), seconds(1, u32::MAX)), (1.0, 2.0));
        assert_eq!((seconds(2, 0), seconds(2, u32::MAX)), (2.0, 4.0));
        assert_eq!((seconds(8, 0), seconds(8, u32::MAX)), (128.0, 256.0));
        assert_eq!((seconds(9, 0), seconds(9, u32::MAX)), (150.0, 300.0));
        assert_eq!(seconds(u32::MAX, u32::MAX), 300.0);
        for attempts in 0..30 {
            let pause = back_off(attempts);
            assert!(pause >= FIRST && pause <= LONGEST, "{attempts}: {pause:?}");
        }
    }

    #[test]
    fn what_is_about_the_request_is_final_and_what_is_broken_is_not() {
        let fields = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().unwrap())]);
        for status in [200, 204, 302, 400, 401, 403, 404, 409, 410, 413, 422] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(judge(status, &fields).is_ok(), "{status}");
        }
        for status in [408, 429, 500, 501, 502, 503, 504, 599] {
            let status = StatusCode::from_u16(status).unwrap();
            let (why, after) = judge(status, &fields).expect_err("a failure");
            assert_eq!((why, after), (format!("status {}", status.as_u16()), Some(FIRST * 7)));
        }
    }
}
