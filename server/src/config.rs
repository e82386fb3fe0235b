//! Flags, environment variables and files become one checked [`Config`].
//!
//! In:  [`Args`], a way to look up variables, and the file of `--config` ([`mod@ptth_link::settings`]).
//! Out: a [`Config`], or a sentence for each mistake that says what is wrong and what to do.

mod acme;
mod args;
mod gate;
mod identity;
mod listen;
mod names;
mod route;
mod routes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ptth_link::admin;
use ptth_link::alpn;
use ptth_link::crypto;
use ptth_link::explain::{self, keys};
use ptth_link::logging;
use ptth_link::settings::{Env, File, Mark, Mistakes, NUMBER, Sources, TIME, TIMEOUT};
use ptth_link::tcp::HTTPS;
use ptth_link::token::{PublicKey, Token};

use crate::auth::{Files, Secret};

pub use acme::Issuer;
pub use args::Args;
pub use gate::{Changes, Forward, Gate, Rate};
pub use listen::{ProxyProtocol, Trusted};
pub use ptth_link::settings::ConfigError;
pub use route::{Hold, NameGrant, Names, NoBackend, Respond, Route, WhenTaken};

use routes::Tables;

#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen. An IPv6 wildcard takes IPv4 as well.
    pub listen: Vec<SocketAddr>,
    pub plain: Vec<SocketAddr>,
    pub redirect: Vec<SocketAddr>,
    /// Where a load balancer's probe is answered on the public port, for any host.
    pub health_path: Option<String>,
    /// Where probes, scrapers and operators ask.
    pub admin: Option<admin::Address>,
    /// Share the ports with a gateway that runs already and will stop then.
    pub take_over: bool,
    /// The proxies whose Forwarded fields and PROXY headers count.
    pub trusted: Trusted,
    pub proxy_protocol: ProxyProtocol,
    /// The name in the ClientHello chooses one; the first, if no certificate has that name.
    pub certificates: Vec<CertificateSource>,
    /// Which backends may come in, where a route doesn't say so itself.
    pub admission: Admission,
    /// Without routes and names there is one route for all hosts and paths.
    pub routes: Vec<Route>,
    pub names: Option<Names>,
    /// Of the one route, where there are neither routes nor names.
    pub gate: Option<Gate>,
    /// The SHA-256 of that file and of all secret files that it names, to tell a change.
    pub digest: [u8; 32],
    /// The ALPN labels that mean "backend", in order of preference.
    pub backend_alpn: Vec<Vec<u8>>,
    pub limits: Limits,
    pub log: logging::Settings,
    pub explain: explain::Settings,
    /// Write the keys of the TLS sessions to the file of SSLKEYLOGFILE.
    pub key_log: bool,
    /// Where a line an exchange goes: a file, or stdout for `-`.
    pub access_log: Option<PathBuf>,
    /// The settings of which a change counts from the next start, by their names.
    pub from_next_start: BTreeMap<&'static str, String>,
    /// For the operator, a sentence each; none of them prevents the start.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateSource {
    /// PEM files, read again by [`crate::tls::Tls::reload`].
    Files {
        /// The chain, the server's own certificate first.
        cert: PathBuf,
        key: PathBuf,
    },
    SelfSigned {
        /// Names and addresses beside those of the machine.
        names: Vec<String>,
        /// The folder where it is kept for the next start.
        kept: Option<PathBuf>,
    },
    /// Ordered by the gateway itself, for one name; where that is embedded in another program, it isn't.
    Acme { name: String, issuer: Arc<Issuer> },
    /// PEM text, of the environment.
    Text { cert: Secret, key: Secret },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    Keys {
        keys: Vec<PublicKey>,
        /// Where they were read, if in a file; read again by [`crate::tls::Tls::reload`].
        file: Option<PathBuf>,
        /// The token that was made at start, if none was given; to be shown once.
        made: Option<Token>,
    },
    /// Any, one at a time.
    Open,
}

impl Admission {
    /// A fresh token, as without `--token-file`.
    pub fn make() -> Self {
        Self::made(Token::generate())
    }

    fn made(token: Token) -> Self {
        Self::Keys { keys: vec![token.public()], file: None, made: Some(token) }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    pub head: Duration,
    /// Without a byte in a response under way.
    pub stall: Duration,
    /// Connections at a time; `None` means a share of the descriptor limit.
    pub connections: Option<usize>,
    /// Connections at a time from one address; `None` means a share of all.
    pub connections_per_address: Option<usize>,
    pub tunnels: usize,
    /// For running responses, once asked to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Long reports and long polls are legal.
            head: Duration::from_secs(120),
            // Server-sent events pause.
            stall: Duration::from_secs(300),
            connections: None,
            connections_per_address: None,
            // A client has one for each core; a fleet under one token says so.
            tunnels: 64,
            grace: Duration::from_secs(30),
        }
    }
}

impl Limits {
    fn read(sources: &Sources<'_>) -> Self {
        let default = Self::default();
        let timeout = |name, default| sources.value(name, &TIMEOUT).unwrap_or(default);
        Self {
            head: timeout("head_timeout", default.head),
            stall: timeout("stall_timeout", default.stall),
            connections: sources.value("max_connections", &NUMBER),
            connections_per_address: sources.value("max_connections_per_address", &NUMBER),
            tunnels: sources.value("max_tunnels", &NUMBER).unwrap_or(default.tunnels),
            grace: sources.value("grace", &TIME).unwrap_or(default.grace),
        }
    }
}

