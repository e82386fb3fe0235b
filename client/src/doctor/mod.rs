//! `2ptth-client doctor GATEWAY [ORIGIN]`: says which part of the way from the gateway to the origin doesn't work.
//!
//! In:  the settings of the client. Out: a step for each part, with what was found and what to do.
//!
//! Invariant: it dials as the client does, by the same [`Dialer`], and a credential leaves only to a gateway that is
//! known.

mod certificate;
mod flow;
mod origin;
mod reach;
mod tunnel;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use ptth_link::cli;
use ptth_link::doctor::{Asked, Report};
use tokio::runtime::Builder;

use crate::config::{Args, Config, Options, OriginAddress, Service};
use crate::demo::Demo;
use crate::dial::{Dialer, Network, Tcp};
use crate::journal::Journal;
use crate::origin::Origin;
use crate::serve::Answers;
use crate::tunnels::Process;

/// Runs the doctor if the arguments of this process ask for it.
pub fn command(program: &str) -> Option<ExitCode> {
    Some(match Asked::read(program, ABOUT)? {
        Ok(mut asked) => {
            let arguments = std::mem::take(&mut asked.arguments);
            cli::read::<Args>(program, arguments).map_or_else(|code| code, |args| run(&asked, args))
        }
        Err(code) => code,
    })
}

fn run(asked: &Asked, args: Args) -> ExitCode {
    let mut report = asked.report();
    let runtime = Builder::new_current_thread().enable_all().build();
    match (Options::from(args, &|name| env::var_os(name)), runtime) {
        (Err(mistakes), _) => report.fail("settings", mistakes.to_string(), "correct the settings"),
        (_, Err(err)) => report.fail("settings", err.to_string(), ""),
        (Ok(options), Ok(runtime)) => {
            for warning in &options.warnings {
                report.warn("settings", warning, "");
            }
            for service in &options.services {
                if let Some(label) = &service.label {
                    let (gateway, origin) = (&service.config.gateway, &service.origin);
                    report.ok("service", format!("{label}: {gateway} -> {origin}"));
                }
                runtime.block_on(examine(service, Tcp, asked.idle, &mut report));
            }
            runtime.shutdown_background();
        }
    }
    report.end()
}

/// Takes all steps for one service. Reads the trust store, so it blocks at first.
pub async fn examine<N: Network>(
    service: &Service,
    network: N,
    idle: Option<Duration>,
    report: &mut Report,
) {
    let patient = match Patient::new(service, network) {
        Ok(patient) => patient,
        Err(why) => return report.fail("settings", why, "correct the settings"),
    };
    match &service.origin {
        OriginAddress::Demo => {
            patient.gateway(Demo, idle, report).await;
            report.ok("origin", "the built-in demo");
        }
        address => match Origin::new(address.clone(), &service.asking) {
            Ok(origin) => {
                patient.gateway(origin.apart(), idle, report).await;
                let host = patient.config.public_url();
                origin::look(&origin, &service.origin, &host, report).await;
            }
            Err(why) => report.fail("origin", why.to_string(), "correct --origin-ca"),
        },
    }
}

/// One service, as its steps see it.
struct Patient<N> {
    config: Config,
    process: Process,
    network: N,
    dialer: Dialer<N>,
}

impl<N: Network> Patient<N> {
    fn new(service: &Service, network: N) -> Result<Self, String> {
        let mut config = service.config.clone();
        config.tunnels = 1;
        let process = Process::new(config.clone(), Journal::default());
        let process = process.map_err(|why| why.to_string())?;
        let dialer = process.dialer(network.clone(), config.gateway.clone(), 0);
        let dialer = dialer.map_err(|why| why.to_string())?;
        Ok(Self { config, process, network, dialer })
    }

    /// The steps up to the gateway and back.
    async fn gateway(&self, service: impl Answers, idle: Option<Duration>, report: &mut Report) {
        if !reach::reach(self, report).await {
            return report.skip("tls", "nothing answers");
        }
        let Some(passes) = certificate::look(self, report).await else { return };
        reach::large(self, report).await;
        match idle {
            Some(time) => reach::idle(self, time, report).await,
            None => report
                .skip("idle", "not asked for: --idle TIME leaves a connection alone for so long"),
        }
        if passes {
            tunnel::dial(self, service, report).await;
        } else {
            report.skip("tunnel", "the gateway isn't known, so no credential goes there");
        }
    }
}

const ABOUT: &str = "\
Usage: 2ptth-client doctor [--json] [--idle TIME] [options] GATEWAY[:PORT] [ORIGIN]

Says which part of the way from the gateway to the origin doesn't work, and what to do: a line a step. It ends with 1 if
a step failed. All settings of the client count: its flags (see 2ptth-client --help), variables and file. It holds one
tunnel for some seconds, whose requests the origin answers; where a route has `when_taken = \"replace\"`, a client that
runs is replaced by it.

  --json            print an array of objects
  --idle TIME       see whether a connection that is idle for so long survives";
