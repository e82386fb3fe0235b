//! `2ptth-client`: arguments, logging, signals, exit code, and one thread a core.

use std::future::pending;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use log::{error, info, warn};
use ptth_client::admin::{Admin, Poke, Told};
use ptth_client::announced::{Announced, clear, publish};
use ptth_client::config::{Args, Config, Inspect, Options, OriginAddress, Service};
use ptth_client::demo::Demo;
use ptth_client::dial::Tcp;
use ptth_client::inspect::Inspector;
use ptth_client::inspect::command::command;
use ptth_client::journal::Journal;
use ptth_client::origin::Origin;
use ptth_client::shown::Shown;
#[cfg(target_os = "linux")]
use ptth_client::unit::Unit;
use ptth_client::{Process, Stopped};
use ptth_link::explain::Explain;
use ptth_link::limits;
use ptth_link::limits::TUNNEL_STREAMS;
use ptth_link::shutdown::{self, Phase, Shutdown, Signal, Trigger};
use ptth_link::systemd::{self, State};
use ptth_link::{admin, cli, logging};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    start().unwrap_or_else(|failed| failed)
}

fn start() -> Result<ExitCode, ExitCode> {
    if let Some(code) = admin::command(PROGRAM) {
        return Ok(code);
    }
    if let Some(code) = command(PROGRAM) {
        return Ok(code);
    }
    #[cfg(feature = "doctor")]
    if let Some(code) = ptth_client::doctor::command(PROGRAM) {
        return Ok(code);
    }
    #[cfg(target_os = "linux")]
    if let Some(unit) = unit() {
        return unit;
    }
    let args = cli::start::<Args>(PROGRAM)?;
    if args.version {
        return Ok(cli::say(&concat!("2ptth-client ", env!("CARGO_PKG_VERSION"))));
    }
    let options = Options::from(args, &|name| std::env::var_os(name));
    let options = options.map_err(|err| cli::fail(PROGRAM, &err))?;
    logging::start("2ptth-client", &options.log);
    for warning in &options.warnings {
        warn!("client: {warning}");
    }
    run(&options).map(|()| ExitCode::SUCCESS).map_err(|failure| {
        let code = cli::fail(PROGRAM, &failure);
        match failure {
            Failure::Gateway(_, why) if why.is_refusal() => REFUSED.into(),
            _ => code,
        }
    })
}

