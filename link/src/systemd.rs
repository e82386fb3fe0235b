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
    // Twice in that time, and once more for an answer that is late.
    let due = watchdog().map(|time| time / 3);
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
