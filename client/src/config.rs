//! Flags, environment variables and files become checked [`Options`].
//!
//! In:  [`Args`], a way to look up variables, and perhaps a file ([`mod@ptth_link::settings`]).
//! Out: [`Options`], or a sentence for each mistake that says what is wrong and what to do.

mod address;
mod args;
mod authorization;
mod inspect;
mod proxies;
mod service;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ptth_link::admin;
use ptth_link::alpn;
use ptth_link::cli::quotable;
use ptth_link::explain::{self, keys};
use ptth_link::logging;
use ptth_link::settings::{self, Env, File, Given, Mark, Mistake, Mistakes, Sources};
use ptth_link::token::Token;

pub(crate) use address::host_and_port;
pub use address::{Gateway, HostHeader, OriginAddress, OriginOptions};
pub use args::Args;
pub use authorization::{Authorization, Value};
pub use inspect::{Inspect, Limits};
pub use proxies::Proxies;
pub(crate) use proxies::{Kind, Proxy};
pub use ptth_link::settings::ConfigError;
pub use service::Via;

#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Options {
    /// At least one.
    pub services: Vec<Service>,
    pub url_file: Option<PathBuf>,
    pub admin: Option<admin::Address>,
    pub inspect: Option<Inspect>,
    pub log: logging::Settings,
    pub explain: explain::Settings,
    pub warnings: Vec<String>,
}

/// One service, which has tunnels of its own.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name for the user, where there are several.
    pub label: Option<String>,
    pub config: Config,
    pub origin: OriginAddress,
    pub asking: OriginOptions,
}

/// What it takes to hold tunnels to a gateway.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
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
    pub via: Via,
    pub proxies: Proxies,
    /// Hold tunnels to each address of the gateway's name, directly: no proxy is used then.
    pub all_addresses: bool,
    pub trust: Trust,
    /// Where another backend keeps the place, wait until it is free.
    pub standby: bool,
    /// Answer for hosts that the gateway's certificate doesn't cover.
    pub any_host: bool,
    /// Parallel tunnels, 1 to [`MAX_TUNNELS`]; to each address if it is all of them.
    pub tunnels: usize,
    pub alpn: Vec<u8>,
    /// Write the keys of the tunnels' TLS sessions to the file of SSLKEYLOGFILE.
    pub key_log: bool,
    /// Stands in for a token, so that an open gateway can tell that tunnels belong together.
    stand_in: Token,
}

/// How the client knows that it talks to its gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    /// By the system's trust store, or a bundled one where there is none.
    System,
    Ca(PathBuf),
    Pin([u8; 32]),
    Insecure,
}

impl Config {
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
            key_log: false,
            stand_in: Token::generate(),
        }
    }

    /// The public host, with the gateway's port unless it is the scheme's own (RFC 6454 §6.2).
    pub(crate) fn public_authority(&self) -> String {
        let port = self.gateway.port;
        let port = if port == if self.plain { 80 } else { 443 } { None } else { Some(port) };
        address::authority(&self.host, port)
    }

    /// Where visitors find the public host, if they use the gateway's port and not another one in front of it.
    pub fn public_url(&self) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://{}", self.public_authority())
    }

    /// The key that the tunnels of this configuration have in common: the token, or one made up.
    pub(crate) fn identity(&self) -> &Token {
        self.token.as_ref().unwrap_or(&self.stand_in)
    }
}

impl Options {
    /// Checks flags, variables and files. The file of `--ca` is checked by [`crate::tls::verifier`].
    ///
    /// # Errors
    /// [`ConfigError`]: all that is wrong with the file, or with what is said besides; in the file with its line.
    pub fn from(args: Args, env: &Env<'_>) -> Result<Self, ConfigError> {
        let mistakes = Mistakes::default();
        let file = File::given(args.config.as_deref(), env)?;
        let mut top = file.as_ref().map(|file| file.parse(&mistakes)).transpose()?;
        let tables = top.as_mut().map(tables).unwrap_or_default();
        if let Some(text) = args.addresses.get(2) {
            let text = quotable(text);
            mistakes.add(Mistake::new(format!(
                "{text:?} is one address too many; write a gateway and one origin"
            )));
        }
        let mut flags = args.given();
        let addresses = ["gateway", "origin"].into_iter().zip(&args.addresses);
        flags.extend(addresses.map(|(name, address)| (name, settings::text(address))));
        let sources = |tables| {
            let (settings, flags) = (Args::SETTINGS, flags.clone());
            Sources { settings, flags, env, tables, mistakes: &mistakes }
        };
        let whole = sources(top.iter().collect());
        let own = Args::SETTINGS.iter().filter(|setting| setting.is(Mark::Own));
        let own = own.filter_map(|setting| whole.get(setting.name));
        for given in own.filter(|_| !tables.is_empty()) {
            mistakes.add(given.wrong("can't hold for each [[service]] of the file; say it there"));
        }
        let (mut services, mut warnings): (Vec<Service>, _) = (Vec::new(), Vec::new());
        if tables.is_empty() {
            services.extend(service::service(&whole, &mut warnings));
        }
        for table in &tables {
            let sources = sources([table].into_iter().chain(&top).collect());
            let Some(mut service) = service::service(&sources, &mut warnings) else { continue };
            if services.iter().any(|other| is_twin(&other.config, &service.config)) {
                table.refuse::<()>("another service has the same credential, and one of them asks for all that the other does, so visitors would get either; give each a host, a path or a name");
            }
            if tables.len() > 1 {
                let label = service.config.name.as_ref().or(service.config.asked_host.as_ref());
                let number = || (services.len() + 1).to_string();
                service.label = Some(label.cloned().unwrap_or_else(number));
            }
            services.push(service);
        }
        let log = logging::Settings::read(&whole);
        let explain = explain::Settings::read(&whole, false);
        let key_log = mistakes.note(keys::asked(env)).flatten();
        services.iter_mut().for_each(|service| service.config.key_log = key_log.is_some());
        warnings.extend(key_log);
        let url_file = whole.path("url_file");
        let admin = admin::read(&whole);
        let inspect = inspect::read(&whole, &services);
        mistakes.end()?;
        warnings.sort();
        warnings.dedup();
        Ok(Self { services, url_file, admin, inspect, log, explain, warnings })
    }
}

fn tables<'a>(top: &mut Given<'a>) -> Vec<Given<'a>> {
    let services = top.tables("service", "[[service]]");
    top.end(Args::SETTINGS);
    for table in &services {
        table.end(Args::SETTINGS);
        let mut global = Args::SETTINGS.iter().filter(|setting| setting.is(Mark::Global));
        if let Some(given) = global.find_map(|setting| table.get(setting.name)) {
            table.mistakes.add(given.wrong("holds for all services; move it up"));
        }
        if table.get("origin").is_none() && table.mistakes.is_empty() {
            table.refuse::<()>("this service has no origin");
        }
    }
    services
}

/// Whether the gateway would have both answer for the same.
fn is_twin(one: &Config, other: &Config) -> bool {
    one.authorization == other.authorization
        && one.token == other.token
        && one.gateway == other.gateway
        && one.via == other.via
        && (covers(one, other) || covers(other, one))
}

/// Whether one asks for all that the other asks for.
fn covers(one: &Config, other: &Config) -> bool {
    let all = one.asked_host.is_none() && one.name.is_none();
    let same = one.asked_host == other.asked_host && one.name == other.name;
    (all || same) && (one.path.is_none() || one.path == other.path)
}

/// The most tunnels that one client asks for: more cost memory at both ends and speed nothing up.
pub const MAX_TUNNELS: usize = 64;
