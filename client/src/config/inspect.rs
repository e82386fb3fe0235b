//! Where the exchanges are shown, and how much is kept for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use http::HeaderName;
use ptth_link::admin::Address;
use ptth_link::settings::{Mistake, NUMBER, Parser, SIZE, Sources};

use super::{OriginAddress, Service};

/// What is kept of exchanges.
#[derive(Clone, Debug)]
pub struct Inspect {
    /// Where they are shown.
    pub at: Option<SocketAddr>,
    /// The folder that requests are written to.
    pub capture: Option<PathBuf>,
    pub limits: Limits,
}

/// How much is kept.
#[derive(Clone, Debug)]
pub struct Limits {
    pub exchanges: usize,
    /// Bytes of one body, and of all together.
    pub body: usize,
    pub bytes: usize,
    /// Fields whose values are shown only on request, beside those that are known to hold secrets.
    pub redact: Vec<HeaderName>,
}

pub(super) fn read(sources: &Sources<'_>, services: &[Service]) -> Option<Inspect> {
    let size = |name| sources.value(name, &SIZE).and_then(|size| usize::try_from(size).ok());
    let limits = Limits {
        exchanges: sources.value("inspect_keep", &NUMBER).unwrap_or(500),
        body: size("inspect_body").unwrap_or(1 << 20),
        bytes: size("inspect_bytes").unwrap_or(64 << 20),
        redact: sources.value("redact", &NAMES).unwrap_or_default(),
    };
    let at = sources.value("inspect_at", &AT);
    let at = at.or(sources.switch("inspect").then_some(USUAL));
    let capture = sources.path("capture");
    for (service, at) in services.iter().flat_map(|service| at.map(|at| (service, at))) {
        if let OriginAddress::Http { host, port } = &service.origin
            && *port == at.port()
            && (host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()))
        {
            let why = "--inspect (INSPECT) has the address of the origin, so visitors would reach it; give another --inspect-at";
            sources.mistakes.add(Mistake::new(why));
        }
    }
    (at.is_some() || capture.is_some()).then_some(Inspect { at, capture, limits })
}

/// The page shows requests with their secrets and sends them again: no other machine may reach it.
const AT: Parser<SocketAddr> =
    Parser("a port, or a loopback address and a port, like `4041` or `127.0.0.1:4041`", |text| {
        match Address::PARSER.parse(text) {
            Ok(Address::Tcp(address)) if address.ip().is_loopback() => Ok(address),
            _ => Err(None),
        }
    });

const NAMES: Parser<Vec<HeaderName>> = Parser("names of fields, separated by commas", |text| {
    text.split(',')
        .map(|name| HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| None))
        .collect()
});

const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4040);
