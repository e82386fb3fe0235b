//! The operator's signals, and the two phases of an orderly end.

use std::{io, thread};

use tokio::select;
#[cfg(unix)]
use tokio::signal::unix::{self, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{self, ctrl_break, ctrl_c};
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
    /// SIGTERM or SIGINT, on Windows Ctrl-C or Ctrl-Break: finish what runs, and end. The second time: end now.
    Stop,
    /// SIGHUP: read the files again.
    Reload,
}

/// Calls `handle` for each signal, from a thread that lives as long as the process.
pub fn watch_signals(mut handle: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    let watch = async move {
        while let Some(signal) = signals.next().await {
            handle(signal);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(())
}

#[cfg(unix)]
struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    hup: unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, int, hup: signal(SignalKind::hangup())? })
    }

    async fn next(&mut self) -> Option<Signal> {
        select! {
            Some(()) = self.term.recv() => Some(Signal::Stop),
            Some(()) = self.int.recv() => Some(Signal::Stop),
            Some(()) = self.hup.recv() => Some(Signal::Reload),
            else => None,
        }
    }
}

#[cfg(windows)]
struct Signals(windows::CtrlC, windows::CtrlBreak);

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self(ctrl_c()?, ctrl_break()?))
    }

    async fn next(&mut self) -> Option<Signal> {
        select! {
            Some(()) = self.0.recv() => Some(Signal::Stop),
            Some(()) = self.1.recv() => Some(Signal::Stop),
            else => None,
        }
    }
}
