//! `2ptth-server doctor`: says what of this machine or of the configuration keeps the gateway from being of use, and
//! which backends and visitors it lets in.
//!
//! In:  the settings of the gateway, and the files that they name. Out: a step for each, with what to do. It takes no
//! port, and asks only the servers that the operator named, and its own public names.

use std::env;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use ptth_client::config::Trust;
use ptth_client::tls;
use ptth_link::doctor::{self, Report};
use ptth_link::limits;
use rustls::pki_types::{ServerName, UnixTime};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::auth::Credential;
use crate::config::{Admission, Args, Config, Gate, Route};
use crate::tls::Tls;

/// Runs the doctor if the arguments of this process ask for it.
pub fn command(program: &str) -> Option<ExitCode> {
    doctor::command(program, ABOUT, async |args: Args, _, report| {
        let config = Config::load(&args, &|name| env::var_os(name)).map_err(|it| it.to_string())?;
        examine(&config, report).await;
        Ok(())
    })
}

/// Takes all steps. Reads certificates, so it blocks at first.
pub async fn examine(config: &Config, report: &mut Report) {
    config.warnings.iter().for_each(|warning| report.warn("settings", warning, ""));
    report.ok("settings", "the configuration and all secrets that it names can be read");
    let names = certificates(config, report);
    descriptors(config, limits::descriptors(), report);
    clock(SystemTime::now(), report);
    match config.listen.first().map(SocketAddr::port) {
        None => report.skip("port", "TLS ends in front of this gateway"),
        Some(_) if names.is_empty() => report.skip("port", "no certificate has a public name"),
        Some(port) => {
            for name in names.iter().take(MOST_NAMES) {
                reach(name, port, report).await;
            }
        }
    }
    authorizers(config, report).await;
    opens(config, report);
}

/// The public names of the certificates.
fn certificates(config: &Config, report: &mut Report) -> Vec<String> {
    let made = Tls::new(config).map_err(|why| why.to_string());
    let system = tls::verifier(&Trust::System).map_err(|why| why.to_string());
    let (tls, system) = match made.and_then(|tls| Ok((tls, system?))) {
        Ok(both) => both,
        Err(why) => {
            report.fail("certificate", why, "");
            return Vec::new();
        }
    };
    tls.warnings().iter().for_each(|warning| report.warn("certificate", warning, ""));
    let mut public = Vec::new();
    for (names, ends, key) in tls.shown() {
        let days = (ends - seconds(SystemTime::now())).div_euclid(86_400);
        let found = format!("of {}, {days} days left", names.join(" "));
        // `*` stands for one label (RFC 9525 §6.3).
        let name = names.first().and_then(|name| ServerName::try_from(name.replace('*', "x")).ok());
        let is_known = key.cert.split_first().zip(name).is_some_and(|((own, others), name)| {
            system.verify_server_cert(own, others, &name, &[], UnixTime::now()).is_ok()
        });
        match is_known {
            true => report.ok("certificate", found),
            false => report.warn(
                "certificate",
                found + "; its chain leads to no authority that this machine knows",
                "give the whole chain (`fullchain.pem`); a self-signed one, or one of your own authority, is for clients that have its --pin or --ca, and browsers warn",
            ),
        }
        let is_public = |name: &String| {
            !name.contains('*') && name.contains('.') && name.parse::<IpAddr>().is_err()
        };
        public.extend(names.into_iter().filter(is_public));
    }
    public.dedup();
    public
}

/// The limit that counts is that of the process that runs the gateway.
fn descriptors(config: &Config, limit: usize, report: &mut Report) {
    let usual = limit * 8 / 10;
    let most = config.limits.connections.unwrap_or(usual);
    let found = format!("{limit} descriptors for {most} connections");
    let remedy = "raise LimitNOFILE= of the unit, or `ulimit -n`; or lower --max-connections";
    match most {
        _ if most <= usual => report.ok("descriptors", found),
        _ if most < limit => report.warn("descriptors", found, remedy),
        _ => report.fail("descriptors", found, remedy),
    }
}

