//! Flags, environment variables and files become checked [`Options`].
//!
//! In:  [`Args`], a way to look up variables, and perhaps a file; a flag beats a variable, which beats the
//!      file, which beats the default.
//! Out: [`Options`], or one sentence that says what is wrong and what to do.

mod args;
mod authorization;
mod error;
mod file;
mod gateway;
mod origin;
mod proxies;
#[cfg(test)]
mod tests;
mod ways;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use log::LevelFilter;
use rustls::pki_types::ServerName;

use ptth_link::alpn;
use ptth_link::crypto;
use ptth_link::env::{self, Env};
use ptth_link::token::{self, Token};

pub use args::Args;
pub use authorization::{Authorization, Value, ValueError};
pub use error::ConfigError;
pub use file::{FileError, Place};
pub use gateway::Gateway;
pub use origin::{HostHeader, OriginAddress, OriginOptions};
pub use proxies::{Kind, Proxies, Proxy};
pub use ways::Via;

use file::{File, blaming};

/// What the binary was told, checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// At least one.
    pub services: Vec<Service>,
    /// Where to write the public addresses.
    pub url_file: Option<PathBuf>,
    /// How much to log.
    pub log: LevelFilter,
    /// What the user should hear, though it stops nothing; a sentence each.
    pub warnings: Vec<String>,
}

/// One service, which has tunnels of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Service {
    /// Its name for the user, where there are several.
    pub label: Option<String>,
    /// The library's half.
    pub config: Config,
    /// Who answers the requests.
    pub origin: OriginAddress,
    /// How it is asked.
    pub asking: OriginOptions,
}

/// What it takes to hold tunnels to a gateway.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to dial.
    pub gateway: Gateway,
    /// Without TLS, which ends in front of the gateway or nowhere.
    pub plain: bool,
    /// The public host to serve, sent as SNI; the gateway's certificate must cover it.
    pub host: String,
    /// The public host to register for, if not all that the credential is good for.
    pub asked_host: Option<String>,
    /// The path to serve alone, as the gateway's route has it.
    pub path: Option<String>,
    /// The dynamic name to ask for; the gateway knows where it leads.
    pub name: Option<String>,
    /// What the gateway admits us by; without one, only an open gateway does.
    pub token: Option<Token>,
    /// What a registration over HTTP shows; such a one can't use the token.
    pub authorization: Option<Authorization>,
    /// Which door to knock at.
    pub via: Via,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// Hold tunnels to each address of the gateway's name, directly: no proxy is used then.
    pub all_addresses: bool,
    /// How to know the gateway.
    pub trust: Trust,
    /// Where another backend keeps the place, wait until it is free.
    pub standby: bool,
    /// Answer for hosts that the gateway's certificate doesn't cover.
    pub any_host: bool,
    /// Parallel tunnels, 1 to [`MAX_TUNNELS`]; to each address if it is all of them.
    pub tunnels: usize,
    /// The ALPN label that means "backend".
    pub alpn: Vec<u8>,
    /// Stands in for a token, so that an open gateway can tell that tunnels belong together.
    stand_in: Token,
}

/// How the client knows that it talks to its gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    /// By the system's trust store, or a bundled one where there is none.
    System,
    /// By the certificates in a PEM file.
    Ca(PathBuf),
    /// By the SHA-256 of its certificate.
    Pin([u8; 32]),
    /// Not at all.
    Insecure,
}

impl Config {
    /// The defaults for a gateway.
    pub fn new(gateway: Gateway) -> Self {
        Self {
            host: gateway.host.trim_end_matches('.').to_owned(),
            gateway,
            plain: false,
            asked_host: None,
            path: None,
            name: None,
            token: None,
            authorization: None,
            via: Via::Auto,
            proxies: Proxies::default(),
            all_addresses: false,
            trust: Trust::System,
            standby: false,
            any_host: false,
            tunnels: 2,
            alpn: alpn::PTTH.to_vec(),
            stand_in: Token::generate(),
        }
    }

    /// The key that the tunnels of this configuration have in common: the token, or one made up.
    pub(crate) fn identity(&self) -> &Token {
        self.token.as_ref().unwrap_or(&self.stand_in)
    }
}

