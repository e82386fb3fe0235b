//! What the client answers on its admin address ([`ptth_link::admin`]).
//!
//! It is ready when each service has a tunnel whose gateway answered a PING within two intervals.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
#[cfg(feature = "metrics")]
use http::header::ACCEPT;
use http::{Request, Response, StatusCode};
use ptth_link::admin::{Content, json, only_get, refusal, text};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::announced::Announced;
use crate::journal::Counts;
use crate::shown::Shown;

/// What is told of a running client.
#[derive(Debug)]
pub struct Admin {
    pub services: Vec<Told>,
    pub shown: Shown,
    /// A question to each core.
    pub pokes: Vec<mpsc::UnboundedSender<Poke>>,
    pub began: SystemTime,
    pub counts: Arc<Counts>,
}

/// A service.
#[derive(Debug)]
pub struct Told {
    /// Its name, where there are several.
    pub label: Option<String>,
    pub gateway: String,
    pub origin: String,
    pub announced: Announced,
}

/// A core that turns answers it.
pub type Poke = oneshot::Sender<()>;

impl Admin {
    /// The page at a target.
    pub async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Response<Content> {
        if let Some(refused) = only_get(&request) {
            return refused;
        }
        match request.uri().path() {
            "/livez" if self.is_live().await => text(StatusCode::OK, "ok\n".to_owned()),
            "/livez" => refusal(StatusCode::SERVICE_UNAVAILABLE, "a core doesn't turn"),
            "/readyz" => self.readyz(),
            #[cfg(feature = "metrics")]
            "/metrics" => {
                let Self { counts, shown, began, .. } = &*self;
                let accept = request.headers().get(ACCEPT);
                let (kind, page) = crate::metrics::page(counts, shown, *began, accept);
                ptth_link::admin::of(kind, StatusCode::OK, page)
            }
            "/status" => json(StatusCode::OK, &self.status()),
            _ => refusal(StatusCode::NOT_FOUND, "there is no such page"),
        }
    }

    /// Whether the threads that hold tunnels turn. One whose tunnels have all ended is none of them.
    pub async fn is_live(&self) -> bool {
        let ask = |core: &mpsc::UnboundedSender<Poke>| {
            let (poke, turned) = oneshot::channel();
            core.send(poke).is_ok().then_some(turned)
        };
        let (asked, until): (Vec<_>, _) =
            (self.pokes.iter().filter_map(ask).collect(), Instant::now() + PATIENCE);
        for turned in asked {
            if timeout_at(until, turned).await.is_err() {
                return false;
            }
        }
        true
    }

    fn readyz(&self) -> Response<Content> {
        let ready = self.services.iter().all(|service| self.serves(service));
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json(status, &json!({ "ready": ready, "services": self.services() }))
    }

    fn serves(&self, service: &Told) -> bool {
        self.shown.count(service.label.as_deref()).0 > 0
    }

    fn services(&self) -> Vec<Value> {
        let row = |service: &Told| {
            json!({
                "service": service.label,
                "gateway": service.gateway,
                "origin": service.origin,
                "ready": self.serves(service),
                "public": service.announced.urls(),
            })
        };
        self.services.iter().map(row).collect()
    }

    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "up_seconds": self.began.elapsed().unwrap_or_default().as_secs(),
            "services": self.services(),
            "tunnels": self.shown.rows(),
        })
    }

    /// One line for a supervisor.
    pub fn summary(&self) -> String {
        let (up, all) = self.shown.count(None);
        format!("tunnels: {up} of {all}")
    }
}

/// For a core to take up new work. A turn of its loop takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
