//! `2ptth-client`: arguments, logging, signals, exit code, and one thread a core.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, info, warn};
use ptth_client::addresses::{UrlFile, publish};
use ptth_client::announced::Announced;
use ptth_client::config::{Args, Config, Options, OriginAddress, Service};
use ptth_client::demo::Demo;
use ptth_client::dial::Tcp;
use ptth_client::journal::Journal;
use ptth_client::origin::Origin;
use ptth_client::{Process, Stopped};
use ptth_link::descriptors;
use ptth_link::limits::TUNNEL_STREAMS;
use ptth_link::shutdown::{self, Phase, Shutdown, Trigger};
use ptth_link::signals::{self, Signal};
use ptth_link::{cli, logging};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match cli::start::<Args>(PROGRAM) {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.version {
        return cli::say(&concat!("2ptth-client ", env!("CARGO_PKG_VERSION")));
    }
    let options = match Options::from(args, &|name| std::env::var_os(name)) {
        Ok(options) => options,
        Err(err) => return cli::fail(PROGRAM, &err),
    };
    logging::start(options.log);
    for warning in &options.warnings {
        warn!("client: {warning}");
    }
    let Err(failure) = run(&options) else { return ExitCode::SUCCESS };
    let code = cli::fail(PROGRAM, &failure);
    match failure {
        Failure::Gateway(_, why) if why.is_refusal() => REFUSED.into(),
        _ => code,
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("gateway {0}: {1}")]
    Gateway(Box<str>, Stopped),
    #[error("{0}")]
    Stopped(#[from] Stopped),
    #[error("--url-file (URL_FILE): {} can't be written: {}", .0.display(), .1)]
    Urls(PathBuf, io::Error),
    #[error("{0}")]
    Machine(#[from] io::Error),
}

/// A service, as the thread of each core needs it.
#[derive(Clone)]
struct Running {
    /// `None`: the built-in demo.
    origin: Option<Origin>,
    process: Process,
    shutdown: Shutdown,
    /// The number of tunnels of the services before it, so that the cores share all tunnels evenly.
    before: usize,
}

/// The number of a service, and why its tunnels ended on one core.
type Refusal = (usize, Stopped);

/// Holds the tunnels, spread over the cores, until a signal arrives or the last service ends.
fn run(options: &Options) -> Result<(), Failure> {
    let services = &options.services;
    let writable = |path: PathBuf| UrlFile::new(path.clone()).map_err(|e| Failure::Urls(path, e));
    let file = options.url_file.clone().map(writable).transpose()?;
    let journal = Journal::to(io::stdout());
    let (places, board) = Announced::board(services.len());
    let tunnels = services.iter().map(|service| service.config.tunnels).sum();
    let descriptors = descriptors::limit();
    let streams = descriptors::streams(descriptors, tunnels);
    if streams < TUNNEL_STREAMS {
        info!(
            "client: {descriptors} descriptors allow {streams} requests at a time on each tunnel"
        );
    }
    let (mut triggers, mut running, mut before) = (Vec::new(), Vec::new(), 0);
    for (service, announced) in services.iter().zip(places) {
        let journal = journal.of(service.label.as_deref());
        let mut process = Process::new(service.config.clone(), journal)?;
        (process.answering.announced, process.answering.streams) = (announced, streams);
        process.guess = guess(&service.config);
        let (trigger, shutdown) = shutdown::channel();
        triggers.push(trigger);
        let origin = match &service.origin {
            OriginAddress::Demo => None,
            address => Some(Origin::new(address.clone(), &service.asking).map_err(Stopped::Tls)?),
        };
        running.push(Running { origin, process, shutdown, before });
        before += service.config.tunnels;
    }
    let triggers = Arc::new(triggers);
    watch(triggers.clone())?;
    let main = runtime()?;
    for (service, running) in services.iter().zip(&running) {
        main.block_on(look(&service.origin, running.origin.as_ref()));
    }
    let cores = thread::available_parallelism().map_or(1, usize::from).min(tunnels);
    let (done, refusals) = mpsc::unbounded_channel();
    let mut threads = Vec::new();
    for core in 0..cores {
        let (runtime, running, done) = (runtime()?, running.clone(), done.clone());
        let hold = move || {
            runtime.block_on(hold(running, (core, cores), done));
            // A pending name lookup would block an ordinary shutdown.
            runtime.shutdown_background();
        };
        threads.push(thread::Builder::new().name(format!("core {core}")).spawn(hold)?);
    }
    drop(done);
    let tell = |service, url: &str| {
        if let Some(Service { label, origin, .. }) = services.get::<usize>(service) {
            journal.of(label.as_deref()).shown(url, &origin.to_string());
        }
    };
    let ended = main.block_on(async {
        select! {
            ended = end(services, &triggers, refusals) => ended,
            never = async { publish(board, file, tell).await; pending().await } => never,
        }
    });
    main.shutdown_background();
    // The exit handlers of the TLS library would abort the process if a thread were in a handshake.
    triggers.iter().for_each(|trigger| trigger.advance(Phase::Closing));
    for thread in threads {
        let _ = thread.join();
    }
    ended
}

/// Drains the services on the first signal, and cuts them on the second.
fn watch(triggers: Arc<Vec<Trigger>>) -> io::Result<()> {
    let mut stopping = false;
    signals::watch(move |signal| {
        let phase = match signal {
            Signal::Reload => return,
            Signal::Stop if mem::replace(&mut stopping, true) => Phase::Closing,
            Signal::Stop => {
                info!("client: stopping; running exchanges have {} s", GRACE.as_secs());
                Phase::Draining
            }
        };
        triggers.iter().for_each(|trigger| trigger.advance(phase));
    })
}

/// Waits until all tunnels have ended. A refusal ends all tunnels of its service, since they have the same
/// credential; the other services go on. The first refusal becomes the result of the process.
async fn end(
    services: &[Service],
    triggers: &[Trigger],
    mut refusals: mpsc::UnboundedReceiver<Refusal>,
) -> Result<(), Failure> {
    let (mut first, mut over) = (None, BTreeSet::new());
    while let Some((number, stopped)) = refusals.recv().await {
        // The tunnels on the other cores are refused, too, or end by the trigger.
        let service = services.iter().zip(triggers).nth(number).filter(|_| over.insert(number));
        let Some((service, trigger)) = service else { continue };
        let gateway: Box<str> = service.config.gateway.to_string().into();
        match &service.label {
            None => return Err(Failure::Gateway(gateway, stopped)),
            Some(label) => error!("client: service={label:?} gateway={gateway} ends: {stopped}"),
        }
        trigger.advance(Phase::Draining);
        first.get_or_insert(Failure::Gateway(gateway, stopped));
    }
    first.map_or(Ok(()), Err)
}

/// Holds one core's share of the tunnels of all services.
async fn hold(
    running: Vec<Running>,
    (core, cores): (usize, usize),
    done: mpsc::UnboundedSender<Refusal>,
) {
    let mut holding = JoinSet::new();
    for (number, running) in running.into_iter().enumerate() {
        let Running { origin, process, mut shutdown, before } = running;
        let slots = (0..process.slots()).filter(move |slot| (before + slot) % cores == core);
        let (end, done) = (shutdown.clone(), done.clone());
        holding.spawn(async move {
            let held = async {
                match origin {
                    Some(origin) => process.hold(slots, Tcp, origin.apart(), end).await,
                    None => process.hold(slots, Tcp, Demo, end).await,
                }
            };
            let grace = async {
                shutdown.reached(Phase::Draining).await;
                let _ = timeout(GRACE, shutdown.reached(Phase::Closing)).await;
            };
            select! {
                ended = held => {
                    if let Err(stopped) = ended {
                        let _ = done.send((number, stopped));
                    }
                }
                () = grace => {}
            }
        });
    }
    while holding.join_next().await.is_some() {}
}

/// Asks the origin once, so that the log shows a wrong address before the first request.
async fn look(address: &OriginAddress, origin: Option<&Origin>) {
    let Some(origin) = origin else { return info!("origin: {address}") };
    match timeout(LOOK, origin.look()).await {
        Ok(Ok(Some(status))) => info!("origin: {address} answers, status={}", status.as_u16()),
        Ok(Ok(None)) => info!("origin: {address} answers"),
        Ok(Err(err)) => warn!("origin: {address} doesn't answer yet: {err}"),
        Err(_) => warn!("origin: {address} doesn't answer yet: no response within {LOOK:?}"),
    }
}

/// An open gateway and a gateway with a single route serve any host under this port; only the gateway knows the
/// address of a name.
fn guess(config: &Config) -> Option<String> {
    config.name.is_none().then(|| format!("{}/", config.public_url()))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

const PROGRAM: &str = "2ptth-client";
/// The gateway refused, and will refuse again (EX_NOPERM of sysexits): a supervisor shouldn't restart the client.
const REFUSED: u8 = 77;
const GRACE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(3);
