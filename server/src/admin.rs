//! What the gateway answers on its admin address ([`ptth_link::admin`]): probes, scrapers and operators ask.
//!
//! A gateway is ready when it can serve a visitor: it isn't draining, a certificate is valid, and a tunnel answered a
//! PING within two intervals. One backend of many that is away doesn't make it unready: in a fleet each gateway would
//! be, and a load balancer would send no visitor to any of them. `/readyz?route=NAME` asks about one route.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
#[cfg(feature = "metrics")]
use http::header::ACCEPT;
use http::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use ptth_link::admin::{Content, json, only_get, refusal, text};
use ptth_link::shutdown::Phase;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::NoBackend;
use crate::live::Tunnel;
use crate::policy::Route;
use crate::shard::Shard;

/// What is told of a running gateway.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) shard: Arc<Shard>,
    /// What it listens on.
    pub(crate) listening: Vec<String>,
    pub(crate) begun: Instant,
}

impl Admin {
    /// The page at a target.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Response<Content> {
        if let Some(refused) = only_get(&request) {
            return refused;
        }
        let page = match request.uri().path() {
            "/livez" => Some(self.livez().await),
            "/readyz" => self.readyz(request.uri().query(), seconds()),
            #[cfg(feature = "metrics")]
            "/metrics" => {
                let accept = request.headers().get(ACCEPT);
                let (kind, page) = crate::metrics::page(&self.shard.shared, accept);
                Some(ptth_link::admin::of(kind, StatusCode::OK, page))
            }
            "/status" => Some(json(StatusCode::OK, &self.status())),
            _ => None,
        };
        page.unwrap_or_else(|| refusal(StatusCode::NOT_FOUND, "there is no such page"))
    }

    /// Whether the threads that serve turn.
    pub(crate) async fn is_live(&self) -> bool {
        self.shard.stuck(PATIENCE).await.is_empty()
    }

    async fn livez(&self) -> Response<Content> {
        let stuck = self.shard.stuck(PATIENCE).await;
        match stuck.as_slice() {
            [] => text(StatusCode::OK, "ok\n".to_owned()),
            stuck => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("shards that don't turn: {stuck:?}\n"),
            ),
        }
    }

    /// `now` is the time by which a certificate counts, in seconds since 1970.
    fn readyz<C: From<String>>(&self, query: Option<&str>, now: i64) -> Option<Response<C>> {
        let asked =
            query.and_then(|query| query.split('&').find_map(|it| it.strip_prefix("route=")));
        let asked = asked.map(|name| percent_decode_str(name).decode_utf8_lossy());
        let policy = self.shard.registry.policy();
        let mut routes = policy.routes();
        if let Some(asked) = &asked {
            routes.retain(|route| route.name == **asked || route.id.to_string() == **asked);
            if routes.is_empty() {
                return None;
            }
        }
        let served = match asked.is_some() {
            true => routes.iter().any(|route| is_ready(route)),
            // A gateway with dynamic names alone can't tell which of them should be there.
            false => {
                routes.is_empty()
                    || routes.iter().any(|route| is_ready(route))
                    || self.shard.registry.all().iter().any(|tunnel| answers(tunnel))
            }
        };
        let terms = self.shard.tls.terms();
        let certified = terms.is_empty() || terms.iter().any(|(_, ends)| *ends > now);
        let draining = self.is_draining();
        let ready = served && certified && !draining;
        let rows: Vec<_> = routes.iter().map(|route| row(route)).collect();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let value = json!({
            "ready": ready, "draining": draining, "certified": certified, "routes": rows,
        });
        Some(json(status, &value))
    }

    fn is_draining(&self) -> bool {
        self.shard.shutdown.is(Phase::Draining)
    }

    /// One line for a supervisor.
    pub(crate) fn summary(&self) -> String {
        match (self.is_draining(), self.shard.registry.all().len()) {
            (true, _) => "draining".to_owned(),
            (false, tunnels) => format!("tunnels: {tunnels}"),
        }
    }

    fn status(&self) -> Value {
        let Shard { shared, .. } = &*self.shard;
        let (policy, now) = (shared.registry.policy(), seconds());
        let routes = policy.routes();
        let without = routes.iter().filter(|route| !is_ready(route));
        let without: Vec<_> = without.map(|route| route.id.to_string()).collect();
        let (connections, most) = shared.connections.held();
        let ((requests, bytes), counts) = (shared.outbox.held(), shared.outbox.counts());
        let certificates = shared.tls.terms().into_iter().map(|(names, ends)| {
            json!({ "certificate": names, "days_left": (ends - now).div_euclid(DAY), "ends": ends })
        });
        let tunnels = shared.registry.all();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "up_seconds": self.begun.elapsed().as_secs(),
            "draining": self.is_draining(),
            "listening": self.listening,
            "connections": connections,
            "connections_most": most,
            "buffered_bytes": shared.budget.held(),
            "webhooks": {
                "waiting": requests, "bytes": bytes, "queued": counts.queued,
                "delivered": counts.delivered, "retried": counts.retried,
                "refused": counts.refused, "dropped": counts.dropped,
            },
            "without_backend": without,
            "certificates": certificates.collect::<Vec<_>>(),
            "routes": routes.iter().map(|route| row(route)).collect::<Vec<_>>(),
            "tunnels": tunnels.iter().map(|tunnel| backend(tunnel)).collect::<Vec<_>>(),
        })
    }
}