fn clock(now: SystemTime, report: &mut Report) {
    let found = httpdate::fmt_http_date(now);
    match seconds(now) >= WRITTEN {
        true => report.ok("clock", found),
        false => {
            let found = found + " is before this program was written";
            report.fail("clock", found, "set the clock (`timedatectl set-ntp true`)");
        }
    }
}

/// Whether the name leads here, and the port answers.
async fn reach(name: &str, port: u16, report: &mut Report) {
    let found = timeout(PATIENCE, lookup_host((name, port))).await;
    let addresses: Vec<_> = match found.unwrap_or_else(|late| Err(late.into())) {
        Ok(found) => found.collect(),
        Err(err) => {
            let found = format!("{name} can't be looked up: {err}");
            return report.fail(
                "port",
                found,
                "give the name an A or AAAA record with this machine's address",
            );
        }
    };
    for address in addresses {
        // No other machine's address can be bound.
        let own = UdpSocket::bind((address.ip(), 0)).is_ok();
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
        let place = format!("{name} ({address})");
        match (connected.unwrap_or_else(|late| Err(late.into())), own) {
            (Ok(_), true) => report.ok("port", format!("{place} answers, on this machine")),
            (Ok(_), false) => report.warn(
                "port",
                format!("{place} answers, which is no address of this machine"),
                "fine behind NAT or a load balancer; else correct the record of the name",
            ),
            (Err(err), true) => report.fail(
                "port",
                format!("{place} doesn't answer: {err}"),
                "start the gateway; it must listen on that address and port",
            ),
            (Err(err), false) => report.warn(
                "port",
                format!("{place} isn't this machine's, and doesn't answer: {err}"),
                "correct the record of the name, and open the port at the router; some don't let a machine reach its own public address",
            ),
        }
    }
}

/// What a route is called, the credentials that let a backend serve it, and its gate.
type Opening<'a> = (String, Option<Vec<Arc<dyn Credential>>>, Option<&'a Gate>);

/// All routes, the one without a table and the one of all dynamic names, too.
fn routes(config: &Config) -> Vec<Opening<'_>> {
    let place = |route: &Route| {
        let hosts: Vec<_> =
            route.hosts.iter().map(|host| format!("{host}{}", route.path)).collect();
        format!("{} ({})", route.name, hosts.join(" "))
    };
    let own = config.routes.iter().map(|it| (place(it), it.allow.clone(), it.gate.as_ref()));
    let mut all: Vec<_> = own.collect();
    if let Some(names) = &config.names {
        let allow = names.allow.iter().map(|grant| grant.credential.clone()).collect();
        let place = format!("names (*.{} {})", names.domain, names.path_hosts.join(" "));
        all.push((place, Some(allow), names.route.gate.as_ref()));
    }
    if all.is_empty() {
        all.push(("all hosts and paths".to_owned(), None, config.gate.as_ref()));
    }
    all
}

/// Asks each server that the configuration has say who may come in.
async fn authorizers(config: &Config, report: &mut Report) {
    for (place, allow, gate) in routes(config) {
        for credential in allow.iter().flatten() {
            let Some(asking) = credential.probe() else { continue };
            answers(format!("{place}: {credential:?}"), asking.await, report);
        }
        let Some(forward) = gate.and_then(|gate| gate.forward.as_ref()) else { continue };
        let asked = timeout(forward.timeout, forward.client.ask(&forward.question, &[], 0)).await;
        let asked = match asked {
            Ok(asked) => asked.map(|(head, _)| head.status).map_err(|why| why.to_string()),
            Err(_) => Err("it is too slow".to_owned()),
        };
        answers(format!("{place}: {forward:?}"), asked, report);
    }
}

fn answers(place: String, asked: Result<StatusCode, String>, report: &mut Report) {
    match asked {
        Ok(status) if !status.is_server_error() => {
            report.ok("authorizer", format!("{place} answers {}", status.as_u16()));
        }
        Ok(status) => report.warn(
            "authorizer",
            format!("{place} answers {}", status.as_u16()),
            "look into its log: an error of its own lets nothing in",
        ),
        Err(why) => report.fail(
            "authorizer",
            format!("{place}: {why}"),
            "start it, or correct its `url`: without its answer nothing is let in",
        ),
    }
}