impl Options {
    /// Checks flags, variables and files. The file of `--ca` is checked by [`crate::tls::verifier`].
    pub fn from(args: Args, env: &Env<'_>) -> Result<Self, ConfigError> {
        let file = match setting(&args.config, env, "--config", "CONFIG")? {
            Some((_, path)) => File::read(Path::new(&path))?,
            None => File::default(),
        };
        if file.services() > 0
            && let Some(flag) = for_one_service(&args, env)
        {
            return Err(ConfigError::ForOneService(flag));
        }
        let (mut services, mut warnings): (Vec<Service>, _) = (Vec::new(), Vec::new());
        let (mut log, mut url_file) = (LevelFilter::Info, None);
        for layers in file.layers() {
            let read = |env: &Env<'_>| {
                let mut warnings = Vec::new();
                let service = Service::from(&args, env, &mut warnings)?;
                Ok((service, warnings, level(&args, env)?, urls(&args, env)?))
            };
            let (mut service, said, level, urls) = blaming(layers, env, read)?;
            layers.check(&service, &services)?;
            if file.services() > 1 {
                let label = service.config.name.as_ref().or(service.config.asked_host.as_ref());
                let number = || (services.len() + 1).to_string();
                service.label = Some(label.cloned().unwrap_or_else(number));
            }
            (log, url_file) = (level, urls);
            services.push(service);
            warnings.extend(said);
        }
        warnings.sort();
        warnings.dedup();
        Ok(Self { services, url_file, log, warnings })
    }
}

impl Service {
    fn from(args: &Args, env: &Env<'_>, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let (gateway, plain, origin) = addresses(args, env)?;
        let asking = ways::asking(args, env, &origin, warnings)?;
        let mut config = Config::new(gateway);
        config.plain = plain;
        config.trust = trust(args, env)?;
        config.token = token(args, env, warnings)?;
        config.any_host = args.any_host || env::switch(env, "ANY_HOST")?;
        config.standby = args.standby || env::switch(env, "STANDBY")?;
        if let Some((flag, text)) = setting(&args.host, env, "--host", "PUBLIC_HOST")? {
            config.host = public_host(flag, &text)?;
            config.asked_host = Some(config.host.clone());
        }
        if let Some((flag, text)) = setting(&args.name, env, "--name", "NAME")? {
            let name = Some(text.trim().to_owned()).filter(|name| token::is_name(name));
            config.name = Some(name.ok_or(ConfigError::Name { flag, text })?);
        }
        if let Some((flag, text)) = setting(&args.path, env, "--path", "PUBLIC_PATH")? {
            config.path = Some(ways::public_path(&text).ok_or(ConfigError::Path { flag, text })?);
        }
        if let Some((flag, text)) = setting(&args.tunnels, env, "--tunnels", "TUNNELS")? {
            let number = text.trim().parse().ok().filter(|n| (1..=MAX_TUNNELS).contains(n));
            config.tunnels = number.ok_or(ConfigError::Tunnels { flag, text })?;
        }
        if let Some((_, text)) = setting(&args.alpn, env, "--alpn", "ALPN")? {
            config.alpn = alpn::parse_label(&text).map_err(ConfigError::Alpn)?;
        }
        ways::settle(&mut config, args, env, warnings)?;
        Ok(Self { label: None, config, origin, asking })
    }
}

fn level(args: &Args, env: &Env<'_>) -> Result<LevelFilter, ConfigError> {
    match setting(&args.log, env, "--log", "LOG")? {
        Some((flag, text)) => text.trim().parse().map_err(|_| ConfigError::Log { flag, text }),
        None => Ok(LevelFilter::Info),
    }
}

fn urls(args: &Args, env: &Env<'_>) -> Result<Option<PathBuf>, ConfigError> {
    Ok(setting(&args.url_file, env, "--url-file", "URL_FILE")?.map(|(_, path)| path.into()))
}

