//! Connections at rest. The one used last is used next, so that the others grow old and go.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ptth_link::descriptors;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::h1::Connection;

/// The connections of one origin that are at rest.
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
    /// Closes the ones that are too old, while there are any.
    reaper: JoinSet<()>,
    reaping: bool,
}

impl Idle {
    /// The connection that was put last, if it is surely alive.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        loop {
            let Resting { mut connection, since, until } = self.lock().connections.pop()?;
            let now = Instant::now();
            // One that was at work a moment ago wasn't closed for its rest.
            if until > now && connection.is_alive(now.duration_since(since) > MOMENT) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for so long, if there is room.
    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>, keep: Duration) {
        let mut resting = self.lock();
        if resting.connections.len() < *MOST && resting.reap(self) {
            let since = Instant::now();
            resting.connections.push(Resting { connection, since, until: since + keep });
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Sees to it that old connections go. False where there is no runtime any more.
    fn reap(&mut self, all: &Arc<Idle>) -> bool {
        if self.reaping {
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        while self.reaper.try_join_next().is_some() {}
        self.reaper.spawn_on(reap(Arc::downgrade(all)), &runtime);
        self.reaping = true;
        true
    }
}

async fn reap(all: Weak<Idle>) {
    loop {
        sleep(ROUND).await;
        let Some(all) = all.upgrade() else { return };
        let mut resting = all.lock();
        let now = Instant::now();
        resting.connections.retain_mut(|it| it.until > now && it.connection.is_alive(false));
        if resting.connections.is_empty() {
            resting.reaping = false;
            return;
        }
    }
}

/// Idle connections kept. There are never more than were busy a few seconds ago, and the next requests would dial
/// again for each that is closed. But several origins share the descriptors.
pub(super) static MOST: LazyLock<usize> = LazyLock::new(|| (descriptors::limit() / 4).max(256));
/// A look at a connection costs as much as a tenth of a request; under load few rest for longer. Bytes that come
/// unasked so soon after a response are seen only if the runtime has heard of them.
const MOMENT: Duration = Duration::from_millis(10);
/// For so long an origin that closes idle connections waits for us to close ours, at most.
const ROUND: Duration = Duration::from_secs(2);
