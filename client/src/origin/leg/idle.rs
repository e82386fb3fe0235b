//! Connections at rest. The one used last is used next, so that the others grow old and go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::h1::Connection;

/// The connections of one origin that are at rest.
#[derive(Default)]
pub(super) struct Idle(Mutex<Resting>);

#[derive(Default)]
struct Resting {
    connections: Vec<(Box<Connection>, Instant)>,
    /// Closes the ones that are too old, while there are any.
    reaper: JoinSet<()>,
    reaping: bool,
}

impl Idle {
    /// The connection that was put last, if it is surely alive.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        let mut now = None;
        loop {
            let (mut connection, until) = self.lock().connections.pop()?;
            if until > *now.get_or_insert_with(Instant::now) && connection.is_alive() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for so long, if there is room.
    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>, keep: Duration) {
        let mut resting = self.lock();
        if resting.connections.len() < MAX_IDLE && resting.reap(self) {
            resting.connections.push((connection, Instant::now() + keep));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
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
        resting.connections.retain_mut(|(connection, until)| *until > now && connection.is_alive());
        if resting.connections.is_empty() {
            resting.reaping = false;
            return;
        }
    }
}

/// Idle connections kept: what a page's burst leaves behind.
const MAX_IDLE: usize = 256;
/// For so long an origin that closes idle connections waits for us to close ours, at most.
const ROUND: Duration = Duration::from_secs(2);