impl Config {
    pub fn new(certificate: CertificateSource, admission: Admission) -> Self {
        Self::of(vec![certificate], admission)
    }

    fn of(certificates: Vec<CertificateSource>, admission: Admission) -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, HTTPS))],
            plain: Vec::new(),
            redirect: Vec::new(),
            health_path: None,
            admin: None,
            trusted: Trusted::default(),
            proxy_protocol: ProxyProtocol::default(),
            certificates,
            admission,
            routes: Vec::new(),
            names: None,
            gate: None,
            digest: [0; 32],
            backend_alpn: alpn::BACKEND_LABELS.map(<[u8]>::to_vec).into(),
            take_over: false,
            limits: Limits::default(),
            log: logging::Settings::default(),
            explain: explain::Settings::default(),
            key_log: false,
            access_log: None,
            from_next_start: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Whether [`Self::admission`] counts: there is a route without `allow`, or no route at all.
    pub fn at_large(&self) -> bool {
        let none = self.routes.is_empty() && self.names.is_none();
        none || self.routes.iter().any(|route| route.allow.is_none())
    }

    /// Checks flags, variables, the file, and the token and secret files that it names. The certificate's files
    /// are checked by [`crate::tls::Tls::new`]. A token that is made is another one each time. Blocks.
    ///
    /// # Errors
    /// [`ConfigError`]: all that is wrong with the file, or with what is said besides; in the file with its line.
    pub fn load(args: &Args, env: &Env<'_>) -> Result<Self, ConfigError> {
        let mistakes = Mistakes::default();
        let file = match File::given(args.config.as_deref(), env)? {
            None => routes::names_of_variables(env)?,
            file => file,
        };
        let mut files = Files::new(file.as_ref().map_or(Path::new(""), File::folder));
        let mut document = file.as_ref().map(|file| file.parse(&mistakes)).transpose()?;
        let tables = document.as_mut().map(|document| Tables::read(document, &mut files));
        let tables = tables.unwrap_or_default();
        let sources = Sources {
            settings: Args::SETTINGS,
            flags: args.given(),
            env,
            tables: document.iter().collect(),
            mistakes: &mistakes,
        };
        let state = sources.path("state");
        let certificate = identity::certificate(&sources, state.as_deref());
        let certificate = mistakes.note(certificate).flatten();
        let ordered = acme::certificates(&sources, state.as_deref(), &tables, &mut files);
        let written = tables.certificates.iter().cloned();
        let certificates = certificate.into_iter().chain(ordered).chain(written).collect();
        let mut warnings = Vec::new();
        warnings.extend(tables.names.as_ref().and_then(Names::warning));
        let admission = identity::admission(&sources, state.as_deref(), &mut warnings);
        let admission = mistakes.note(admission).unwrap_or_else(Admission::make);
        let mut config = Self { warnings, ..Self::of(certificates, admission) };
        config.limits = Limits::read(&sources);
        config.take_over = sources.switch("take_over");
        listen::read(&sources, &mut config);
        if let Some(given) = sources.get("backend_alpn") {
            let labels = alpn::parse_labels(&given.joined());
            let labels = labels.map_err(|why| given.wrong(format!(": {why}")));
            config.backend_alpn = mistakes.note(labels).unwrap_or_default();
        }
        config.log = logging::Settings::read(&sources);
        config.explain = explain::Settings::read(&sources, true);
        let key_log = mistakes.note(keys::asked(env)).flatten();
        config.key_log = key_log.is_some();
        config.warnings.extend(key_log);
        config.access_log = match sources.get("access_log") {
            Some(given) if given.joined() == "-" => Some("-".into()),
            given => given.and_then(|given| mistakes.note(given.path())),
        };
        config.gate = gate::of_one_route(&sources, &mut files, &tables);
        mistakes.end()?;
        let from_next_start = Args::SETTINGS.iter().filter(|setting| setting.is(Mark::NextStart));
        config.from_next_start = from_next_start
            .filter_map(|setting| Some((setting.name, sources.get(setting.name)?.joined())))
            .collect();
        (config.routes, config.names) = (tables.routes, tables.names);
        config.warnings.append(&mut files.warnings);
        let digest = file.as_ref().map_or([0; 32], |file| file.digest);
        let mut digest = [digest, files.digest].concat();
        if let Admission::Keys { keys, made: None, .. } = &config.admission {
            digest.extend(keys.iter().flat_map(PublicKey::as_bytes));
        }
        config.digest = crypto::sha256(&digest);
        config.warn();
        Ok(config)
    }

    /// Warns of settings that have no effect, or hardly the one that was meant.
    fn warn(&mut self) {
        let open = self.admission == Admission::Open;
        for route in self.routes.iter().filter(|route| route.allow.is_none() && open) {
            self.warnings.push(format!(
                "the route {:?} has no `allow`, so with --open ANY backend can serve it",
                route.name
            ));
        }
        let given = !matches!(self.admission, Admission::Keys { made: Some(_), .. });
        if given && !self.at_large() {
            self.warnings.push(
                "every route has its own `allow`, so --open and the keys of --token-file admit no backend"
                    .to_owned(),
            );
        }
    }
}