/// Makes a systemd unit, if that is asked for.
#[cfg(target_os = "linux")]
fn unit() -> Option<Result<ExitCode, ExitCode>> {
    let arguments = std::env::args_os().skip(1).filter_map(|it| it.into_string().ok());
    let made = Unit::asked(&arguments.collect::<Vec<_>>())?.and_then(|unit| unit.make());
    Some(made.map(|text| cli::say(&text)).map_err(|why| cli::fail(PROGRAM, &why)))
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("gateway {0}: {1}")]
    Gateway(Box<str>, Stopped),
    #[error("{0}")]
    Stopped(#[from] Stopped),
    #[error("--url-file (URL_FILE): {} can't be written: {}", .0.display(), .1)]
    Urls(PathBuf, io::Error),
    #[error("--admin (ADMIN): can't listen on {0}: {1}")]
    Admin(Box<admin::Address>, io::Error),
    #[error("--inspect-at (INSPECT_AT): can't listen on {0}: {1}")]
    Inspect(SocketAddr, io::Error),
    #[error("{0}")]
    Machine(#[from] io::Error),
}

/// A service, as the thread of each core needs it.
struct Running {
    service: Service,
    /// `None`: the built-in demo.
    origin: Option<Origin>,
    process: Process,
    trigger: Trigger,
    shutdown: Shutdown,
    /// The number of tunnels of the services before it, so that the cores share all tunnels evenly.
    before: usize,
}

impl Running {
    fn new(service: Service, mut process: Process, before: usize) -> Result<Self, Stopped> {
        process.guess = guess(&service.config);
        let origin = match &service.origin {
            OriginAddress::Demo => None,
            address => Some(Origin::new(address.clone(), &service.asking).map_err(Stopped::Tls)?),
        };
        let (trigger, shutdown) = shutdown::channel();
        Ok(Self { service, origin, process, trigger, shutdown, before })
    }

    fn told(&self) -> Told {
        Told {
            label: self.service.label.clone(),
            gateway: self.service.config.gateway.to_string(),
            origin: self.service.origin.to_string(),
            announced: self.process.answering.announced.clone(),
        }
    }
}

/// Why the tunnels of a service ended on one core.
type Refusal = (Arc<Running>, Stopped);

/// Holds the tunnels, spread over the cores, until a signal arrives or the last service ends.
fn run(options: &Options) -> Result<(), Failure> {
    if let Some(path) = &options.url_file {
        clear(path).map_err(|err| Failure::Urls(path.clone(), err))?;
    }
    let listener = listener(options)?;
    let inspecting = inspector(options)?;
    let heard = inspecting.as_ref().map(|(inspector, _)| inspector.watch());
    let (journal, shown) = (Journal::to(io::stdout()).watched(heard), Shown::default());
    let (places, board) = Announced::board(options.services.len());
    let tunnels = options.services.iter().map(|service| service.config.tunnels).sum();
    let explain = Explain::start(options.explain);
    let services = services(options, places, tunnels, (&journal, &shown, &explain))?;
    watch(services.clone())?;
    let main = runtime()?;
    main.block_on(look_at_all(&services));
    let cores = thread::available_parallelism().map_or(1, usize::from).min(tunnels);
    let (done, refusals) = mpsc::unbounded_channel();
    let (mut threads, mut pokes) = (Vec::new(), Vec::new());
    for core in 0..cores {
        let (runtime, services, done) = (runtime()?, services.clone(), done.clone());
        let (poke, poked) = mpsc::unbounded_channel();
        pokes.push(poke);
        let hold = move || {
            runtime.block_on(hold(services, (core, cores), done, poked));
            // A pending name lookup would block an ordinary shutdown.
            runtime.shutdown_background();
        };
        threads.push(thread::Builder::new().name(format!("core {core}")).spawn(hold)?);
    }
    drop(done);
    let tell = |service, url: &str| {
        let Some(running) = services.get::<usize>(service) else { return };
        running.process.answering.journal.shown(url, &running.service.origin.to_string());
    };
    let told = services.iter().map(|running| running.told()).collect();
    let (began, counts) = (SystemTime::now(), journal.counts().clone());
    let told = Arc::new(Admin { services: told, shown, pokes, began, counts });
    let ended = main.block_on(async {
        select! {
            ended = end(refusals) => ended,
            () = publish(board, options.url_file.as_deref(), tell) => Ok(()),
            () = report(listener, told) => Ok(()),
            () = inspect(inspecting) => Ok(()),
        }
    });
    main.shutdown_background();
    // The exit handlers of the TLS library would abort the process if a thread were in a handshake.
    services.iter().for_each(|service| service.trigger.advance(Phase::Closing));
    for thread in threads {
        let _ = thread.join();
    }
    journal.flush();
    explain.flush();
    ended
}

/// The services, ready to hold `tunnels` tunnels together.
fn services(
    options: &Options,
    places: Vec<Announced>,
    tunnels: usize,
    (journal, shown, explain): (&Journal, &Shown, &Explain),
) -> Result<Vec<Arc<Running>>, Stopped> {
    let limit = limits::descriptors();
    let streams = limits::streams(limit, tunnels);
    if streams < TUNNEL_STREAMS {
        info!("client: {limit} descriptors allow {streams} requests at a time on each tunnel");
    }
    let (mut services, mut before) = (Vec::new(), 0);
    for (service, announced) in options.services.iter().cloned().zip(places) {
        let journal = journal.of(service.label.as_deref());
        let mut process = Process::new(service.config.clone(), journal)?;
        (process.answering.announced, process.answering.streams) = (announced, streams);
        process.shown = shown.clone();
        process.answering.explain = explain.clone();
        services.push(Arc::new(Running::new(service, process, before)?));
        before += services.last().map_or(0, |it| it.process.slots());
    }
    Ok(services)
}

fn listener(options: &Options) -> Result<Option<admin::Listener>, Failure> {
    let opened = options.admin.as_ref().map(|address| {
        let failed = |err| Failure::Admin(address.clone().into(), err);
        admin::Listener::open(address, false).map_err(failed)
    });
    opened.transpose()
}

/// The inspector, and where it listens, as far as they are wanted.
fn inspector(options: &Options) -> Result<Option<(Inspector, Option<admin::Listener>)>, Failure> {
    let Some(Inspect { at, capture, limits }) = options.inspect.clone() else { return Ok(None) };
    let open = |at| {
        let failed = |err| Failure::Inspect(at, err);
        admin::Listener::open(&admin::Address::Tcp(at), false).map_err(failed)
    };
    let listener = at.map(open).transpose()?;
    let inspector = Inspector::new(limits, capture, &options.services).map_err(Stopped::Tls)?;
    if let Some(listener) = &listener {
        // Not in the log: with the key a program sees what visitors send.
        cli::say(&format!("inspect: http://{}/#{}", listener.address, inspector.key()));
    }
    Ok(Some((inspector, listener)))
}

/// Shows the exchanges, if that is wanted. It ends by being dropped.
async fn inspect(inspecting: Option<(Inspector, Option<admin::Listener>)>) {
    if let Some((inspector, Some(listener))) = inspecting {
        inspector.serve(listener).await;
    }
    pending().await
}

/// Answers on the admin address, if there is one, and tells the supervisor how it goes. It ends by being dropped.
async fn report(listener: Option<admin::Listener>, told: Arc<Admin>) {
    let serving = async {
        let Some(listener) = listener else { return };
        info!("admin: listening on {}", listener.address);
        let told = told.clone();
        listener.serve(0, move |request| told.clone().answer(request)).await;
    };
    let ready = async {
        // A gateway that is away keeps no machine from its start: the client goes on dialling, and STATUS says it.
        let _ = timeout(FIRST_TUNNEL, told.shown.came()).await;
        systemd::tell(State::Ready);
    };
    let summing = systemd::report(|| told.summary(), async || told.is_live().await);
    tokio::join!(serving, ready, summing);
}

/// Drains the services on the first signal, and cuts them on the second.
fn watch(services: Vec<Arc<Running>>) -> io::Result<()> {
    let mut stopping = false;
    shutdown::watch_signals(move |signal| {
        let phase = match signal {
            Signal::Reload => return,
            Signal::Stop if mem::replace(&mut stopping, true) => Phase::Closing,
            Signal::Stop => {
                info!("client: stopping; running exchanges have {} s", GRACE.as_secs());
                systemd::tell(State::Stopping);
                Phase::Draining
            }
        };
        services.iter().for_each(|service| service.trigger.advance(phase));
    })
}

/// Waits until all tunnels have ended. A refusal ends all tunnels of its service, since they have the same
/// credential; the other services go on. The first refusal becomes the result of the process.
async fn end(mut refusals: mpsc::UnboundedReceiver<Refusal>) -> Result<(), Failure> {
    let mut first = Ok(());
    while let Some((running, stopped)) = refusals.recv().await {
        // The tunnels on the other cores are refused, too, or end by the trigger.
        if running.shutdown.is(Phase::Draining) {
            continue;
        }
        let gateway: Box<str> = running.service.config.gateway.to_string().into();
        if let Some(label) = &running.service.label {
            error!("client: service={label:?} gateway={gateway} ends: {stopped}");
        }
        running.trigger.advance(Phase::Draining);
        first = first.and(Err(Failure::Gateway(gateway, stopped)));
        if running.service.label.is_none() {
            break;
        }
    }
    first
}

/// Holds one core's share of the tunnels of all services.
async fn hold(
    services: Vec<Arc<Running>>,
    (core, cores): (usize, usize),
    done: mpsc::UnboundedSender<Refusal>,
    mut poked: mpsc::UnboundedReceiver<Poke>,
) {
    let mut holding = JoinSet::new();
    for running in services {
        let done = done.clone();
        holding.spawn(async move {
            let Running { origin, process, shutdown, before, .. } = &*running;
            let slots = (0..process.slots()).filter(|slot| (before + slot) % cores == core);
            let held = async {
                match origin {
                    Some(origin) => {
                        process.hold(slots, Tcp, origin.apart(), shutdown.clone()).await
                    }
                    None => process.hold(slots, Tcp, Demo, shutdown.clone()).await,
                }
            };
            let mut shutdown = shutdown.clone();
            let grace = async {
                shutdown.reached(Phase::Draining).await;
                let _ = timeout(GRACE, shutdown.reached(Phase::Closing)).await;
            };
            let ended = select! {
                ended = held => ended,
                () = grace => Ok(()),
            };
            if let Err(stopped) = ended {
                let _ = done.send((running, stopped));
            }
        });
    }
    loop {
        select! {
            ended = holding.join_next() => {
                if ended.is_none() {
                    return;
                }
            }
            Some(poke) = poked.recv() => {
                let _ = poke.send(());
            }
        }
    }
}

/// At the same time: a supervisor waits for the start of the client no longer for many origins than for one.
async fn look_at_all(services: &[Arc<Running>]) {
    let mut looks = JoinSet::new();
    for service in services {
        let service = service.clone();
        looks.spawn(async move { look(&service).await });
    }
    while looks.join_next().await.is_some() {}
}

/// Asks the origin once, so that the log shows a wrong address before the first request.
async fn look(Running { service, origin, .. }: &Running) {
    let address = &service.origin;
    let Some(origin) = origin else { return info!("origin: {address}") };
    match timeout(LOOK, origin.look()).await {
        Ok(Ok(Some(status))) => info!("origin: {address} answers, status={}", status.as_u16()),
        Ok(Ok(None)) => info!("origin: {address} answers"),
        Ok(Err(err)) => warn!("origin: {address} doesn't answer yet: {err}"),
        Err(_) => warn!("origin: {address} doesn't answer yet: no response within {LOOK:?}"),
    }
}

/// An open gateway, or one with a single route, serves any host; only the gateway knows the address of a name.
fn guess(config: &Config) -> Option<String> {
    config.name.is_none().then(|| format!("{}/", config.public_url()))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

const PROGRAM: &str = "2ptth-client";
/// The gateway refused, and will refuse again (EX_NOPERM of sysexits): a supervisor shouldn't restart the client.
const REFUSED: u8 = 77;
/// Half of what systemd waits for READY=1.
const FIRST_TUNNEL: Duration = Duration::from_secs(45);
const GRACE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(3);
