//! Signals of the operator.

use std::io;
use std::thread;

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what runs, and end. The second time: end now.
    Stop,
    /// SIGHUP: read the files again.
    Reload,
}

/// Calls `handle` for each signal, from a thread that lives as long as the process.
pub fn watch(mut handle: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
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