/// A route, as every page tells it.
fn row(route: &Route) -> Value {
    let tunnels = route.pool.all();
    json!({
        "route": route.name,
        "serves": route.id.to_string(),
        "tunnels": tunnels.len(),
        "ready": is_ready(route),
        "streams": tunnels.iter().map(|tunnel| tunnel.in_flight()).sum::<usize>(),
        "waiting": route.pool.waiting(),
    })
}

/// A tunnel: never a secret, nor a digest of one.
fn backend(tunnel: &Tunnel) -> Value {
    let (pulse, identity) = (&tunnel.pulse, &tunnel.identity);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let from = tunnel.from.get();
    let routes: Vec<_> = tunnel.grants.iter().map(|grant| grant.route().to_string()).collect();
    json!({
        "tunnel": tunnel.id.to_string(),
        "backend": identity.name,
        "address": from.map(|(address, _)| address.to_string()),
        "key": identity.key_text(),
        "door": from.map(|(_, door)| door),
        "shard": tunnel.shard,
        "age_seconds": tunnel.begun.elapsed().as_secs(),
        "answered_seconds_ago": pulse.silent().map(|silent| silent.as_secs()),
        "round_trip_ms": pulse.round_trip().map(|time| time.as_micros() as f64 / 1000.0),
        "streams": tunnel.in_flight(),
        "streams_most": tunnel.allowed(),
        "streams_in_all": count(&pulse.opened),
        "received_bytes": count(&pulse.received),
        "sent_bytes": count(&pulse.sent),
        "window": pulse.window.load(Ordering::Relaxed),
        "draining": tunnel.is_draining(),
        "routes": routes,
    })
}

/// Whether a request for it would be answered: by a tunnel, or by the origin that stands in for its backends.
fn is_ready(route: &Route) -> bool {
    let wide = route.wide.iter().flat_map(|pool| pool.all());
    matches!(route.no_backend, NoBackend::Origin(_))
        || route.pool.all().into_iter().chain(wide).any(|tunnel| answers(&tunnel))
}

fn answers(tunnel: &Tunnel) -> bool {
    !tunnel.is_draining() && tunnel.pulse.is_answering()
}

/// Since 1970.
fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// For a shard to take up new work. A turn of its loop takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// In seconds.
const DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use ptth_link::shutdown::{Trigger, channel};
    use ptth_link::systemd::{State, report_to};
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::config::{Admission, CertificateSource, Config, Names};
    use crate::shard::Driving;

    /// A gateway of dynamic names, which is ready without a backend.
    fn admin() -> (Arc<Admin>, Trigger, mpsc::UnboundedReceiver<Driving>) {
        let source = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
        let mut config = Config::new(source, Admission::Open);
        config.names = Some(Names::new("example.test", Vec::new()));
        let (trigger, shutdown) = channel();
        let (shard, work) = Shard::alone(&config, shutdown).unwrap();
        (Arc::new(Admin { shard, listening: Vec::new(), begun: Instant::now() }), trigger, work)
    }

    #[tokio::test]
    async fn a_gateway_is_not_ready_with_a_certificate_that_has_expired_or_while_it_drains() {
        let (admin, trigger, _work) = admin();
        let ends = admin.shard.tls.terms().first().unwrap().1;
        for (now, valid) in [(ends - 1, true), (ends, false), (ends + 1, false)] {
            let answer: Response<String> = admin.readyz(None, now).unwrap();
            assert_eq!(answer.status().as_u16(), if valid { 200 } else { 503 });
            let said = format!("\"certified\": {valid}");
            assert!(answer.body().contains(&said), "{}", answer.body());
        }
        trigger.advance(Phase::Draining);
        let answer: Response<String> = admin.readyz(None, ends - 1).unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body().contains("\"draining\": true"), "{}", answer.body());
    }

    /// Its thread turns for a minute.
    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_turn_has_the_watchdog_run_out() {
        let (admin, _trigger, mut work) = admin();
        let (began, fed) = (Instant::now(), RefCell::new(Vec::new()));
        let tell = |state: State<'_>| {
            if matches!(state, State::Turning) {
                fed.borrow_mut().push(began.elapsed().as_secs());
            }
        };
        let mut thread = JoinSet::new();
        thread.spawn(async move {
            let turning = async {
                while let Some(task) = work.recv().await {
                    task.await;
                }
            };
            let _ = timeout(Duration::from_secs(60), turning).await;
            // It holds what comes for it, and does nothing with it.
            pending::<()>().await;
            drop(work);
        });
        let watchdog = Some(Duration::from_secs(30));
        let report = report_to(tell, watchdog, || admin.summary(), async || admin.is_live().await);
        let _ = timeout(Duration::from_secs(180), report).await;
        let times = fed.into_inner();
        assert!(times.len() >= 4 && times.iter().all(|at| *at <= 60), "{times:?}");
        assert_eq!(admin.livez().await.status(), StatusCode::SERVICE_UNAVAILABLE);
        thread.abort_all();
        while thread.join_next().await.is_some() {}
        assert!(!admin.is_live().await, "its thread is gone");
    }
}
