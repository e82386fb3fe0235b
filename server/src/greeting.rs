//! What the gateway prints when it is ready; the last line is the client's complete command.

use std::fmt::Write;
use std::net::IpAddr;

use crate::config::{Admission, CertificateSource, Config};
use crate::gateway::Gateway;
use crate::listener::Entrance;

/// The lines.
pub fn lines(config: &Config, gateway: &Gateway) -> String {
    let mut text = String::new();
    for (entrance, address) in gateway.addresses() {
        let _ = match entrance {
            Entrance::Tls => writeln!(text, "listening on {address}"),
            Entrance::Plain => writeln!(text, "plain HTTP on {address}"),
            Entrance::Redirect { .. } => writeln!(text, "redirecting from {address}"),
        };
    }
    let tls = gateway.tls();
    let pin = tls.pin();
    if let Some(pin) = &pin {
        let _ = writeln!(text, "certificate pin {pin}");
    }
    let listening = gateway.address();
    let (host, certain) = host(config, tls.first_name(), listening.map(|address| address.ip()));
    let token = match &config.admission {
        // Whatever the gateway as a whole would admit, each route says for itself whom it does.
        _ if !config.at_large() => {
            text.push_str(
                "Backends show what a route or a name of the configuration admits them by.\n",
            );
            String::new()
        }
        Admission::Open => {
            text.push_str("OPEN: anybody may become the backend of this gateway.\n");
            String::new()
        }
        Admission::Keys { made: Some(token), .. } => format!("TOKEN={} ", token.reveal()),
        Admission::Keys { .. } => "TOKEN=(yours) ".to_owned(),
    };
    text.push_str("To show the web server on port 8080 of your machine, run there:\n");
    if !certain {
        let _ = writeln!(text, "(with this machine's public name or address in place of {host})");
    }
    // A certificate from an authority is renewed every few weeks, and its pin with it.
    let pin = pin.filter(|_| tls.is_self_signed());
    let pin = pin.map_or(String::new(), |pin| format!("--pin {pin} "));
    let port = listening.map_or(443, |address| address.port());
    let gateway = if port == 443 { host } else { format!("{host}:{port}") };
    let _ = writeln!(text, "{token}2ptth-client {pin}{gateway} http://localhost:8080");
    text
}

/// The best guess at what the other end must call this machine, and whether it is more than a guess.
fn host(config: &Config, certified: Option<String>, listening: Option<IpAddr>) -> (String, bool) {
    if let Some(CertificateSource::SelfSigned { names, .. }) = config.certificates.first() {
        if let Some(name) = names.first() {
            return (name.clone(), true);
        }
    } else if let Some(name) = certified {
        return (name, true);
    }
    match listening {
        Some(ip) if !ip.is_unspecified() => (bracketed(ip), true),
        _ => ("localhost".to_owned(), false),
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
