//! Flags, environment variables and files become one checked [`Config`].
//!
//! In:  [`Args`] and a way to look up variables; a flag beats a variable, which beats the file, which
//!      beats the default (`source`).
//! Out: a [`Config`], or one sentence that says what is wrong and what to do.

mod args;
mod edge;
mod error;
mod fields;
mod file;
mod identity;
mod mistake;
mod names;
mod parse;
mod route;
mod routes;
mod several;
mod source;
#[cfg(test)]
mod tests;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use ptth_link::alpn;
use ptth_link::crypto;
use ptth_link::env::{self, Env};
use ptth_link::token::{PublicKey, Token};

use crate::auth::Secret;

pub use args::Args;
pub use edge::{ProxyProtocol, Trusted};
pub use error::ConfigError;
pub use mistake::Mistake;
pub use route::{Hold, NameGrant, Names, NoBackend, Respond, Route, WhenTaken};
pub use source::{Origin, Place};

pub(crate) use identity::read_token_file;

use file::File;
use identity::{admission, certificates};
use several::Several;
use source::Sources;

/// Everything that the gateway was told, checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen. An IPv6 wildcard takes IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for HTTP without TLS.
    pub plain: Vec<SocketAddr>,
    /// Where to listen for HTTP that is only told to come by https.
    pub redirect: Vec<SocketAddr>,
    /// Share the ports with a gateway that is there already and is to stop then.
    pub take_over: bool,
    /// The proxies whose word counts.
    pub trusted: Trusted,
    /// Whether they speak the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// What the gateway shows to visitors and backends, by the name that they call: the first to those who
    /// call none that is in one.
    pub certificates: Vec<CertificateSource>,
    /// Which backends may come in, where a route doesn't say so itself.
    pub admission: Admission,
    /// The routes. None, and no names either: one for all hosts and paths, see [`Self::at_large`].
    pub routes: Vec<Route>,
    /// The dynamic names, if backends may ask for one.
    pub names: Option<Names>,
    /// The file that this comes from.
    pub file: Option<PathBuf>,
    /// The SHA-256 of that file and of all secret files that it names, to tell a change.
    pub digest: [u8; 32],
    /// The ALPN labels that mean "backend", in order of preference.
    pub backend_alpn: Vec<Vec<u8>>,
    /// How long and how many.
    pub limits: Limits,
    /// How much to log. Only the binary looks at it.
    pub log: LevelFilter,
    /// What the operator should hear, though it stops nothing; a sentence each.
    pub warnings: Vec<String>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateSource {
    /// PEM files, read again by [`crate::tls::Tls::reload`].
    Files {
        /// The chain, the server's own certificate first.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Made at start.
    SelfSigned {
        /// Names and addresses beside those of the machine.
        names: Vec<String>,
        /// The folder where it is kept for the next start.
        kept: Option<PathBuf>,
    },
    /// PEM text, of the environment.
    Text {
        /// As in a file.
        cert: Secret,
        /// Likewise.
        key: Secret,
    },
}

/// Which backends may come in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Those that prove to hold one of these keys.
    Keys {
        /// The public halves.
        keys: Vec<PublicKey>,
        /// Where they were read, if in a file; read again by [`crate::tls::Tls::reload`].
        file: Option<PathBuf>,
        /// The token made at start, if nobody brought one; to be shown once.
        made: Option<Token>,
    },
    /// Any, one at a time.
    Open,
}

impl Admission {
    /// A fresh token, as without `--token-file`.
    pub fn make() -> Self {
        Self::of(Token::generate())
    }

    /// A token that was made here, and is shown.
    fn of(token: Token) -> Self {
        Self::Keys { keys: vec![token.public()], file: None, made: Some(token) }
    }
}

/// How long and how many, where that is the operator's to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// From the request's head to the response's.
    pub head: Duration,
    /// Without a byte in a response under way.
    pub stall: Duration,
    /// Connections at a time; `None` means a share of the descriptor limit.
    pub connections: Option<usize>,
    /// Connections at a time from one address; `None` means a share of all.
    pub connections_per_address: Option<usize>,
    /// Tunnels at a time of one credential on one route.
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

impl Config {
    /// The defaults, beside what has none.
    pub fn new(certificate: CertificateSource, admission: Admission) -> Self {
        Self::of(vec![certificate], admission)
    }

