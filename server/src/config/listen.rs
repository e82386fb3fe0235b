//! What stands in front of the gateway and beside its port: trusted proxies, plain HTTP, redirects.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::uri::PathAndQuery;
use ipnet::IpNet;
use ptth_link::admin;
use ptth_link::settings::{self, Mistake, Parser, Sources, word};
use ptth_link::tcp::{HTTP, HTTPS, is_private};

use super::Config;

/// The addresses of proxies whose Forwarded fields and PROXY headers count.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trusted(Arc<[IpNet]>);

impl Trusted {
    /// Reads networks (`10.0.0.0/8`) and single addresses.
    ///
    /// # Errors
    /// A sentence about the first text that is neither.
    pub fn parse<T: AsRef<str>>(list: &[T]) -> Result<Self, String> {
        let networks = list.iter().map(|text| NETWORK.parse(text.as_ref()));
        networks.collect::<Result<_, _>>().map(Self)
    }

    /// A warning of a network wider than 10.0.0.0/8, the widest private one, or than what a provider gets.
    fn warning(&self) -> Option<String> {
        let wide = |network: &&IpNet| match network {
            IpNet::V4(v4) => v4.prefix_len() < 8,
            IpNet::V6(v6) => v6.prefix_len() < 7,
        };
        let network = self.0.iter().find(wide)?;
        Some(format!(
            "--trusted-proxies has {network}: every peer there can claim to be any visitor; name your proxies alone"
        ))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Whether trusted proxies begin their connections with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProxyProtocol {
    Off,
    /// The first bytes tell.
    #[default]
    Optional,
    Required,
}

const PROXY_PROTOCOL: Parser<ProxyProtocol> = Parser("off, optional or required", |text| {
    use ProxyProtocol::{Off, Optional, Required};
    let words = [("off", Off), ("optional", Optional), ("required", Required)];
    word(&text.to_ascii_lowercase(), &words)
});

pub(super) const NETWORK: Parser<IpNet> =
    Parser("an address or a network, like `10.0.0.0/8`, `192.0.2.7` or `fd00::/8`", |text| {
        let network = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| IpNet::from(ip)));
        network.map_err(|_| None)
    });

const HEALTH_PATH: Parser<String> = Parser("a path like `/healthz`, without a query", |text| {
    let path = PathAndQuery::try_from(text).ok().filter(|_| text.starts_with('/'));
    path.filter(|it| it.query().is_none() && it.as_str() == text)
        .map(|_| text.to_owned())
        .ok_or(None)
});

const LISTEN: Parser<SocketAddr> = Parser(ADDRESS, |text| address(text, HTTPS).ok_or(None));
const PLAIN: Parser<SocketAddr> = Parser(ADDRESS, |text| address(text, HTTP).ok_or(None));
const ADDRESS: &str =
    "a port, or an IP address and a port, like `443`, `127.0.0.1:8080` or `[::1]:8443`";

/// `443`, `:443`, `*:443`, `0.0.0.0:443`, `[::]:443`, or an address alone, which has `port`.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::from((ip, port)));
    }
    let port = text.strip_prefix("*:").or(text.strip_prefix(':')).unwrap_or(text);
    // `parse` alone would take "+443".
    let port = port.bytes().all(|b| b.is_ascii_digit()).then_some(port)?;
    Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse().ok()?)))
}

/// Reads the settings of this file into `config`, which has the certificates already.
pub(super) fn read(sources: &Sources<'_>, config: &mut Config) {
    let trusted = sources.list("trusted_proxies", &NETWORK).unwrap_or_default();
    config.trusted = Trusted(trusted.into());
    config.warnings.extend(config.trusted.warning());
    config.proxy_protocol = sources.value("proxy_protocol", &PROXY_PROTOCOL).unwrap_or_default();
    let needs_proxies = config.proxy_protocol == ProxyProtocol::Required;
    if needs_proxies
        && config.trusted.0.is_empty()
        && let Some(given) = sources.get("proxy_protocol")
    {
        given.refuse::<()>("--proxy-protocol required is about the proxies of --trusted-proxies (TRUSTED_PROXIES); give their addresses there");
    }
    config.plain = sources.list("plain", &PLAIN).unwrap_or_default();
    let anywhere = sources.switch("plain_anywhere");
    let public = config.plain.iter().find(|address| !anywhere && !is_private(address.ip()));
    if let (Some(public), Some(given)) = (public, sources.get("plain")) {
        given.refuse::<()>(format!(
            "--plain {public} would take requests without TLS from any peer; give a loopback or private address, or --plain-anywhere if a firewall keeps other peers away from it"
        ));
    }
    config.redirect = sources.list("redirect", &PLAIN).unwrap_or_default();
    if !config.plain.is_empty() && config.trusted.0.is_empty() {
        config.warnings.push(
            "--plain without --trusted-proxies: to the origin every visitor has the address of the proxy before this gateway, and came by http".to_owned(),
        );
    }
    config.health_path = sources.value("health_path", &HEALTH_PATH);
    config.admin = admin::read(sources);
    listen(sources, config);
}

/// Where to listen, if that isn't the default.
fn listen(sources: &Sources<'_>, config: &mut Config) {
    let port = || sources.mistakes.note(settings::variable(sources.env, "PORT", false)).flatten();
    if let Some(listen) = sources.list("listen", &LISTEN) {
        config.listen = listen;
    } else if !config.plain.is_empty() {
        config.listen.clear();
        if !config.certificates.is_empty() {
            let unused = "--plain without --listen: no visitor is shown the certificate";
            config.warnings.push(unused.to_owned());
        }
    } else if let Some(port) = port() {
        let address = LISTEN.parse(port.trim());
        let address = address.map_err(|why| Mistake::new(format!("PORT {why}")));
        config.listen = sources.mistakes.note(address).into_iter().collect();
    }
    if config.certificates.is_empty() && !config.listen.is_empty() && sources.mistakes.is_empty() {
        sources.mistakes.add(Mistake::new("no certificate: give --cert FILE and --key FILE (or CERT and KEY), or --self-signed to try it out"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses_are_written_in_many_ways() {
        let table = [
            ("443", "[::]:443"),
            (":8443", "[::]:8443"),
            ("*:8443", "[::]:8443"),
            ("0", "[::]:0"),
            ("0.0.0.0:443", "0.0.0.0:443"),
            ("[::]:0", "[::]:0"),
            ("[::1]", "[::1]:443"),
            ("::1", "[::1]:443"),
            ("127.0.0.1", "127.0.0.1:443"),
        ];
        for (text, expected) in table {
            assert_eq!(LISTEN.parse(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in
            ["", ":", "+443", "65536", "-1", "localhost:443", "1.2.3.4:", "[::1]:x", "1.2.3:4"]
        {
            assert!(LISTEN.parse(bad).is_err(), "{bad}");
        }
    }
}
