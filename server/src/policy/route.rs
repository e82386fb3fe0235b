//! One site, as visitors' requests meet it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{
    Hold, Names as NamesSettings, NoBackend, Respond, Route as Settings, WhenTaken,
};
use crate::pool::{Patience, Pool};
use crate::router::RouteId;
use crate::router::{HostPattern, is_label};

/// One site, as visitors' requests meet it: a host of a configured route, or a dynamic name.
#[derive(Clone, Debug)]
pub struct Route {
    /// What it is.
    pub site: RouteId,
    /// Its tunnels.
    pub pool: Arc<Pool>,
    /// Of one host of a pattern: the tunnels of the pattern, who serve it where nobody has it alone.
    pub wide: Option<Arc<Pool>>,
    /// Whether the path's prefix that chose it is taken off.
    pub strip: bool,
    /// What becomes of the backend that is there when another one comes.
    pub when_taken: WhenTaken,
    /// What a visitor gets while there is no backend.
    pub no_backend: NoBackend,
    /// How long requests wait.
    pub patience: Patience,
    /// Answer at once, deliver later.
    pub respond: Option<Respond>,
    /// Where visitors find it, without scheme and port: `host/path`.
    pub addresses: Vec<String>,
    /// The path of a dynamic name, where it is found by path.
    pub base: String,
}

impl Route {
    pub(super) fn of(settings: &Settings, host: &HostPattern, pool: Arc<Pool>) -> Self {
        Self {
            site: RouteId::Host(host.clone(), settings.path.as_str().into()),
            pool,
            wide: None,
            strip: settings.strip,
            when_taken: settings.when_taken,
            no_backend: settings.no_backend.clone(),
            patience: patience(settings.queue, settings.hold),
            respond: settings.respond,
            addresses: vec![format!("{host}{}", settings.path)],
            base: String::new(),
        }
    }

    /// The same for one host among those of its pattern.
    pub(super) fn narrowed(&self, host: HostPattern, path: &str) -> Self {
        let addresses = vec![format!("{host}{path}")];
        let (pool, wide) = (self.pool.another(), Some(self.pool.clone()));
        Self { site: RouteId::Host(host, path.into()), pool, wide, addresses, ..self.clone() }
    }

    pub(super) fn named(settings: &NamesSettings, name: &str, pool: Arc<Pool>) -> Self {
        let base = format!("{}/{name}/", settings.path_prefix);
        let by_path = settings.path_hosts.iter().map(|host| format!("{host}{base}"));
        let by_host = (is_label(name) && !settings.domain.is_empty())
            .then(|| format!("{name}.{}/", settings.domain));
        Self {
            site: RouteId::Name(name.to_owned()),
            pool,
            wide: None,
            // Only the way by path has a prefix.
            strip: settings.strip,
            when_taken: settings.when_taken,
            no_backend: settings.no_backend.clone(),
            patience: patience(settings.queue, settings.hold),
            respond: None,
            addresses: by_host.into_iter().chain(by_path).collect(),
            base,
        }
    }
}

fn patience(queue: Duration, hold: Option<Hold>) -> Patience {
    Patience { queue, hold: hold.map(|hold| (hold.time, hold.requests)) }
}
