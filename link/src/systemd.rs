//! What systemd is told of the process (sd_notify(3)); nothing where no supervisor asks for it by NOTIFY_SOCKET.

use std::env;
use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, interval};

#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    Ready,
    /// Followed by [`State::Ready`].
    Reloading,
    Stopping,
    Status(&'a str),
    /// It feeds the watchdog.
    Turning,
}

/// An error means that the supervisor doesn't listen: it has no use for more.
#[cfg(all(feature = "systemd", target_os = "linux"))]
pub fn tell(state: State<'_>) {
    use sd_notify::{NotifyState, notify};
    let _ = match state {
        State::Ready => notify(&[NotifyState::Ready]),
        State::Reloading => {
            NotifyState::monotonic_usec_now().and_then(|now| notify(&[NotifyState::Reloading, now]))
        }
        State::Stopping => notify(&[NotifyState::Stopping]),
        State::Status(text) => notify(&[NotifyState::Status(text)]),
        State::Turning => notify(&[NotifyState::Watchdog]),
    };
}

#[cfg(not(all(feature = "systemd", target_os = "linux")))]
pub fn tell(_: State<'_>) {}

/// How often the watchdog wants to be fed, at least.
#[cfg(all(feature = "systemd", target_os = "linux"))]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(all(feature = "systemd", target_os = "linux")))]
fn watchdog() -> Option<Duration> {
    None
}

/// Tells `summary` when it changes, once a second at most, and feeds the watchdog while the process `is_live`. It ends
/// by being dropped.
pub async fn report(summary: impl Fn() -> String, is_live: impl AsyncFn() -> bool) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return pending().await;
    }
    report_to(tell, watchdog(), summary, is_live).await;
}

/// The same to any supervisor, by `tell`; its watchdog wants to be fed within that time.
pub async fn report_to(
    tell: impl Fn(State<'_>),
    watchdog: Option<Duration>,
    summary: impl Fn() -> String,
    is_live: impl AsyncFn() -> bool,
) {
    // Twice in that time, and once more for an answer that is late.
    let due = watchdog.map(|time| time / 3);
    let (mut said, mut fed) = (String::new(), None::<Instant>);
    let mut look = interval(Duration::from_secs(1));
    loop {
        look.tick().await;
        let now = summary();
        if now != said {
            tell(State::Status(&now));
            said = now;
        }
        let hungry = due.is_some_and(|due| fed.is_none_or(|fed| fed.elapsed() >= due));
        if hungry && is_live().await {
            tell(State::Turning);
            fed = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::timeout;

    use super::*;

    const WATCHDOG: Duration = Duration::from_secs(30);

    /// The times at which the watchdog is fed in two minutes, in which the process is live until `dead`.
    async fn fed(watchdog: Option<Duration>, dead: Duration) -> Vec<u64> {
        let (began, fed) = (Instant::now(), RefCell::new(Vec::new()));
        let tell = |state: State<'_>| {
            if matches!(state, State::Turning) {
                fed.borrow_mut().push(began.elapsed().as_secs());
            }
        };
        let is_live = async || began.elapsed() < dead;
        let report = report_to(tell, watchdog, String::new, is_live);
        assert!(timeout(Duration::from_secs(120), report).await.is_err(), "it ended");
        fed.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_in_time_and_no_longer_than_the_process_is_live() {
        let ever = Duration::MAX;
        let times = fed(Some(WATCHDOG), ever).await;
        assert_eq!(times.first(), Some(&0));
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(times.len() >= 8 && gaps.max() <= Some(WATCHDOG.as_secs() / 2), "{times:?}");
        let times = fed(Some(WATCHDOG), Duration::from_secs(45)).await;
        assert!(times.iter().all(|at| *at < 45) && times.len() >= 4, "{times:?}");
        assert!(fed(Some(WATCHDOG), Duration::ZERO).await.is_empty());
        assert!(fed(None, ever).await.is_empty(), "no watchdog asks for it");
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_told_when_it_changes() {
        let (said, round) = (RefCell::new(Vec::new()), Cell::new(0));
        let tell = |state: State<'_>| {
            if let State::Status(text) = state {
                said.borrow_mut().push(text.to_owned());
            }
        };
        let summary = || {
            round.set(round.get() + 1);
            (round.get() / 4).to_string()
        };
        let report = report_to(tell, None, summary, async || true);
        let _ = timeout(Duration::from_secs(10), report).await;
        assert_eq!(said.into_inner(), ["0", "1", "2"]);
    }
}
