//! A failure that lasts is told once, and then once a minute: an outage of a night isn't worth ten thousand lines.

use std::time::Duration;

use tokio::time::Instant;

use ptth_link::lock::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Vec<(String, Instant)>>);

impl Complaints {
    pub(crate) fn is_due(&self, what: &str) -> bool {
        let (mut told, now) = (self.0.lock(), Instant::now());
        told.retain(|(_, when)| now - *when < INTERVAL);
        let due = told.len() < MOST && told.iter().all(|(before, _)| before != what);
        if due {
            told.push((what.to_owned(), now));
        }
        due
    }

    /// It is over: the next failure is a new one.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

const INTERVAL: Duration = Duration::from_secs(60);
/// Different ones in that time.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_a_minute() {
        let complaints = Complaints::default();
        let due = ["a", "a", "b", "a", "b"].map(|what| complaints.is_due(what));
        assert_eq!(due, [true, false, true, false, false]);
        tokio::time::advance(INTERVAL).await;
        assert!(complaints.is_due("a") && !complaints.is_due("a"));
        complaints.forget();
        assert!(complaints.is_due("a"), "it was over");
        let told = (0..100).filter(|n| complaints.is_due(&n.to_string())).count();
        assert_eq!(told, MOST - 1);
    }
}