/// A row for each route: the backends that may serve it, and what visitors must pass.
fn opens(config: &Config, report: &mut Report) {
    let routes = routes(config);
    let width = routes.iter().map(|(place, ..)| place.chars().count()).max().unwrap_or_default();
    for (place, allow, gate) in routes {
        let open = allow.is_none() && config.admission == Admission::Open;
        let backends = match (&allow, &config.admission) {
            (Some(allow), _) => allow.iter().map(kind).collect::<Vec<_>>().join(", "),
            (None, Admission::Keys { keys, .. }) => format!("{} keys of the gateway", keys.len()),
            (None, Admission::Open) => "ANY".to_owned(),
        };
        let visitors = gate.map_or("all".to_owned(), passes);
        let row = format!("{place:width$}  backends: {backends}  visitors: {visitors}");
        match open {
            true => report.warn("opens", row, "--open is for experiments: give --token-file"),
            false => report.ok("opens", row),
        }
    }
}

/// The kind of a credential, as its type is called.
fn kind(credential: &Arc<dyn Credential>) -> String {
    let text = format!("{credential:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase()
}

fn passes(gate: &Gate) -> String {
    let parts = [
        ("addresses", gate.allow.is_some() || !gate.deny.is_empty()),
        ("rate", gate.rate.is_some()),
        ("body", gate.max_body.is_some()),
        ("password", gate.basic.is_some()),
        ("authenticator", gate.forward.is_some()),
    ];
    let parts = parts.iter().filter(|(_, is)| *is).map(|(part, _)| *part);
    format!("by {}", parts.collect::<Vec<_>>().join(", "))
}

/// Since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// For each question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the certificates; a gateway may have thousands.
const MOST_NAMES: usize = 10;
/// The beginning of 2026, in seconds since 1970.
const WRITTEN: i64 = 1_767_225_600;
const ABOUT: &str = "\
Usage: 2ptth-server doctor [--json] [options]

Says what of this machine or of the configuration keeps the gateway from being of use, what to do, and what it opens to
whom: a line a step. It ends with 1 if a step failed. All settings of the gateway count: its flags (see 2ptth-server
--help), variables and file. It takes no port; run it beside the gateway.

  --json            print an array of objects";

#[cfg(test)]
mod tests {
    use ptth_link::doctor::Verdict;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_clock_before_the_program_is_wrong() {
        let mut report = Report::default();
        clock(SystemTime::UNIX_EPOCH, &mut report);
        clock(SystemTime::now(), &mut report);
        let verdicts: Vec<_> = report.steps.iter().map(|step| step.verdict).collect();
        assert_eq!(verdicts, [Verdict::Fail, Verdict::Ok]);
    }

    /// The second name is too long for a label, so that no resolver is asked.
    #[tokio::test]
    async fn a_port_is_reached_by_its_name_or_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut report = Report::default();
        reach("127.0.0.1", port, &mut report).await;
        reach(&"x".repeat(64), port, &mut report).await;
        drop(listener);
        reach("127.0.0.1", port, &mut report).await;
        let verdicts: Vec<_> = report.steps.iter().map(|step| step.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fail, Verdict::Fail], "{report:?}");
    }

    #[test]
    fn descriptors_are_more_than_connections() {
        let (mut report, mut config) = (
            Report::default(),
            Config::new(
                crate::config::CertificateSource::SelfSigned { names: Vec::new(), kept: None },
                Admission::Open,
            ),
        );
        for most in [None, Some(800), Some(801), Some(1000)] {
            config.limits.connections = most;
            descriptors(&config, 1000, &mut report);
        }
        let verdicts: Vec<_> = report.steps.iter().map(|step| step.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Ok, Verdict::Warn, Verdict::Fail]);
    }
}
