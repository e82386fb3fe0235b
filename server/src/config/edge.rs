//! What stands before the gateway and beside its port: trusted proxies, plain HTTP, redirects.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use ptth_link::tcp::is_near;

use super::source::{Origin, Sources, split};
use super::{Args, Config, ConfigError, parse};

/// The addresses of proxies whose word counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trusted(Arc<[IpNet]>);

impl Trusted {
    /// Reads networks (`10.0.0.0/8`) and single addresses.
    pub fn parse<T: AsRef<str>>(list: &[T]) -> Result<Self, ConfigError> {
        let network = |text: &T| {
            let text = text.as_ref();
            let network = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| IpNet::from(ip)));
            network.map_err(|_| ConfigError::Trusted(text.to_owned()))
        };
        list.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the operator should hear of a list with more in it than somebody's own networks.
    fn warning(&self) -> Option<String> {
        let wide = |network: &&IpNet| match network {
            IpNet::V4(v4) => v4.prefix_len() < WIDE_V4,
            IpNet::V6(v6) => v6.prefix_len() < WIDE_V6,
        };
        let network = self.0.iter().find(wide)?;
        Some(format!(
            "--trusted-proxies has {network}: whoever comes from there can say of itself that it is anybody; name your proxies alone"
        ))
    }

    /// Whether this is a trusted proxy's address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Wider than the widest private network, 10.0.0.0/8.
const WIDE_V4: u8 = 8;
/// Wider than what a provider gets.
const WIDE_V6: u8 = 7;

/// Whether trusted proxies begin their connections with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProxyProtocol {
    /// Never.
    Off,
    /// The first bytes tell.
    #[default]
    Optional,
    /// Always.
    Required,
}

/// Reads the settings of this file into `config`, which has the others already.
pub(super) fn read(
    args: &Args,
    sources: &Sources<'_>,
    config: &mut Config,
) -> Result<(), ConfigError> {
    let trusted = sources.setting(&args.trusted_proxies, "--trusted-proxies", "TRUSTED_PROXIES")?;
    if let Some((flag, list)) = trusted {
        config.trusted = Trusted::parse(&split(&list)).map_err(|why| flag.here(why))?;
        config.warnings.extend(config.trusted.warning());
    }
    let protocol = sources.setting(&args.proxy_protocol, "--proxy-protocol", "PROXY_PROTOCOL")?;
    if let Some((flag, text)) = protocol {
        config.proxy_protocol = match text.trim().to_ascii_lowercase().as_str() {
            "off" => ProxyProtocol::Off,
            "optional" => ProxyProtocol::Optional,
            "required" if config.trusted.is_empty() => {
                return Err(flag.here(ConfigError::NobodyTrusted));
            }
            "required" => ProxyProtocol::Required,
            _ => return Err(ConfigError::ProxyProtocol { flag, text }),
        };
    }
    let anywhere = sources.switch(args.plain_anywhere, "PLAIN_ANYWHERE")?;
    if let Some((flag, list)) = sources.list(&args.plain, "--plain", "PLAIN")? {
        config.plain = addresses(&flag, &list)?;
        if let Some(public) = config.plain.iter().find(|address| !is_private(address.ip()))
            && !anywhere
        {
            return Err(flag.here(ConfigError::PlainPublic(*public)));
        }
    }
    if let Some((flag, list)) = sources.list(&args.redirect, "--redirect", "REDIRECT")? {
        config.redirect = addresses(&flag, &list)?;
    }
    if !config.plain.is_empty() && config.trusted.is_empty() {
        config.warnings.push(
            "--plain without --trusted-proxies: to the origin every visitor has the address of the proxy before this gateway, and came by http".to_owned(),
        );
    }
    Ok(())
}

fn addresses(flag: &Origin, list: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let address = |text: &String| {
        let error = || ConfigError::Address { flag: flag.clone(), text: text.clone() };
        parse::address(text, HTTP).ok_or_else(error)
    };
    list.iter().map(address).collect()
}

/// Loopback, and what no router of the internet passes on: RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6.
/// A wildcard is every address of the machine, and so counts as public.
fn is_private(address: IpAddr) -> bool {
    is_near(address)
        || match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }
}

/// The port of HTTP.
const HTTP: u16 = 80;