    fn of(certificates: Vec<CertificateSource>, admission: Admission) -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, parse::PORT))],
            plain: Vec::new(),
            redirect: Vec::new(),
            trusted: Trusted::default(),
            proxy_protocol: ProxyProtocol::default(),
            certificates,
            admission,
            routes: Vec::new(),
            names: None,
            file: None,
            digest: [0; 32],
            backend_alpn: alpn::backend_labels(),
            take_over: false,
            limits: Limits::default(),
            log: LevelFilter::Info,
            warnings: Vec::new(),
        }
    }

    /// Whether [`Self::admission`] counts: there is a route without `allow`, or no route at all.
    pub fn at_large(&self) -> bool {
        let none = self.routes.is_empty() && self.names.is_none();
        none || self.routes.iter().any(|route| route.allow.is_none())
    }

    /// Checks flags, variables, the file, and what it names: token and secret files. Called again, it
    /// reads everything again; only a token made for want of another is new each time. The
    /// certificate's files are checked by [`crate::tls::Tls::new`].
    ///
    /// # Errors
    /// [`ConfigError`]: all that is wrong with the file, or with what is said besides; in the file with its line.
    pub fn load(args: &Args, env: &Env<'_>) -> Result<Self, ConfigError> {
        let path = match &args.config {
            Some(path) => Some(path.clone()),
            None => env::text(env, "CONFIG")?.map(PathBuf::from),
        };
        let file = match &path {
            Some(path) => File::read(path)?,
            None => File::of_variables(env)?,
        };
        let sources = Sources { env, file: &file.settings, folder: &file.folder };
        let (mut warnings, mut several) = (file.warnings, Several::default());
        let state = sources.path(&args.state, "STATE_DIRECTORY")?;
        let found = several.note(certificates(args, &sources, file.certificates));
        let mut certificates = found.unwrap_or_default();
        if let Some(CertificateSource::SelfSigned { kept, .. }) = certificates.first_mut() {
            *kept = state.clone();
        }
        let admitted = several.note(admission(args, &sources, state.as_deref(), &mut warnings));
        let (admission, keys) = admitted.unwrap_or((Admission::Open, String::new()));
        let mut config = Self::of(certificates, admission);
        config.warnings = warnings;
        config.limits = several.note(limits(args, &sources)).unwrap_or_default();
        let switch = sources.switch(args.take_over, "TAKE_OVER");
        config.take_over = several.note(switch).unwrap_or_default();
        several.note(edge::read(args, &sources, &mut config));
        several.note(config.listen(args, &sources));
        if config.certificates.is_empty() && !config.listen.is_empty() && several.is_empty() {
            return Err(ConfigError::NoCertificate);
        }
        several.note(config.rest(args, &sources));
        several.end(())?;
        (config.routes, config.names, config.file) = (file.routes, file.names, path);
        config.digest = crypto::sha256(&[file.digest, crypto::sha256(keys.as_bytes())].concat());
        config.warn();
        Ok(config)
    }

    /// Where to listen, if that isn't the default.
    fn listen(&mut self, args: &Args, sources: &Sources<'_>) -> Result<(), ConfigError> {
        if let Some((flag, listen)) = sources.list(&args.listen, "--listen", "LISTEN")? {
            let listen = listen.iter().map(|text| parse::listen(&flag, text));
            self.listen = listen.collect::<Result<_, _>>()?;
        } else if let Some(port) = env::text(sources.env, "PORT")?.filter(|_| self.plain.is_empty())
        {
            self.listen = vec![parse::listen(&Origin::Variable("PORT"), &port)?];
        } else if !self.plain.is_empty() {
            self.listen.clear();
            if !self.certificates.is_empty() {
                self.warnings
                    .push("--plain without --listen: nobody is shown the certificate".to_owned());
            }
        }
        Ok(())
    }

    fn rest(&mut self, args: &Args, sources: &Sources<'_>) -> Result<(), ConfigError> {
        let labels = sources.setting(&args.backend_alpn, "--backend-alpn", "BACKEND_ALPN")?;
        if let Some((flag, list)) = labels {
            self.backend_alpn =
                alpn::parse_labels(&list).map_err(|why| ConfigError::Alpn { flag, why })?;
        }
        if let Some((flag, text)) = sources.setting(&args.log, "--log", "LOG")? {
            self.log = text.trim().parse().map_err(|_| ConfigError::Log { flag, text })?;
        }
        Ok(())
    }

    /// What works, but hardly as it was meant.
    fn warn(&mut self) {
        let open = self.admission == Admission::Open;
        for route in self.routes.iter().filter(|route| route.allow.is_none() && open) {
            self.warnings.push(format!(
                "the route {:?} has no `allow`, so with --open ANYBODY can serve it",
                route.name
            ));
        }
        let given = !matches!(self.admission, Admission::Keys { made: Some(_), .. });
        if given && !self.at_large() {
            self.warnings.push(
                "every route has its own `allow`, so --open and the keys of --token-file admit nobody"
                    .to_owned(),
            );
        }
    }
}

fn limits(args: &Args, sources: &Sources<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    if let Some((flag, text)) =
        sources.setting(&args.head_timeout, "--head-timeout", "HEAD_TIMEOUT")?
    {
        limits.head = parse::timeout(flag, text)?;
    }
    if let Some((flag, text)) =
        sources.setting(&args.stall_timeout, "--stall-timeout", "STALL_TIMEOUT")?
    {
        limits.stall = parse::timeout(flag, text)?;
    }
    if let Some((flag, text)) = sources.setting(&args.grace, "--grace", "GRACE")? {
        limits.grace = parse::seconds(flag, text)?;
    }
    if let Some((flag, text)) =
        sources.setting(&args.max_connections, "--max-connections", "MAX_CONNECTIONS")?
    {
        limits.connections = Some(parse::count(flag, text)?);
    }
    let (flag, variable) = ("--max-connections-per-address", "MAX_CONNECTIONS_PER_ADDRESS");
    if let Some((flag, text)) =
        sources.setting(&args.max_connections_per_address, flag, variable)?
    {
        limits.connections_per_address = Some(parse::count(flag, text)?);
    }
    if let Some((flag, text)) =
        sources.setting(&args.max_tunnels, "--max-tunnels", "MAX_TUNNELS")?
    {
        limits.tunnels = parse::count(flag, text)?;
    }
    Ok(limits)
}
