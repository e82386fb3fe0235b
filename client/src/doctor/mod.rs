//! `2ptth-client doctor GATEWAY [ORIGIN]`: says which part of the way from the gateway to the origin doesn't work.
//!
//! In:  the settings of the client. Out: a step for each part, with what was found and what to do.
//!
//! Invariant: it dials as the client does, by the same `Dialer`, and a credential leaves only to a gateway that is
//! known.

mod certificate;
mod flow;
mod origin;
mod reach;
mod tunnel;

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ptth_link::doctor::{self, Report};
use rustls::ClientConfig;

use crate::config::{Args, Config, Options, OriginAddress, Service};
use crate::demo::Demo;
use crate::dial::{DialError, Dialer, Dialled, Network, Tcp};
use crate::journal::Journal;
use crate::origin::Origin;
use crate::serve::Answers;
use crate::tunnels::{Process, Stopped};

/// Runs the doctor if the arguments of this process ask for it.
pub fn command(program: &str) -> Option<ExitCode> {
    doctor::command(program, ABOUT, async |args: Args, idle, report| {
        let options =
            Options::from(args, &|name| env::var_os(name)).map_err(|it| it.to_string())?;
        options.warnings.iter().for_each(|warning| report.warn("settings", warning, ""));
        for service in &options.services {
            if let Some(label) = &service.label {
                report.ok("service", format!("{label}: {}", service.origin));
            }
            examine(service, Tcp, idle, report).await;
        }
        Ok(())
    })
}

/// Takes all steps for one service. Reads the trust store, so it blocks at first.
pub async fn examine<N: Network>(
    service: &Service,
    network: N,
    idle: Option<Duration>,
    report: &mut Report,
) {
    let patient = match Patient::new(service.config.clone(), network) {
        Ok(patient) => patient,
        Err(why) => return report.fail("settings", why.to_string(), "correct the settings"),
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

/// One gateway, as the steps see it.
struct Patient<N> {
    config: Config,
    process: Process,
    network: N,
    dialer: Dialer<N>,
    lenient: Arc<ClientConfig>,
    seen: certificate::Place,
}

impl<N: Network> Patient<N> {
    fn new(mut config: Config, network: N) -> Result<Self, Stopped> {
        config.tunnels = 1;
        let process = Process::new(config.clone(), Journal::default())?;
        let dialer = process.dialer(network.clone(), config.gateway.clone(), 0)?;
        let (lenient, seen) = certificate::lenient(&config)?;
        Ok(Self { config, process, network, dialer, lenient, seen })
    }

    /// A connection as a visitor has it. What goes there is no secret, and what comes isn't believed, so that its
    /// certificate doesn't count.
    async fn visit(&self) -> Result<Dialled, DialError> {
        self.dialer.shake(&self.lenient).await
    }

    /// The steps up to the gateway and back.
    async fn gateway(&self, service: impl Answers, idle: Option<Duration>, report: &mut Report) {
        if !reach::reach(self, report).await {
            return report.skip("tls", "nothing answers");
        }
        let Some(is_known) = certificate::look(self, report).await else { return };
        reach::large(self, report).await;
        if let Some(time) = idle {
            reach::idle(self, time, report).await;
        }
        match is_known {
            true => tunnel::dial(self, service, report).await,
            false => report.skip("tunnel", "the gateway isn't known, so no credential goes there"),
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
