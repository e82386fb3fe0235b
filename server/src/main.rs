//! `2ptth-server`: arguments, logging, signals, exit code.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use log::warn;
use ptth_link::shutdown::{self, Signal};
use ptth_link::{cli, logging};
use ptth_server::config::{Args, Config};
use ptth_server::{Gateway, Order, Tls, greeting};
use tokio::sync::mpsc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match cli::start::<Args>("2ptth-server") {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.version {
        return cli::say(&concat!("2ptth-server ", env!("CARGO_PKG_VERSION")));
    }
    let config = match Config::load(&args, &|name| std::env::var_os(name)) {
        Ok(config) => config,
        Err(err) => return fail(&err),
    };
    if args.check {
        return check(&config);
    }
    logging::start(config.log);
    let gateway = match Gateway::bind(&config) {
        Ok(gateway) => gateway,
        Err(err) => return fail(&err),
    };
    for warning in config.warnings.iter().chain(&gateway.tls().warnings()) {
        warn!("gateway: {warning}");
    }
    let (orders, receiver) = mpsc::unbounded_channel();
    let stopping = AtomicBool::new(false);
    let obey = move |signal| {
        let order = match signal {
            Signal::Reload => Order::Reload,
            Signal::Stop if stopping.swap(true, Ordering::Relaxed) => Order::Abort,
            Signal::Stop => Order::Stop,
        };
        let _ = orders.send(order);
    };
    if let Err(err) = shutdown::watch_signals(obey) {
        return fail(&format!("can't listen for signals: {err}"));
    }
    cli::say(&greeting(&config, &gateway));
    let load = move || Config::load(&args, &|name| std::env::var_os(name));
    match gateway.reloading(load).run(receiver) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => fail(&err),
    }
}

/// Reads what a start would read, and takes no port.
fn check(config: &Config) -> ExitCode {
    let tls = match Tls::new(config) {
        Ok(tls) => tls,
        Err(err) => return fail(&err),
    };
    let warnings = config.warnings.iter().cloned().chain(tls.warnings());
    let mut said: Vec<_> = warnings.map(|warning| format!("warning: {warning}")).collect();
    said.push("the configuration can be used".to_owned());
    cli::say(&said.join("\n"))
}

fn fail(why: &dyn Display) -> ExitCode {
    cli::fail("2ptth-server", why)
}
