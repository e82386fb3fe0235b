//! The two phases of an orderly end.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    Running,
    /// Nothing new begins; running work may finish.
    Draining,
    /// Running work has ended, or the grace is over.
    Closing,
}

/// Sets the phase. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

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

    pub fn is(&self, phase: Phase) -> bool {
        *self.0.borrow() >= phase || self.0.has_changed().is_err()
    }
}
