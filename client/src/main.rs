//! `2ptth-client`: arguments, logging, signals, exit code, and a thread for each core.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use log::{info, warn};
use ptth_client::config::{Args, Options, OriginAddress};
use ptth_client::demo::Demo;
use ptth_client::dial::Tcp;
use ptth_client::journal::Journal;
use ptth_client::origin::Origin;
use ptth_client::{Process, Stopped};
use ptth_link::shutdown::{self, Phase, Shutdown};
use ptth_link::signals::{self, Signal};
use ptth_link::{cli, env, logging};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::time::{sleep, timeout};

fn main() -> ExitCode {
    let args = match env::arguments().map(Args::parse) {
        Ok(Ok(args)) => args,
        Ok(Err(exit)) if exit.status.is_ok() => return cli::say(&exit.output),
        Ok(Err(exit)) => return fail(&exit.output),
        Err(err) => return fail(&err),
    };
    if args.version {
        return cli::say(&concat!("2ptth-client ", env!("CARGO_PKG_VERSION")));
    }
    let options = match Options::from(args, &|name| std::env::var_os(name)) {
        Ok(options) => options,
        Err(err) => return fail(&err),
    };
    logging::start(options.log);
    for warning in &options.warnings {
        warn!("client: {warning}");
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Stopped(stopped)) => {
            let code = fail(&stopped);
            if stopped.is_refusal() { ExitCode::from(REFUSED) } else { code }
        }
        Err(Failure::Machine(err)) => fail(&err),
    }
}

enum Failure {
    Stopped(Stopped),
    /// Threads, runtimes, signals.
    Machine(io::Error),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::Machine(err)
    }
}

/// Holds the tunnels, spread over the cores, until a signal or a refusal.
fn run(options: Options) -> Result<(), Failure> {
    let journal = Journal::to(io::stdout());
    let process = Process::new(options.config.clone(), journal).map_err(Failure::Stopped)?;
    let (trigger, shutdown) = shutdown::channel();
    let stopping = AtomicBool::new(false);
    signals::watch(move |signal| match signal {
        Signal::Reload => {}
        Signal::Stop if stopping.swap(true, Ordering::Relaxed) => trigger.advance(Phase::Closing),
        Signal::Stop => {
            info!("client: stopping; running exchanges have {} s", GRACE.as_secs());
            trigger.advance(Phase::Draining);
        }
    })?;
    look(&options)?;
    info!("client: public address {}", public_address(&options));
    let cores = thread::available_parallelism().map_or(1, usize::from).min(process.slots());
    let (done, outcomes) = mpsc::channel();
    for core in 0..cores {
        let runtime = runtime()?;
        let (process, options, shutdown) = (process.clone(), options.clone(), shutdown.clone());
        let done = done.clone();
        let hold = move || {
            let slots = (core..process.slots()).step_by(cores);
            let _ = done.send(runtime.block_on(hold(&process, slots, &options, shutdown)));
        };
        thread::Builder::new().name(format!("core {core}")).spawn(hold)?;
    }
    drop(done);
    // The first refusal speaks for all tunnels, whose token is the same; returning ends the process.
    outcomes.iter().collect::<Result<(), _>>().map_err(Failure::Stopped)
}

async fn hold(
    process: &Process,
    slots: impl Iterator<Item = usize>,
    options: &Options,
    mut shutdown: Shutdown,
) -> Result<(), Stopped> {
    let end = shutdown.clone();
    let held = async {
        match &options.origin {
            OriginAddress::Demo => process.hold(slots, Tcp, Demo, end).await,
            address => {
                let origin = Origin::new(address.clone(), &options.host_header);
                process.hold(slots, Tcp, origin, end).await
            }
        }
    };
    let mut closing = shutdown.clone();
    let grace = async {
        shutdown.reached(Phase::Draining).await;
        sleep(GRACE).await;
    };
    select! {
        result = held => result,
        () = grace => Ok(()),
        () = closing.reached(Phase::Closing) => Ok(()),
    }
}

/// Asks the origin once, so that a typing error shows before the first visitor meets it.
fn look(options: &Options) -> io::Result<()> {
    let address = &options.origin;
    if *address == OriginAddress::Demo {
        info!("origin: {address}");
        return Ok(());
    }
    let origin = Origin::new(address.clone(), &options.host_header);
    match runtime()?.block_on(async { timeout(LOOK, origin.look()).await }) {
        Ok(Ok(status)) => info!("origin: {address} answers, status={}", status.as_u16()),
        Ok(Err(err)) => warn!("origin: {address} doesn't answer yet: {err}"),
        Err(_) => warn!("origin: {address} doesn't answer yet: no response within {LOOK:?}"),
    }
    Ok(())
}

/// Where visitors go. An open gateway and one with a single route serve any host under this port.
fn public_address(options: &Options) -> String {
    let config = &options.config;
    let host =
        if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    match config.gateway.port {
        443 => format!("https://{host}/"),
        port => format!("https://{host}:{port}/"),
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn fail(why: &dyn Display) -> ExitCode {
    cli::fail("2ptth-client", why)
}

/// The gateway said no, and will say so again (sysexits' EX_NOPERM): a supervisor shouldn't try again.
const REFUSED: u8 = 77;
/// For running exchanges, once asked to stop.
const GRACE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(3);
