//! The operator's signals, and the two phases of an orderly end.

use std::{io, thread};

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
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

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what runs, and end. The second time: end now.
    Stop,
    /// SIGHUP: read the files again.
    Reload,
}

/// Calls `handle` for each signal, from a thread that lives as long as the process.
pub fn watch_signals(mut handle: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut term, mut int, mut hup) = {
        let _context = runtime.enter();
        let interrupt = signal(SignalKind::interrupt())?;
        (signal(SignalKind::terminate())?, interrupt, signal(SignalKind::hangup())?)
    };
    let watch = async move {
        loop {
            select! {
                Some(()) = term.recv() => handle(Signal::Stop),
                Some(()) = int.recv() => handle(Signal::Stop),
                Some(()) = hup.recv() => handle(Signal::Reload),
                else => return,
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(())
}