/// What was said that can't hold for several services.
fn for_one_service(args: &Args, env: &Env<'_>) -> Option<&'static str> {
    let is_set = |variable: &&str| env(variable).is_some_and(|text| !text.is_empty());
    match args {
        Args { addresses, .. } if addresses.len() > 1 => Some("an origin"),
        Args { host: Some(_), .. } => Some("--host"),
        Args { name: Some(_), .. } => Some("--name"),
        Args { path: Some(_), .. } => Some("--path"),
        _ => ["ORIGIN", "PUBLIC_HOST", "PUBLIC_PATH", "NAME"].into_iter().find(is_set),
    }
}

/// The gateway, whether it has no TLS, and the origin.
fn addresses(args: &Args, env: &Env<'_>) -> Result<(Gateway, bool, OriginAddress), ConfigError> {
    let mut addresses = args.addresses.iter().cloned();
    let (gateway, origin) = (addresses.next(), addresses.next());
    if let Some(text) = addresses.next() {
        return Err(ConfigError::Surplus(origin::quotable(&text)));
    }
    let (gateway, plain) = match setting(&gateway, env, "GATEWAY", "GATEWAY")? {
        Some((_, text)) => Gateway::parse_either(&text)?,
        None => return Err(ConfigError::NoGateway),
    };
    let origin = match setting(&origin, env, "ORIGIN", "ORIGIN")? {
        Some((_, text)) => OriginAddress::parse(&text)?,
        None => OriginAddress::Demo,
    };
    Ok((gateway, plain, origin))
}

/// The text of a setting and where it came from: the flag, else the variable.
fn setting(
    flag: &Option<String>,
    env: &Env<'_>,
    flag_name: &'static str,
    variable: &'static str,
) -> Result<Option<(&'static str, String)>, ConfigError> {
    match flag {
        Some(text) => Ok(Some((flag_name, text.clone()))),
        None => Ok(env::text(env, variable)?.map(|text| (variable, text))),
    }
}

/// One of three ways at most, and those of the command line before those of the environment.
fn trust(args: &Args, env: &Env<'_>) -> Result<Trust, ConfigError> {
    let mut ways = (args.ca.clone(), args.pin.clone(), args.insecure);
    if ways == (None, None, false) {
        let ca = env::required(env, "CA")?.map(PathBuf::from);
        ways = (ca, env::required(env, "PIN")?, env::switch(env, "INSECURE")?);
    }
    match ways {
        (None, None, false) => Ok(Trust::System),
        (Some(path), None, false) => Ok(Trust::Ca(path)),
        (None, Some(pin), false) => crypto::parse_pin(&pin).map(Trust::Pin).ok_or(ConfigError::Pin),
        (None, None, true) => Ok(Trust::Insecure),
        _ => Err(ConfigError::TrustTwice),
    }
}

fn token(
    args: &Args,
    env: &Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Token>, ConfigError> {
    let file = match &args.token_file {
        Some(path) => Some(path.clone()),
        None => env::required(env, "TOKEN_FILE")?.map(PathBuf::from),
    };
    let mistaken = |path: &PathBuf| path.to_str().is_some_and(token::begins_like_one);
    if file.as_ref().is_some_and(|path| mistaken(path) && !path.exists()) {
        return Err(ConfigError::TokenAsFile);
    }
    match (file, env::required(env, "TOKEN")?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) if args.token_file.is_none() => Err(ConfigError::TokenTwice),
        (Some(path), _) => {
            let token = token_in(&path)?;
            warnings.extend(exposed(&path, "token"));
            Ok(Some(token))
        }
        (None, Some(text)) => Token::parse(&text).map(Some).map_err(ConfigError::Token),
    }
}

/// The one token in a file; blank lines and lines that begin with `#` don't count.
fn token_in(path: &Path) -> Result<Token, ConfigError> {
    let unreadable = |why: String| ConfigError::Unreadable { path: path.to_owned(), why };
    let bytes = fs::read(path).map_err(|err| unreadable(err.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it isn't text".to_owned()))?;
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.by_ref().filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let bad = |why| ConfigError::TokenFile { path: path.to_owned(), why };
    match lines.as_slice() {
        [] => Token::parse("").map_err(bad),
        [line] => Token::parse(line).map_err(bad),
        _ => Err(ConfigError::ManyTokens(path.to_owned())),
    }
}

/// A warning if others on the machine can read the secret in a file.
#[cfg(unix)]
fn exposed(path: &Path, what: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| {
        format!(
            "everybody on this machine can read the {what} in {}; `chmod 600` it",
            path.display()
        )
    })
}

#[cfg(not(unix))]
fn exposed(_: &Path, _: &str) -> Option<String> {
    None
}

/// A name or an address that can stand in SNI or in a certificate.
fn public_host(flag: &'static str, text: &str) -> Result<String, ConfigError> {
    let host = text.trim().trim_end_matches('.').to_ascii_lowercase();
    let bare = host.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let host = bare.filter(|t| t.parse::<IpAddr>().is_ok()).unwrap_or(&host);
    match ServerName::try_from(host) {
        Ok(_) => Ok(host.to_owned()),
        Err(_) => Err(ConfigError::Host { flag, text: text.to_owned() }),
    }
}

/// The most tunnels that one client asks for: more cost memory at both ends and speed nothing up.
pub const MAX_TUNNELS: usize = 64;
