//! The two phases of an orderly end: ask, then insist.

use tokio::sync::watch;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Business as usual.
    Running,
    /// Nothing new; what runs may finish.
    Draining,
    /// Nothing runs any more, or the grace is over: close.
    Closing,
}

/// Sets the phase. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Tells the phase.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// A running process's two ends of the signal.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Moves on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }
}

impl Shutdown {
    /// Waits until `phase` has come. Cancel safe.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the trigger is gone, which is the last phase.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }

    /// Whether `phase` has come.
    pub fn is(&self, phase: Phase) -> bool {
        *self.0.borrow() >= phase || self.0.has_changed().is_err()
    }
}
