//! Flags, environment variables and files become one checked [`Config`].
//!
//! In:  [`Args`] and a way to look up variables; a flag beats a variable, which beats the default.
//! Out: a [`Config`], or one sentence that says what is wrong and what to do.

mod args;
mod edge;
mod error;
mod parse;
mod route;
#[cfg(test)]
mod tests;

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use ptth_link::alpn;
use ptth_link::env::{self, Env};
use ptth_link::keys::{holds_secret, parse_keys};
use ptth_link::token::{self, PublicKey, Token};

pub use args::Args;
pub use edge::{ProxyProtocol, Trusted};
pub use error::ConfigError;
pub use route::{Hold, NameGrant, Names, NoBackend, Respond, Route, WhenTaken};

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
        let token = Token::generate();
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

    /// Checks flags, variables and the token file. Called again, it reads everything again; only a
    /// token made for want of another is new each time. The certificate's files are checked by
    /// [`crate::tls::Tls::new`].
    pub fn load(args: &Args, env: &Env<'_>) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let certificates = match certificate(args, env) {
            // Behind somebody else's TLS it needs none.
            Err(ConfigError::NoCertificate) => Vec::new(),
            certificate => vec![certificate?],
        };
        let admission = admission(args, env, &mut warnings)?;
        let mut config = Self::of(certificates, admission);
        config.warnings = warnings;
        config.limits = limits(args, env)?;
        let listen = match env::text(env, "LISTEN")? {
            Some(list) if args.listen.is_empty() => split(&list),
            _ => args.listen.clone(),
        };
        edge::read(args, env, &mut config)?;
        if !listen.is_empty() {
            config.listen =
                listen.iter().map(|text| parse::listen(text)).collect::<Result<_, _>>()?;
        } else if !config.plain.is_empty() {
            config.listen.clear();
            if !config.certificates.is_empty() {
                config
                    .warnings
                    .push("--plain without --listen: nobody is shown the certificate".to_owned());
            }
        }
        if config.certificates.is_empty() && !config.listen.is_empty() {
            return Err(ConfigError::NoCertificate);
        }
        if let Some((_, list)) = setting(&args.backend_alpn, env, "--backend-alpn", "BACKEND_ALPN")?
        {
            config.backend_alpn = alpn::parse_labels(&list).map_err(ConfigError::Alpn)?;
        }
        if let Some((flag, text)) = setting(&args.log, env, "--log", "LOG")? {
            config.log = text.trim().parse().map_err(|_| ConfigError::Log { flag, text })?;
        }
        Ok(config)
    }
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

fn limits(args: &Args, env: &Env<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    if let Some((flag, text)) = setting(&args.head_timeout, env, "--head-timeout", "HEAD_TIMEOUT")?
    {
        limits.head = parse::timeout(flag, text)?;
    }
    if let Some((flag, text)) =
        setting(&args.stall_timeout, env, "--stall-timeout", "STALL_TIMEOUT")?
    {
        limits.stall = parse::timeout(flag, text)?;
    }
    if let Some((flag, text)) = setting(&args.grace, env, "--grace", "GRACE")? {
        limits.grace = parse::seconds(flag, text)?;
    }
    if let Some((flag, text)) =
        setting(&args.max_connections, env, "--max-connections", "MAX_CONNECTIONS")?
    {
        limits.connections = Some(parse::count(flag, text)?);
    }
    let (flag, variable) = ("--max-connections-per-address", "MAX_CONNECTIONS_PER_ADDRESS");
    if let Some((flag, text)) = setting(&args.max_connections_per_address, env, flag, variable)? {
        limits.connections_per_address = Some(parse::count(flag, text)?);
    }
    Ok(limits)
}

