//! Idle connections. The last one used is the next one used, so that the others expire.

use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use ptth_link::limits;
use ptth_link::lock::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::h1::Connection;

#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<All>);

#[derive(Debug)]
struct Resting {
    connection: Box<Connection>,
    since: Instant,
    until: Instant,
}

#[derive(Debug, Default)]
struct All {
    connections: Vec<Resting>,
    /// Closes expired connections, while there are idle ones.
    reaper: JoinSet<()>,
    reaping: bool,
}

impl Idle {
    /// The newest connection that is alive.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        loop {
            let Resting { mut connection, since, until } = self.0.lock().connections.pop()?;
            let now = Instant::now();
            // A connection that was busy a moment ago can't have expired at the origin.
            if until > now && connection.is_alive(now.duration_since(since) > MOMENT) {
                return Some(connection);
            }
        }
    }

    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>, keep: Duration) {
        let mut all = self.0.lock();
        if all.connections.len() >= *MOST {
            return;
        }
        if !all.reaping {
            // At the end of the process there is no runtime any more.
            let Ok(runtime) = Handle::try_current() else { return };
            while all.reaper.try_join_next().is_some() {}
            all.reaper.spawn_on(reap(Arc::downgrade(self)), &runtime);
            all.reaping = true;
        }
        let since = Instant::now();
        all.connections.push(Resting { connection, since, until: since + keep });
    }
}

async fn reap(all: Weak<Idle>) {
    loop {
        sleep(ROUND).await;
        let Some(all) = all.upgrade() else { return };
        let mut resting = all.0.lock();
        let now = Instant::now();
        resting.connections.retain_mut(|it| it.until > now && it.connection.is_alive(false));
        if resting.connections.is_empty() {
            resting.reaping = false;
            return;
        }
    }
}

/// The limit of idle connections; several origins share the descriptors.
pub(super) static MOST: LazyLock<usize> = LazyLock::new(|| (limits::descriptors() / 4).max(256));
/// A peek costs a tenth of a request, and under load few connections are idle for longer. Unsolicited bytes that come
/// sooner are seen only if the runtime has heard of them.
const MOMENT: Duration = Duration::from_millis(10);
/// An origin that closed an idle connection waits at most so long for this end to close.
const ROUND: Duration = Duration::from_secs(2);
