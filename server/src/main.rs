//! `2ptth-server`: arguments, logging, signals, exit code.

use std::fmt::Display;
use std::process::ExitCode;

use log::warn;
use ptth_link::shutdown::{self, Signal};
use ptth_link::{admin, cli, logging};
use ptth_server::config::{Args, Config};
use ptth_server::{Gateway, Order, Tls, greeting};
use tokio::sync::mpsc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run().unwrap_or_else(|failed| failed)
}

fn run() -> Result<ExitCode, ExitCode> {
    if let Some(code) = admin::command("2ptth-server") {
        return Ok(code);
    }
    if let Some(code) = ptth_server::doctor::command("2ptth-server") {
        return Ok(code);
    }
    let args = cli::start::<Args>("2ptth-server")?;
    if args.version {
        return Ok(cli::say(&concat!("2ptth-server ", env!("CARGO_PKG_VERSION"))));
    }
    let check = args.check;
    let load = move || Config::load(&args, &|name| std::env::var_os(name));
    let config = load().map_err(|err| fail(&err))?;
    if check {
        return self::check(&config);
    }
    logging::start("2ptth-server", &config.log);
    let gateway = Gateway::bind(&config).map_err(|err| fail(&err))?;
    for warning in config.warnings.iter().chain(&gateway.tls().warnings()) {
        warn!("gateway: {warning}");
    }
    let (orders, receiver) = mpsc::unbounded_channel();
    let mut stopping = false;
    let obey = move |signal| {
        let order = match signal {
            Signal::Reload => Order::Reload,
            Signal::Stop if stopping => Order::Abort,
            Signal::Stop => {
                stopping = true;
                Order::Stop
            }
        };
        let _ = orders.send(order);
    };
    shutdown::watch_signals(obey)
        .map_err(|err| fail(&format!("can't listen for signals: {err}")))?;
    cli::say(&greeting(&config, &gateway));
    gateway.reloading(load).run(receiver).map_err(|err| fail(&err))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads what a start would read, and takes no port.
fn check(config: &Config) -> Result<ExitCode, ExitCode> {
    let tls = Tls::new(config).map_err(|err| fail(&err))?;
    let warnings = config.warnings.iter().cloned().chain(tls.warnings());
    let mut said: Vec<_> = warnings.map(|warning| format!("warning: {warning}")).collect();
    said.push("the configuration can be used".to_owned());
    Ok(cli::say(&said.join("\n")))
}

fn fail(why: &dyn Display) -> ExitCode {
    cli::fail("2ptth-server", why)
}