fn certificate(args: &Args, env: &Env<'_>) -> Result<CertificateSource, ConfigError> {
    let files_by_flag = args.cert.is_some() || args.key.is_some();
    if args.self_signed && files_by_flag {
        return Err(ConfigError::CertificateTwice);
    }
    // A flag beats a variable here too: `--self-signed` with CERT set is a choice, not a conflict.
    let path = |flag: &Option<PathBuf>, variable| match flag {
        Some(path) => Ok(Some(path.clone())),
        None if args.self_signed => Ok(None),
        None => env::required(env, variable).map(|path| path.map(PathBuf::from)),
    };
    let (cert, key) = (path(&args.cert, "CERT")?, path(&args.key, "KEY")?);
    let self_signed = args.self_signed || !files_by_flag && env::switch(env, "SELF_SIGNED")?;
    let names = match env::text(env, "NAMES")? {
        Some(list) if args.name.is_empty() => split(&list),
        _ => args.name.clone(),
    };
    match (cert, key, self_signed) {
        (None, None, true) => {
            for name in &names {
                parse::name(name)?;
            }
            Ok(CertificateSource::SelfSigned { names })
        }
        (Some(_), _, true) | (_, Some(_), true) => Err(ConfigError::CertificateTwice),
        (Some(_), Some(_), false) if !args.name.is_empty() => Err(ConfigError::NameWithFiles),
        (Some(cert), Some(key), false) => Ok(CertificateSource::Files { cert, key }),
        (Some(cert), None, false) => Err(ConfigError::KeyMissing { cert }),
        (None, Some(key), false) => Err(ConfigError::CertMissing { key }),
        (None, None, false) => Err(ConfigError::NoCertificate),
    }
}

fn admission(
    args: &Args,
    env: &Env<'_>,
    warnings: &mut Vec<String>,
) -> Result<Admission, ConfigError> {
    let inline = env::required(env, "TOKEN")?;
    let file = match &args.token_file {
        Some(path) => Some(path.clone()),
        None => env::required(env, "TOKEN_FILE")?.map(PathBuf::from),
    };
    let open = args.open || env::switch(env, "OPEN")?;
    // A token by mistake in the file's place: no message may quote it.
    if file.as_deref().is_some_and(holds_token) {
        return Err(ConfigError::TokenAsFile);
    }
    match (file, inline, open) {
        (None, None, false) => Ok(Admission::make()),
        (None, None, true) => Ok(Admission::Open),
        // No precedence here: guessing wrong would let everybody in.
        (_, _, true) => Err(ConfigError::OpenWithToken),
        (Some(_), Some(_), false) if args.token_file.is_none() => Err(ConfigError::TokenTwice),
        (Some(path), _, false) => {
            let text = read_token_file(&path)?;
            warnings.extend(exposed(&path, &text));
            let keys = parse_keys(&text)
                .map_err(|why| ConfigError::TokenFile { path: path.clone(), why })?;
            Ok(Admission::Keys { keys, file: Some(path), made: None })
        }
        (None, Some(text), false) => {
            let keys = parse_keys(&text).map_err(ConfigError::Token)?;
            Ok(Admission::Keys { keys, file: None, made: None })
        }
    }
}

/// Whether a path is a token that somebody gave instead of a file with one.
fn holds_token(path: &Path) -> bool {
    path.to_str().is_some_and(token::begins_like_one) && !path.exists()
}

/// Reads a token file; also for [`crate::tls::Tls::reload`].
pub(crate) fn read_token_file(path: &Path) -> Result<String, ConfigError> {
    let bytes = fs::read(path).map_err(|err| ConfigError::unreadable(path, &err))?;
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText { path: path.to_owned() })
}

/// A warning if others on the machine can read a private half.
#[cfg(unix)]
fn exposed(path: &Path, text: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o004 != 0 && holds_secret(text)).then(|| {
        format!(
            "{} holds a private token and everybody on this machine can read it; `chmod 600` it, or keep only the public half there",
            path.display()
        )
    })
}

#[cfg(not(unix))]
fn exposed(_: &Path, _: &str) -> Option<String> {
    None
}

/// The parts of a list in a variable, which commas or blanks separate.
fn split(list: &str) -> Vec<String> {
    let parts = list.split(|c: char| c == ',' || c.is_whitespace());
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
