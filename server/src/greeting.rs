//! What the gateway prints when it is ready; the last line is the client's complete command.

use std::fmt::Write;
use std::net::IpAddr;

use ptth_link::tcp::HTTPS;

use crate::config::{Admission, CertificateSource, Config};
use crate::gateway::Gateway;
use crate::listener::Entrance;

/// What to print at start.
pub fn lines(config: &Config, gateway: &Gateway) -> String {
    let mut text = String::new();
    for (entrance, address) in gateway.addresses() {
        let _ = match entrance {
            Entrance::Tls => writeln!(text, "listening on {address}"),
            Entrance::Plain => writeln!(text, "plain HTTP on {address}"),
            Entrance::Redirect => writeln!(text, "redirecting from {address}"),
        };
    }
    let tls = gateway.tls();
    let pin = tls.pin();
    if let Some(pin) = &pin {
        let _ = writeln!(text, "certificate pin {pin}");
    }
    let listening = gateway.address();
    let (host, certain) = host(config, tls.first_name(), listening.map(|address| address.ip()));
    let (said, token) = match &config.admission {
        // Each route has its own `allow`, so what the gateway as a whole admits doesn't count.
        _ if !config.at_large() => (
            "Backends show what a route or a name of the configuration admits them by.\n",
            String::new(),
        ),
        Admission::Open => {
            ("OPEN: anybody may become the backend of this gateway.\n", String::new())
        }
        Admission::Keys { made: Some(token), .. } => ("", format!("TOKEN={} ", token.reveal())),
        Admission::Keys { .. } => ("", "TOKEN=(yours) ".to_owned()),
    };
    text.push_str(said);
    text.push_str("To show the web server on port 8080 of your machine, run there:\n");
    if !certain {
        let _ = writeln!(text, "(with this machine's public name or address in place of {host})");
    }
    // A certificate from an authority is renewed every few weeks, and its pin with it.
    let pin = pin.filter(|_| tls.is_self_signed());
    let pin = pin.map_or(String::new(), |pin| format!("--pin {pin} "));
    let port = listening.map_or(HTTPS, |address| address.port());
    let gateway = if port == HTTPS { host } else { format!("{host}:{port}") };
    let _ = writeln!(text, "{token}2ptth-client {pin}{gateway} http://localhost:8080");
    text
}

/// The name or address by which a client reaches this machine, and whether that is more than a guess.
fn host(config: &Config, certified: Option<String>, listening: Option<IpAddr>) -> (String, bool) {
    let named = match config.certificates.first() {
        Some(CertificateSource::SelfSigned { names, .. }) => names.first().cloned(),
        _ => certified,
    };
    match (named, listening) {
        (Some(name), _) => (name, true),
        (None, Some(IpAddr::V4(v4))) if !v4.is_unspecified() => (v4.to_string(), true),
        (None, Some(IpAddr::V6(v6))) if !v6.is_unspecified() => (format!("[{v6}]"), true),
        _ => ("localhost".to_owned(), false),
    }
}
